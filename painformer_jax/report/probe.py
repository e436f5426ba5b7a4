"""The linear probe: how well embeddings separate classes, and how certain that is."""

import dataclasses
import warnings

import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.report.interval import AccuracyInterval, accuracy_interval

# Inverse strengths of the penalty to choose from, and folds of the cross-validation that
# chooses.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
FOLDS = 5
# Above this ratio of class sizes, accuracy can hide errors of the smaller class.
UNBALANCED_RATIO = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """Result of a linear probe.

  Attributes:
    accuracy: share of the test images that it classifies correctly.
    interval: of that accuracy.
    macro_f1: mean of the F1 scores of the classes in the test split.
    strength: the inverse penalty that cross-validation chose.
    folds: of that cross-validation; 0 where a class is too small for any, and
      the middle of STRENGTHS was taken.
  """

  accuracy: float
  interval: AccuracyInterval
  macro_f1: float
  strength: float
  folds: int


def linear_probe(
  train: np.ndarray, train_label: np.ndarray, *, test: np.ndarray, test_label: np.ndarray
) -> Probe:
  """Multinomial logistic regression on standardised embeddings.

  The penalty is chosen by cross-validation inside the training split; the test split is
  used once. Each fold has consecutive images of each class, so that overlapping windows
  of a recording are mostly in one fold.

  Args:
    train: [n, width], any float dtype.
    train_label: [n] int.
    test: [m, width].
    test_label: [m] int.

  Raises:
    InputError: scikit-learn is not installed.
    ValueError: the training split holds one class alone.
  """
  linear_model = import_extra('sklearn.linear_model', extra='demo')
  from sklearn import metrics, model_selection, pipeline, preprocessing
  from sklearn.exceptions import ConvergenceWarning
  from threadpoolctl import threadpool_limits

  def classifier(strength: float):
    return pipeline.make_pipeline(
      preprocessing.StandardScaler(), linear_model.LogisticRegression(C=strength, max_iter=1000)
    )

  train, test = np.float64(train), np.float64(test)
  counts = np.bincount(train_label)
  counts = counts[counts > 0]
  if len(counts) < 2:
    raise ValueError('all training images are of one class')
  folds = min(FOLDS, int(counts.min()))
  # The matrices are small: threads would cost more than they bring.
  with threadpool_limits(1), warnings.catch_warnings():
    # A probe that has not converged after so many steps is near enough.
    warnings.simplefilter('ignore', ConvergenceWarning)
    if folds < 2:
      folds, strength = 0, STRENGTHS[len(STRENGTHS) // 2]
    else:
      parts = model_selection.StratifiedKFold(folds)
      scores = [
        model_selection.cross_val_score(classifier(s), train, train_label, cv=parts).mean()
        for s in STRENGTHS
      ]
      strength = STRENGTHS[int(np.argmax(scores))]  # The strongest penalty on a tie.
    predicted = classifier(strength).fit(train, train_label).predict(test)
  correct = predicted == test_label
  return Probe(
    accuracy=float(correct.mean()),
    interval=accuracy_interval(correct, test_label),
    macro_f1=float(
      metrics.f1_score(
        test_label, predicted, labels=np.unique(test_label), average='macro', zero_division=0
      )
    ),
    strength=strength,
    folds=folds,
  )


def chance(label: np.ndarray) -> float:
  """Accuracy of naming the most frequent class of the split every time."""
  return float(np.bincount(label).max() / len(label))


def is_unbalanced(label: np.ndarray) -> bool:
  """Whether the classes of a split differ in size by more than half."""
  counts = np.bincount(label)
  counts = counts[counts > 0]
  return bool(counts.max() > UNBALANCED_RATIO * counts.min())


def verdict(interval: AccuracyInterval, level: float) -> str:
  """'above', 'at' or 'below' chance, in words."""
  if interval.low > level:
    return 'above chance'
  return 'at chance' if interval.high >= level else 'below chance'
