"""The baseline on pixels: principal components and the nearest neighbour."""

import dataclasses

import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.report.interval import AccuracyInterval, accuracy_interval

COMPONENTS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
  """Result of the baseline on pixels.

  Attributes:
    accuracy: share of the test images that it classifies correctly.
    interval: of that accuracy.
    size: side of the grey images, pixels.
    components: number of principal components.
  """

  accuracy: float
  interval: AccuracyInterval
  size: int
  components: int


def pixel_baseline(
  train: np.ndarray, train_label: np.ndarray, *, test: np.ndarray, test_label: np.ndarray
) -> Baseline:
  """Classifies by the nearest training image, after a PCA fitted on the training images.

  Args:
    train: [n, size, size] uint8, grey.
    train_label: [n] int.
    test: [m, size, size] uint8.
    test_label: [m] int.

  Raises:
    InputError: scikit-learn is not installed.
  """
  pipeline = import_extra('sklearn.pipeline', extra='demo')
  from sklearn.decomposition import PCA
  from sklearn.neighbors import KNeighborsClassifier
  from threadpoolctl import threadpool_limits

  pixels, queries = (np.float64(a.reshape(len(a), -1)) for a in (train, test))
  components = min(COMPONENTS, *pixels.shape)
  nearest = pipeline.make_pipeline(
    PCA(components, svd_solver='covariance_eigh'), KNeighborsClassifier(1, algorithm='brute')
  )
  # A second thread would mostly wait, and slow down whatever else runs. The share of the
  # variance is not a number where all images are alike.
  with threadpool_limits(1), np.errstate(invalid='ignore'):
    correct = nearest.fit(pixels, train_label).predict(queries) == test_label
  return Baseline(
    accuracy=float(correct.mean()),
    interval=accuracy_interval(correct, test_label),
    size=train.shape[1],
    components=components,
  )
