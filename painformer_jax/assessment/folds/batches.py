"""Folds, and which samples each of their training steps sees."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
  """One split of the samples.

  Attributes:
    name: unique, such as the subject that is left out. Everything random in a fold follows
      from the seed and this name, whatever other folds there are.
    train, test: int [n], indices of samples, n > 0, in any order.
  """

  name: str
  train: np.ndarray
  test: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldRun:
  """One training: a fold with a seed. Runs with the same fold and seed are equal."""

  fold: Fold
  seed: int

  @property
  def entropy(self) -> np.ndarray:
    """uint32 [8], a hash of the seed and the fold's name."""
    digest = hashlib.sha256(f'{self.seed}/{self.fold.name}'.encode()).digest()
    return np.frombuffer(digest, '<u4').copy()

  @property
  def key(self) -> np.ndarray:
    """uint32 [2], data of the run's random key."""
    return self.entropy[:2]


def check_folds(folds: Sequence[Fold], *, samples: int) -> None:
  """Checks that folds hold valid indices of samples.

  Args:
    folds: to check.
    samples: number of samples.

  Raises:
    InputError: there are no folds, two have one name, an index is out of range or occurs
      twice, or a sample is both trained on and tested.
  """
  if not folds:
    raise InputError('there are no folds: name at least one split of the samples')
  names = set()
  for fold in folds:
    if fold.name in names:
      raise InputError(f'two folds are named {fold.name!r}: give each its own name')
    names.add(fold.name)
    for part in ('train', 'test'):
      indices = np.asarray(getattr(fold, part))
      where = f'fold {fold.name!r}, {part}'
      if indices.ndim != 1 or not indices.size or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f'{where}: needs one or more sample indices')
      if indices.min() < 0 or indices.max() >= samples:
        raise InputError(
          f'{where}: index {indices.max() if indices.min() >= 0 else indices.min()} '
          f'is not in 0 to {samples - 1}'
        )
      if len(np.unique(indices)) != indices.size:
        raise InputError(f'{where}: a sample is named twice')
    both = np.intersect1d(fold.train, fold.test)
    if both.size:
      raise InputError(
        f'fold {fold.name!r} trains on {both.size} of its own test samples, such as {both[0]}'
      )


def count_steps(folds: Sequence[Fold], *, epochs: int, batch: int) -> int:
  """Training steps of every fold: `epochs` epochs of the largest one."""
  largest = max(len(fold.train) for fold in folds)
  return -(-largest * epochs // batch)


def minibatches(run: FoldRun, *, steps: int, batch: int) -> np.ndarray:
  """The samples of each step: int32 [steps, batch].

  Random permutations of the training samples, one per epoch, are concatenated and cut
  into batches, so a batch may span two epochs. All folds take the same number of steps,
  so smaller folds have more epochs.
  """
  train = np.sort(np.asarray(run.fold.train)).astype(np.int32)
  rng = np.random.default_rng(run.entropy)
  epochs = -(-steps * batch // len(train))
  stream = np.concatenate([rng.permutation(train) for _ in range(epochs)])
  return stream[: steps * batch].reshape(steps, batch)


def padded(indices: Sequence[np.ndarray], *, length: int) -> np.ndarray:
  """Index arrays of any lengths -> int32 [arrays, length], padded with index 0."""
  rows = np.zeros((len(indices), length), np.int32)
  for row, values in zip(rows, indices, strict=True):
    row[: len(values)] = values
  return rows


def class_weights(run: FoldRun, labels: np.ndarray, *, classes: int, balanced: bool) -> np.ndarray:
  """float32 [classes]: ones, or n / (present classes × count) over the training samples."""
  if not balanced:
    return np.ones(classes, np.float32)
  counts = np.bincount(labels[np.asarray(run.fold.train)], minlength=classes)
  weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
  return np.where(counts, weights, 0).astype(np.float32)
