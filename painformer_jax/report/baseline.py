"""What the pixels alone give: principal components and the nearest neighbour."""

import dataclasses

import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.report import pca
from painformer_jax.report.interval import Interval, accuracy_interval

COMPONENTS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
  """Result of the baseline on pixels.

  Attributes:
    accuracy: share of the test images that it classifies correctly.
    interval: of that accuracy.
    size: side of the grey images, pixels.
    components: how many it keeps of them.
  """

  accuracy: float
  interval: Interval
  size: int
  components: int


def pixel_baseline(
  train: np.ndarray, train_label: np.ndarray, *, test: np.ndarray, test_label: np.ndarray
) -> Baseline:
  """PCA fitted on the training images, then the label of the nearest of them.

  Args:
    train: [n, size, size] uint8, grey.
    train_label: [n] int.
    test: [m, size, size] uint8.
    test_label: [m] int.

  Raises:
    InputError: scikit-learn is not installed.
  """
  neighbors = import_extra('sklearn.neighbors', extra='demo')
  from threadpoolctl import threadpool_limits

  rows, queries = (np.float64(a.reshape(len(a), -1)) for a in (train, test))
  # A second thread would mostly wait, and slow down whatever else runs.
  with threadpool_limits(1):
    components = pca.fit(rows, COMPONENTS)
    nearest = neighbors.KNeighborsClassifier(1, algorithm='brute').fit(
      components.project(rows), train_label
    )
    correct = nearest.predict(components.project(queries)) == test_label
  return Baseline(
    accuracy=float(correct.mean()),
    interval=accuracy_interval(correct, test_label),
    size=train.shape[1],
    components=len(components.axes),
  )
