"""A finished experiment in figures, and the files that hold them."""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from painformer_jax.assessment.results import figure as result_figure
from painformer_jax.assessment.results import literature
from painformer_jax.assessment.results import table as result_table
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.intervals import RESAMPLES, Interval, bootstrap
from painformer_jax.assessment.statistics.metrics import Calibration, Predictions
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically

if TYPE_CHECKING:
  from painformer_jax.assessment.results.paired import PairedTest

NOTICE = 'A research tool; no medical device, and not for decisions on patients.'
DEFINITIONS = {
  'accuracy': 'share of all samples that are right',
  'macro accuracy': 'mean over classes of the share of their samples that are right; '
  'also called balanced accuracy and macro recall',
  'macro precision': 'mean over classes of the share of their predictions that are right',
  'macro F1': "mean of the classes' F1",
  'subject accuracy': "mean of the subjects' own accuracies",
  'chance': 'accuracy of always naming the most frequent class',
  'interval': f'95 %, {RESAMPLES:,} bootstrap resamples of the subjects (or blocks of '
  'time); of several seeds, of the mean over them',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """What was run, and what came out.

  Attributes:
    name: unique among those written together.
    dataset, task, modality, method, protocol: what tables say of it.
    classes: names, in the order of the labels.
    runs: predictions, one for each seed, of the same samples.
    unit: what `Predictions.subject` holds: 'subject', or 'block' of time.
    settings: everything needed to repeat it, as JSON can hold it.
    notes: what a reader must know, such as that subjects were normalised.
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
  """The figures of an experiment.

  Attributes:
    experiment: of which.
    scores: name, as in `metrics.SCORES`, -> mean over seeds; its interval is
      nan to nan where there is only one subject.
    subject_accuracy: mean of the subjects' own.
    seed_spread: standard deviation of the accuracy over seeds, nan of one.
    chance: of the most frequent class.
    confusion: int64 [classes, classes], all seeds added.
    by_subject: float64 [subjects], accuracy, mean over seeds.
    calibration: of all seeds' predictions.
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
    """What results.json keeps of it."""
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
      'scores': {name: _plain(interval.record()) for name, interval in self.scores.items()},
      'balanced_accuracy': self.scores['macro accuracy'].estimate,
      'macro_recall': self.scores['macro accuracy'].estimate,
      'subject_accuracy': self.subject_accuracy,
      'seed_standard_deviation': _plain(self.seed_spread),
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
  """Scores of an experiment, with intervals by resampling its subjects."""
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


def write_results(
  experiments: Sequence[Experiment],
  folder: str | Path,
  *,
  tests: 'Sequence[PairedTest]' = (),
  figures: bool = True,
) -> list[Path]:
  """Writes results.json, table.csv, table.tex, subjects.csv, predictions.csv, *.png.

  Tables hold the rows of `literature` of the same datasets and tasks besides. Each
  file is whole or absent; results.json comes last.

  Args:
    experiments: finished ones.
    folder: made if missing; files of these names are replaced.
    tests: of these experiments against others, see `paired`.
    figures: draw them (needs matplotlib).

  Returns:
    What was written.

  Raises:
    InputError: two of one name, none, or the folder cannot be written to.
  """
  check_names([e.name for e in experiments])
  summaries = [summarise(e) for e in experiments]
  published = [
    row
    for key in dict.fromkeys((e.dataset, e.task) for e in experiments)
    for row in literature.rows(*key)
  ]
  files = {
    'table.csv': result_table.to_csv(summaries, published).encode(),
    'table.tex': result_table.to_latex(summaries, published).encode(),
    'subjects.csv': _subjects_csv(summaries).encode(),
    'predictions.csv': _predictions_csv(experiments).encode(),
  }
  if figures:
    files |= {f'{slug(s.experiment.name)}.png': result_figure.draw(s) for s in summaries}
  files['results.json'] = (
    json.dumps(
      {
        'notice': NOTICE,
        'definitions': DEFINITIONS,
        'experiments': [s.record() for s in summaries],
        'comparisons': [_plain(test.record()) for test in tests],
        'literature': [{**dataclasses.asdict(row), 'value': row.value} for row in published],
        'evidence': literature.EVIDENCE,
      },
      indent=2,
      allow_nan=False,
    )
    + '\n'
  ).encode()
  folder = Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made: {error.strerror}') from error
  for name, content in files.items():
    write_atomically(folder / name, lambda file, content=content: file.write(content))
  return [folder / name for name in files]


def check_names(names: Sequence[str]) -> None:
  """Raises InputError where names of experiments cannot name files."""
  if not names or len(set(names)) < len(names):
    raise InputError(f'results need experiments of different names, not {names}')
  if len({slug(name) for name in names}) < len(names):
    raise InputError(f'names of experiments are too alike to name files by: {names}')


def slug(name: str) -> str:
  """A name of letters, digits, dots, minus and underscore, for a file."""
  return re.sub(r'[^\w.-]+', '-', name).strip('-.') or 'experiment'


def _subjects_csv(summaries: Sequence[Summary]) -> str:
  rows = [('experiment', 'subject', 'samples', 'accuracy', 'macro accuracy')]
  for summary in summaries:
    e = summary.experiment
    counts = e.confusion_by_subject()
    macro = metrics.macro_accuracy(counts).mean(0)
    rows += [
      (e.name, person, int(own.sum()), f'{accuracy:.6f}', f'{m:.6f}')
      for person, own, accuracy, m in zip(e.runs[0].subjects, counts[0], summary.by_subject, macro)
    ]
  return to_csv(rows)


def _predictions_csv(experiments: Sequence[Experiment]) -> str:
  rows = [('experiment', 'run', 'sample', 'subject', 'label', 'predicted', 'probabilities')]
  for e in experiments:
    for number, run in enumerate(e.runs):
      rows += [
        (
          e.name,
          number,
          sample,
          subject,
          e.classes[label],
          e.classes[predicted],
          ' '.join(f'{p:.9f}' for p in probability),
        )
        for sample, subject, label, predicted, probability in zip(
          run.sample, run.subject, run.label, run.predicted, run.probability
        )
      ]
  return to_csv(rows)


def to_csv(rows: Sequence[Sequence[object]]) -> str:
  """Comma-separated, quoted where needed, lines end in a newline."""
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _same_samples(a: Predictions, b: Predictions) -> bool:
  return (
    np.array_equal(a.sample, b.sample)
    and np.array_equal(a.label, b.label)
    and np.array_equal(a.subject, b.subject)
  )


def _plain(value: Any) -> Any:
  """nan as None, at any depth of dictionaries."""
  if isinstance(value, dict):
    return {k: _plain(v) for k, v in value.items()}
  return None if isinstance(value, float) and math.isnan(value) else value
