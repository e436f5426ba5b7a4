"""Predictions, scores from their confusion matrices, and calibration.

Every score takes counts [..., classes, classes] (rows: true, columns: predicted) and
returns [...], so that one function scores a subject, a run, or all bootstrap resamples.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
  """Predictions of one run for the test samples of all folds.

  Attributes:
    sample: str [n], names.
    subject: str [n].
    label: int64 [n], true class.
    probability: float64 [n, classes]; each row sums to 1.

  Raises:
    InputError: lengths differ, a sample occurs twice, or labels or probabilities are not
      valid.
  """

  sample: np.ndarray
  subject: np.ndarray
  label: np.ndarray
  probability: np.ndarray

  def __post_init__(self):
    for name, kind in (
      ('sample', str),
      ('subject', str),
      ('label', np.int64),
      ('probability', np.float64),
    ):
      object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
    n = len(self.label)
    if (
      self.probability.ndim != 2
      or not n
      or any(len(a) != n for a in (self.sample, self.subject, self.probability))
    ):
      raise InputError(
        'predictions need as many samples, subjects, labels and rows of '
        f'probabilities, and one at least: {len(self.sample)}, '
        f'{len(self.subject)}, {n}, {list(self.probability.shape)}'
      )
    if not (
      np.all(self.probability >= 0) and np.allclose(self.probability.sum(axis=1), 1, atol=1e-3)
    ):
      raise InputError('probabilities must be 0 or more and add up to 1')
    if self.label.min() < 0 or self.label.max() >= self.classes:
      raise InputError(f'labels must be 0 to {self.classes - 1}; leave samples without a label out')
    names, counts = np.unique(self.sample, return_counts=True)
    if counts.max() > 1:
      raise InputError(f'{names[counts.argmax()]} is predicted twice')

  @property
  def classes(self) -> int:
    """Number of classes."""
    return self.probability.shape[1]

  @property
  def predicted(self) -> np.ndarray:
    """int64 [n], the most probable class; the first of equals."""
    return self.probability.argmax(axis=1)

  @property
  def subjects(self) -> tuple[str, ...]:
    """Each subject once, in the order of the samples."""
    return tuple(dict.fromkeys(self.subject.tolist()))

  def confusion(self) -> np.ndarray:
    """int64 [classes, classes]."""
    return confusion(self.label, self.predicted, classes=self.classes)

  def confusion_by_subject(self) -> np.ndarray:
    """int64 [subjects, classes, classes], in the order of `subjects`."""
    return np.stack(
      [
        confusion(self.label[own], self.predicted[own], classes=self.classes)
        for person in self.subjects
        for own in [self.subject == person]
      ]
    )


def gather(
  folds: Sequence[Fold],
  logits: Sequence[np.ndarray],
  *,
  sample: np.ndarray,
  subject: np.ndarray,
  label: np.ndarray,
) -> tuple[Predictions, ...]:
  """Joins the predictions of all folds' test samples, one result for each seed.

  Args:
    folds: indices into the three arrays below.
    logits: of each fold, real [seeds, test samples, classes].
    sample, subject: str [n].
    label: int [n], true class.

  Returns:
    Predictions in the order of the samples; samples that no fold tests are left out.

  Raises:
    InputError: a sample is tested in two folds.
  """
  positions = np.concatenate([np.asarray(fold.test) for fold in folds])
  order = np.argsort(positions, kind='stable')
  values = np.concatenate([np.asarray(each, np.float64) for each in logits], axis=1)[:, order]
  positions = positions[order]
  weights = np.exp(values - values.max(axis=-1, keepdims=True))
  return tuple(
    Predictions(
      sample=np.asarray(sample)[positions],
      subject=np.asarray(subject)[positions],
      label=np.asarray(label)[positions],
      probability=probability,
    )
    for probability in weights / weights.sum(axis=-1, keepdims=True)
  )


def confusion(label: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
  """The confusion matrix, int64 [classes, classes]: rows true, columns predicted."""
  return np.bincount(
    np.asarray(label) * classes + np.asarray(predicted), minlength=classes * classes
  ).reshape(classes, classes)


def accuracy(counts: np.ndarray) -> np.ndarray:
  """Share of all samples that are predicted right; nan without samples."""
  return _ratio(_diagonal(counts).sum(-1), counts.sum((-2, -1)), empty=np.nan)


def macro_accuracy(counts: np.ndarray) -> np.ndarray:
  """Mean over classes of the share of their samples that are predicted right.

  Every class has the same weight. This is the same number as balanced accuracy and macro
  recall. Classes without samples are left out.
  """
  recall = _ratio(_diagonal(counts), counts.sum(-1), empty=np.nan)
  return _mean(recall)


def macro_precision(counts: np.ndarray) -> np.ndarray:
  """Mean over classes of the share of their predictions that are right.

  0 for a class that occurs and is never predicted; classes that neither occur nor
  are predicted are left out.
  """
  return _mean(
    np.where(_occurs(counts), _ratio(_diagonal(counts), counts.sum(-2), empty=0), np.nan)
  )


def macro_f1(counts: np.ndarray) -> np.ndarray:
  """Mean over classes of F1 = 2 right / (true + predicted).

  Classes that neither occur nor are predicted are left out.
  """
  return _mean(_ratio(2 * _diagonal(counts), counts.sum(-1) + counts.sum(-2), empty=np.nan))


# The scores in tables, by their names there.
SCORES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  'accuracy': accuracy,
  'macro accuracy': macro_accuracy,
  'macro precision': macro_precision,
  'macro F1': macro_f1,
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
  """How close the probability of the predicted class is to the share that is right.

  Attributes:
    error: expected calibration error: mean distance of confidence and accuracy over the
      bins, weighted by their samples; 0 is perfect.
    brier: mean squared distance of probabilities and truth, summed over classes, in
      [0, 2] (Brier 1950).
    log_loss: mean negative log of the true class's probability, nats.
    edges: float64 [bins + 1], of confidence.
    count: int64 [bins], samples in each bin.
    confidence, accuracy: float64 [bins], means within each bin; nan where it is empty.
  """

  error: float
  brier: float
  log_loss: float
  edges: np.ndarray
  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray

  def record(self) -> dict[str, Any]:
    """As results.json holds it; nan becomes null."""

    def plain(values):
      return [None if np.isnan(v) else float(v) for v in values]

    return {
      'expected_calibration_error': self.error,
      'brier': self.brier,
      'log_loss': self.log_loss,
      'edges': self.edges.tolist(),
      'count': self.count.tolist(),
      'confidence': plain(self.confidence),
      'accuracy': plain(self.accuracy),
    }


def calibration(label: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> Calibration:
  """Calibration of predictions, in bins of equal width from 0 to 1.

  Args:
    label: int [n].
    probability: float [n, classes].
    bins: number of bins; a confidence on an edge belongs to the lower bin.
  """
  probability = np.asarray(probability, np.float64)
  rows = np.arange(len(label))
  confidence = probability.max(axis=1)
  right = probability.argmax(axis=1) == label
  edges = np.linspace(0, 1, bins + 1)
  place = np.clip(np.searchsorted(edges, confidence, side='left') - 1, 0, bins - 1)
  count = np.bincount(place, minlength=bins)
  mean_confidence = _ratio(
    np.bincount(place, weights=confidence, minlength=bins), count, empty=np.nan
  )
  mean_right = _ratio(np.bincount(place, weights=right, minlength=bins), count, empty=np.nan)
  truth = np.zeros_like(probability)
  truth[rows, label] = 1
  chosen = np.maximum(probability[rows, label], np.finfo(np.float64).tiny)
  distance = np.abs(mean_confidence - mean_right)
  return Calibration(
    error=float(np.nansum(count * distance) / len(right)),
    brier=float(((probability - truth) ** 2).sum(axis=1).mean()),
    log_loss=float(-np.log(chosen).mean()),
    edges=edges,
    count=count,
    confidence=mean_confidence,
    accuracy=mean_right,
  )


def _diagonal(counts: np.ndarray) -> np.ndarray:
  return np.diagonal(counts, axis1=-2, axis2=-1)


def _occurs(counts: np.ndarray) -> np.ndarray:
  return (counts.sum(-1) + counts.sum(-2)) > 0


def _ratio(part: np.ndarray, whole: np.ndarray, *, empty: float) -> np.ndarray:
  part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
  return np.divide(
    part,
    whole,
    out=np.full(np.broadcast_shapes(part.shape, whole.shape), float(empty)),
    where=whole > 0,
  )


def _mean(values: np.ndarray) -> np.ndarray:
  """Mean over the last axis without nan; nan if there is nothing else."""
  there = ~np.isnan(values)
  return _ratio(np.where(there, values, 0).sum(-1), there.sum(-1), empty=np.nan)
