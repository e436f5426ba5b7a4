"""Scores of predictions, all from one confusion matrix; and calibration.

Every score takes counts [..., classes, classes] (rows: true, columns: predicted)
and returns [...], so that one formula serves a subject, a run and ten thousand
resampled runs alike.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
  """What one run said of samples it was not trained on, all folds together.

  Attributes:
    sample: str [n], names.
    subject: str [n].
    label: int64 [n], true class.
    probability: float64 [n, classes], each row adding up to 1.
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
    """How many."""
    return self.probability.shape[1]

  @property
  def predicted(self) -> np.ndarray:
    """int64 [n], the most probable class, the first of equals."""
    return self.probability.argmax(axis=1)

  @property
  def subjects(self) -> tuple[str, ...]:
    """Each once, in the order of the samples."""
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
  """What all folds said of their test samples, together, one result a seed.

  Args:
    folds: of positions in the three arrays below.
    logits: a fold -> real [seeds, test samples, classes], as `FitResult.logits`.
    sample, subject: str [n].
    label: int [n], true class.

  Returns:
    Predictions in the order of the samples; those in no test part are left out.

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
  """Counts, int64 [classes, classes]: rows true, columns predicted."""
  return np.bincount(
    np.asarray(label) * classes + np.asarray(predicted), minlength=classes * classes
  ).reshape(classes, classes)


def accuracy(counts: np.ndarray) -> np.ndarray:
  """Share of all samples that are right; nan without samples."""
  return _ratio(_diagonal(counts).sum(-1), counts.sum((-2, -1)), empty=np.nan)


def macro_accuracy(counts: np.ndarray) -> np.ndarray:
  """Mean over classes of the share of their samples that are right.

  Every class counts alike, however frequent. This is also called balanced accuracy
  and macro recall: the three are one number. Classes without samples are left out.
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


# The ones that tables show, by the name they have there.
SCORES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  'accuracy': accuracy,
  'macro accuracy': macro_accuracy,
  'macro precision': macro_precision,
  'macro F1': macro_f1,
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
  """How well the probability of the predicted class tells how often it is right.

  Attributes:
    error: expected calibration error, the mean distance of confidence and accuracy
      over the bins, weighted by their samples; 0 is perfect.
    brier: mean squared distance of probabilities and truth, summed over classes, in
      [0, 2] (Brier 1950).
    log_loss: mean negative log of the true class's probability, nats.
    edges: float64 [bins + 1], of confidence.
    count: int64 [bins].
    confidence, accuracy: float64 [bins], means within each; nan where empty.
  """

  error: float
  brier: float
  log_loss: float
  edges: np.ndarray
  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray

  def record(self) -> dict[str, Any]:
    """As JSON keeps it; nan becomes null."""

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
  """Calibration in `bins` of equal width from 0 to 1.

  Args:
    label: int [n].
    probability: float [n, classes].
    bins: a confidence on an edge belongs to the lower one.
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
  """Over the last axis, nan left out; nan if all are."""
  there = ~np.isnan(values)
  return _ratio(np.where(there, values, 0).sum(-1), there.sum(-1), empty=np.nan)
