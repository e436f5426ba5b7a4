"""What the pixels alone give: principal components and the nearest neighbour."""

import dataclasses

import numpy as np

from painformer_jax.errors import import_extra
from painformer_jax.report.probe import Interval, wilson

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


def pixel_baseline(train: np.ndarray, train_label: np.ndarray, *,
                   test: np.ndarray, test_label: np.ndarray) -> Baseline:
  """PCA fitted on the training images, then the label of the nearest of them.

  Args:
    train: [n, size, size] uint8, grey.
    train_label: [n] int.
    test: [m, size, size] uint8.
    test_label: [m] int.

  Raises:
    InputError: scikit-learn is not installed.
  """
  decomposition = import_extra('sklearn.decomposition', extra='demo')
  from sklearn.neighbors import KNeighborsClassifier
  rows, queries = (np.float64(a.reshape(len(a), -1)) for a in (train, test))
  components = min(COMPONENTS, *rows.shape)
  pca = decomposition.PCA(components, svd_solver='full').fit(rows)
  nearest = KNeighborsClassifier(1, algorithm='brute').fit(
      pca.transform(rows), train_label)
  correct = int((nearest.predict(pca.transform(queries)) == test_label).sum())
  return Baseline(
      accuracy=correct / len(test_label), interval=wilson(correct, len(test_label)),
      size=train.shape[1], components=components)
