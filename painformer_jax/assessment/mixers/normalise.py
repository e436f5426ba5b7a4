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


def _statistics(values: np.ndarray) -> Standardiser:
  rows = values.reshape(-1, values.shape[-1])
  finite = np.isfinite(rows)
  count = np.maximum(finite.sum(axis=0), 1)
  mean = np.where(finite, rows, 0).sum(axis=0) / count
  std = np.sqrt((np.where(finite, rows - mean, 0) ** 2).sum(axis=0) / count)
  return Standardiser(mean=mean, std=np.where(std > 0, std, 1.0))
