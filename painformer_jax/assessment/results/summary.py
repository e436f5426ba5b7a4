"""The scores of a finished experiment, with intervals over its subjects."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.intervals import Interval, bootstrap
from painformer_jax.assessment.statistics.metrics import Calibration, Predictions
from painformer_jax.core.errors import InputError

NOTICE = 'A research tool; no medical device, and not for decisions on patients.'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """What was run, and the predictions that came out.

  Attributes:
    name: unique among the experiments of a run.
    dataset, task, modality, method, protocol: its cells in tables.
    classes: names, in the order of the labels.
    runs: predictions of the same samples, one `Predictions` for each seed.
    unit: what `Predictions.subject` holds: 'subject', or 'block' of time.
    settings: everything needed to repeat it, as JSON can hold it.
    notes: what a reader must know, such as that embeddings were normalised by subject.

  Raises:
    InputError: there are no predictions, or the seeds differ in samples or classes.
  """

  name: str
  dataset: str
  task: str
  modality: str
  method: str
  protocol: str
  classes: tuple[str, ...]
  runs: tuple[Predictions, ...]
  unit: str = 'subject'
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    if not self.runs:
      raise InputError(f'{self.name} has no predictions')
    for run in self.runs:
      if run.classes != len(self.classes):
        raise InputError(
          f'{self.name}: {run.classes} probabilities for {len(self.classes)} classes'
        )
    first = self.runs[0]
    if any(not _same_samples(first, run) for run in self.runs[1:]):
      raise InputError(f'{self.name}: every seed must predict the same samples, in the same order')

  def confusion_by_subject(self) -> np.ndarray:
    """int64 [seeds, subjects, classes, classes]."""
    return np.stack([run.confusion_by_subject() for run in self.runs])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
  """The scores of an experiment.

  Attributes:
    experiment: what was scored.
    scores: name, as in `metrics.SCORES`, -> mean over seeds with its interval, whose
      ends are nan where there is only one subject.
    subject_accuracy: mean of the subjects' accuracies.
    seed_spread: standard deviation of the accuracy over seeds; nan for one seed.
    chance: accuracy of always predicting the most frequent class.
    confusion: int64 [classes, classes], the sum over seeds.
    by_subject: float64 [subjects], each subject's accuracy, mean over seeds.
    calibration: of the predictions of all seeds together.
  """

  experiment: Experiment
  scores: Mapping[str, Interval]
  subject_accuracy: float
  seed_spread: float
  chance: float
  confusion: np.ndarray
  by_subject: np.ndarray
  calibration: Calibration

  def record(self) -> dict[str, Any]:
    """Its entry in results.json."""
    e, first = self.experiment, self.experiment.runs[0]
    counts = e.confusion_by_subject().sum(0)
    return {
      'name': e.name,
      'dataset': e.dataset,
      'task': e.task,
      'modality': e.modality,
      'method': e.method,
      'protocol': e.protocol,
      'classes': list(e.classes),
      'unit': e.unit,
      'seeds': len(e.runs),
      'samples': len(first.label),
      'subjects': len(first.subjects),
      'chance': self.chance,
      'scores': {name: without_nan(interval.record()) for name, interval in self.scores.items()},
      'balanced_accuracy': self.scores['macro accuracy'].estimate,
      'macro_recall': self.scores['macro accuracy'].estimate,
      'subject_accuracy': self.subject_accuracy,
      'seed_standard_deviation': without_nan(self.seed_spread),
      'confusion': self.confusion.tolist(),
      'calibration': self.calibration.record(),
      'by_subject': {
        person: {'accuracy': float(accuracy), 'confusion': own.tolist()}
        for person, accuracy, own in zip(first.subjects, self.by_subject, counts)
      },
      'notes': list(e.notes),
      'settings': dict(e.settings),
    }


def summarise(experiment: Experiment, *, seed: int = 0) -> Summary:
  """Scores an experiment.

  Args:
    experiment: to score.
    seed: of the bootstrap over subjects that gives the intervals.
  """
  counts = experiment.confusion_by_subject()
  overall = counts.sum(1)
  several = counts.shape[1] > 1

  def score(function) -> Interval:
    if several:
      return bootstrap(counts, function, seed=seed)
    return Interval(
      estimate=float(function(overall).mean()), low=math.nan, high=math.nan, level=0.95, subjects=1
    )

  first, runs = experiment.runs[0], experiment.runs
  by_subject = metrics.accuracy(counts).mean(0)
  return Summary(
    experiment=experiment,
    scores={name: score(function) for name, function in metrics.SCORES.items()},
    subject_accuracy=float(by_subject.mean()),
    seed_spread=(float(metrics.accuracy(overall).std(ddof=1)) if len(runs) > 1 else math.nan),
    chance=float(np.bincount(first.label).max() / len(first.label)),
    confusion=overall.sum(0),
    by_subject=by_subject,
    calibration=metrics.calibration(
      np.concatenate([r.label for r in runs]), np.concatenate([r.probability for r in runs])
    ),
  )


def _same_samples(a: Predictions, b: Predictions) -> bool:
  return (
    np.array_equal(a.sample, b.sample)
    and np.array_equal(a.label, b.label)
    and np.array_equal(a.subject, b.subject)
  )


def without_nan(value: Any) -> Any:
  """Replaces nan by None, also inside dictionaries, for JSON."""
  if isinstance(value, dict):
    return {k: without_nan(v) for k, v in value.items()}
  return None if isinstance(value, float) and math.isnan(value) else value
