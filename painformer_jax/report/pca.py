"""Principal components, exact and cheap for rows up to a few thousand wide."""

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
  """Directions in which rows vary most.

  Attributes:
    mean: [width] of the rows they were fitted to.
    axes: [count, width], orthonormal, the one of most variance first.
    shares: [count], of the total variance.
  """

  mean: np.ndarray
  axes: np.ndarray
  shares: np.ndarray

  def project(self, rows: np.ndarray) -> np.ndarray:
    """[n, width] -> [n, count]."""
    return (rows - self.mean) @ self.axes.T


def fit(rows: np.ndarray, count: int) -> Components:
  """The first `count` components, or as many as the rows have.

  Args:
    rows: [n, width] float64.
    count: at least 1.
  """
  n, width = rows.shape
  count = min(count, n, width)
  mean = rows.mean(0)
  covariance = np.cov(rows, rowvar=False, bias=True).reshape(width, width)
  values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(width - count, width - 1))
  axes = vectors.T[::-1]
  # Signs are the solver's whim: the largest weight of each axis is positive.
  largest = np.abs(axes).argmax(1)
  axes = axes * np.sign(axes[np.arange(count), largest])[:, None]
  total = max(float(np.trace(covariance)), 1e-12)
  return Components(mean=mean, axes=axes, shares=np.maximum(values[::-1], 0) / total)
