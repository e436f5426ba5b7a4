"""Centring and scaling that no test label can reach: nothing here takes a label."""

import dataclasses

import numpy as np

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Standardiser:
  """Mean and spread of the features of training samples.

  Attributes:
    mean: float64 [features].
    std: float64 [features], 1 where a feature does not vary.
  """

  mean: np.ndarray
  std: np.ndarray

  @classmethod
  def fit(cls, values: np.ndarray) -> 'Standardiser':
    """Of training samples alone.

    Args:
      values: real [n, ..., features]; NaN and infinities are left out.
    """
    return _statistics(np.asarray(values, np.float64))

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """Standardises real [..., features]; keeps the float type of `values`."""
    values = np.asarray(values)
    result = (values - self.mean) / self.std
    return result.astype(values.dtype) if values.dtype.kind == 'f' else result


def zscore_by_subject(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
  """Standardises each subject by all of their own samples, whatever their level.

  That uses a test subject's unlabelled recordings: an application must have some
  of a person's before it can assess them. State it beside results.

  Args:
    values: real [n, ..., features], such as embeddings.
    subjects: str [n].

  Returns:
    The same shape, and float type where `values` has one.

  Raises:
    InputError: another number of subjects than of samples.
  """
  values, subjects = np.asarray(values), np.asarray(subjects)
  if subjects.shape != values.shape[:1]:
    raise InputError(f'{len(values)} samples but {subjects.size} subjects')
  result = np.empty(values.shape, values.dtype if values.dtype.kind == 'f' else np.float64)
  for person in np.unique(subjects):
    own = subjects == person
    result[own] = Standardiser.fit(values[own])(values[own])
  return result


class SignalScaler:
  """Standardises signals by subject and modality, in two passes over them.

  `add` every signal of a subject, one after the other; then call it. Memory stays
  constant.
  """

  def __init__(self):
    self._sums: dict[tuple[str, str], np.ndarray] = {}

  def add(self, subject: str, modality: str, signal: np.ndarray) -> None:
    """Counts a signal, real [n], NaN left out, towards its subject."""
    values = np.asarray(signal, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
      return
    count, mean, square = self._sums.get((subject, modality), np.zeros(3))
    shift = values.mean() - mean
    total = count + values.size
    # Chan's update: sums of squares of large offsets would cancel.
    self._sums[subject, modality] = np.array(
      [
        total,
        mean + shift * values.size / total,
        square + ((values - values.mean()) ** 2).sum() + shift**2 * count * values.size / total,
      ]
    )

  def __call__(self, subject: str, modality: str, signal: np.ndarray) -> np.ndarray:
    """The signal, float64 [n], in the subject's own units.

    Raises:
      InputError: nothing of that subject and modality was added.
    """
    if (subject, modality) not in self._sums:
      raise InputError(f'no {modality} of {subject} was added to scale by')
    count, mean, square = self._sums[subject, modality]
    std = np.sqrt(square / count)
    return (np.asarray(signal, np.float64) - mean) / (std if std > 0 else 1.0)


def _statistics(values: np.ndarray) -> Standardiser:
  rows = values.reshape(-1, values.shape[-1])
  finite = np.isfinite(rows)
  count = np.maximum(finite.sum(axis=0), 1)
  mean = np.where(finite, rows, 0).sum(axis=0) / count
  std = np.sqrt((np.where(finite, rows - mean, 0) ** 2).sum(axis=0) / count)
  return Standardiser(mean=mean, std=np.where(std > 0, std, 1.0))
