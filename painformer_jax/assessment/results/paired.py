"""Paired tests between experiments: of one run, or of two runs on the same samples."""

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painformer_jax.assessment.results.summary import Experiment
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.intervals import Comparison, compare
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
  """Whether one experiment is better than another, in accuracy, subject by subject.

  Attributes:
    experiment: name of the one.
    reference: name of the other.
    run: folder that the other is from; '' for the same run.
    samples: that both tell of; further ones of either are left out.
    comparison: of these.
  """

  experiment: str
  reference: str
  run: str
  samples: int
  comparison: Comparison

  def record(self) -> dict[str, Any]:
    """As results.json keeps it."""
    return {
      'experiment': self.experiment,
      'reference': self.reference,
      'run': self.run,
      'samples': self.samples,
      **self.comparison.record(),
    }

  def __str__(self) -> str:
    c, other = self.comparison, f'{self.reference}{f" of {self.run}" if self.run else ""}'
    difference = c.difference
    return (
      f'{self.experiment} against {other}: {100 * difference.estimate:+.1f} points of '
      f'accuracy ({100 * difference.low:+.1f} to {100 * difference.high:+.1f}), p = '
      f'{c.p_sign_flip:.3f}; better for {c.better}, worse for {c.worse} of '
      f'{difference.subjects}, on {self.samples:,} samples'
    )


def compare_experiments(
  experiment: Experiment, reference: Experiment, *, run: str = ''
) -> PairedTest:
  """Tests one experiment against another, on the samples that both tell of.

  Args:
    experiment, reference: of the same task.
    run: folder of the reference, if it is another one.

  Raises:
    InputError: fewer than two subjects in common, or samples whose subject or label
      differs between them.
  """
  pairs = f'{experiment.name} and {reference.name}'
  if experiment.classes != reference.classes:
    raise InputError(f'{pairs} tell other classes apart')
  names = np.intersect1d(experiment.runs[0].sample, reference.runs[0].sample)
  one, other = (_restricted(each, names) for each in (experiment, reference))
  if any(
    not np.array_equal(getattr(one.runs[0], part), getattr(other.runs[0], part))
    for part in ('label', 'subject')
  ):
    raise InputError(f'{pairs} give the same samples other labels or subjects')
  subjects = len(one.runs[0].subjects) if names.size else 0
  if subjects < 2:
    raise InputError(f'{pairs} have {subjects} subjects in common; a comparison needs two')
  return PairedTest(
    experiment=experiment.name,
    reference=reference.name,
    run=run,
    samples=len(names),
    comparison=compare(other.confusion_by_subject(), one.confusion_by_subject(), metrics.accuracy),
  )


def against_row(experiments: Sequence[Experiment], row: str) -> list[PairedTest]:
  """Tests each experiment against that of a row on the same task.

  Args:
    experiments: of one run; `settings['row']` of each is its row.
    row: which to compare with; '' for none.
  """
  tests = []
  for base in (e for e in experiments if row and e.settings.get('row') == row):
    for each in experiments:
      if (
        each is not base
        and (each.dataset, each.task) == (base.dataset, base.task)
        and (_shared_subjects(each, base) > 1)
      ):
        tests.append(compare_experiments(each, base))
  return tests


def against_run(experiments: Sequence[Experiment], folder: str | os.PathLike) -> list[PairedTest]:
  """Tests each experiment against that of the same name in another run.

  Args:
    experiments: of this run.
    folder: of the other run.

  Raises:
    InputError: no finished run there, or none of its experiments has such a name.
  """
  others = {e.name: e for e in read_experiments(folder)}
  pairs = [(e, others[e.name]) for e in experiments if e.name in others]
  if not pairs:
    raise InputError(
      f'{folder} has no experiment named like one here: {", ".join(others)} there, '
      f'{", ".join(e.name for e in experiments)} here'
    )
  return [compare_experiments(one, other, run=str(folder)) for one, other in pairs]


def read_experiments(folder: str | os.PathLike) -> list[Experiment]:
  """What `results.write_results` left in a folder.

  Raises:
    InputError: nothing, or it is damaged.
  """
  folder = Path(folder)
  for name in ('results.json', 'predictions.csv'):
    if not (folder / name).is_file():
      raise InputError(f'{folder} holds no finished assessment (no {name})')
  try:
    records = json.loads((folder / 'results.json').read_text())['experiments']
    with open(folder / 'predictions.csv', newline='') as file:
      rows = list(csv.DictReader(file))
    return [
      _experiment(record, [row for row in rows if row['experiment'] == record['name']])
      for record in records
    ]
  except (OSError, ValueError, KeyError, TypeError, csv.Error, InputError) as error:
    raise InputError(f'the results in {folder} are damaged ({error})') from error


def _experiment(record, rows: Iterable[dict[str, str]]) -> Experiment:
  classes, by_run = tuple(record['classes']), {}
  for row in rows:
    by_run.setdefault(row['run'], []).append(row)
  runs = tuple(
    Predictions(
      sample=np.array([row['sample'] for row in own]),
      subject=np.array([row['subject'] for row in own]),
      label=np.array([classes.index(row['label']) for row in own]),
      probability=np.array([row['probabilities'].split() for row in own], np.float64),
    )
    for own in by_run.values()
  )
  return Experiment(
    runs=runs,
    classes=classes,
    settings=record['settings'],
    notes=tuple(record['notes']),
    **{
      name: record[name]
      for name in ('name', 'dataset', 'task', 'modality', 'method', 'protocol', 'unit')
    },
  )


def _restricted(experiment: Experiment, names: np.ndarray) -> Experiment:
  """The experiment on those samples, in their order."""
  runs = []
  for run in experiment.runs:
    place = {name: number for number, name in enumerate(run.sample.tolist())}
    rows = np.array([place[name] for name in names.tolist()], np.int64)
    if not rows.size:
      return experiment
    runs.append(
      Predictions(
        sample=run.sample[rows],
        subject=run.subject[rows],
        label=run.label[rows],
        probability=run.probability[rows],
      )
    )
  return dataclasses.replace(experiment, runs=tuple(runs))


def _shared_subjects(one: Experiment, other: Experiment) -> int:
  names = set(other.runs[0].sample.tolist())
  shared = [name in names for name in one.runs[0].sample.tolist()]
  return len(set(one.runs[0].subject[shared].tolist()))
