"""Paired tests between experiments: of one run, or of two runs on the same samples."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment.results.read import read_experiments
from painformer_jax.assessment.results.summary import Experiment
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.intervals import Comparison, compare
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
  """Whether one experiment's accuracy is higher than another's, subject by subject.

  Attributes:
    experiment: name of the experiment.
    reference: name of the experiment it is compared with.
    run: folder of the run that the reference is from; '' for the same run.
    samples: number of samples that both predict; others are left out.
    comparison: on these samples.
  """

  experiment: str
  reference: str
  run: str
  samples: int
  comparison: Comparison

  def record(self) -> dict[str, Any]:
    """Its entry in results.json."""
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
  """Tests one experiment against another, on the samples that both predict.

  Args:
    experiment, reference: of the same task.
    run: folder of the reference's run, where it is another run.

  Raises:
    InputError: the two have different classes, fewer than two subjects in common, or
      samples whose subject or label differs.
  """
  pairs = f'{experiment.name} and {reference.name}'
  if experiment.classes != reference.classes:
    raise InputError(f'{pairs} have different classes')
  names = np.intersect1d(experiment.runs[0].sample, reference.runs[0].sample)
  one, other = (_restricted(each, names) for each in (experiment, reference))
  if any(
    not np.array_equal(getattr(one.runs[0], part), getattr(other.runs[0], part))
    for part in ('label', 'subject')
  ):
    raise InputError(f'{pairs} give the same samples different labels or subjects')
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
  """Tests each experiment against the one of a given row on the same task.

  Args:
    experiments: of one run; `settings['row']` of each is its row in the config.
    row: the row to compare with; '' for no tests.
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
  """Tests each experiment against the one of the same name in another run.

  Args:
    experiments: of this run.
    folder: of the other run.

  Raises:
    InputError: the folder holds no finished run, or no experiment of the same name.
  """
  others = {e.name: e for e in read_experiments(folder)}
  pairs = [(e, others[e.name]) for e in experiments if e.name in others]
  if not pairs:
    raise InputError(
      f'{folder} has no experiment named like one here: {", ".join(others)} there, '
      f'{", ".join(e.name for e in experiments)} here'
    )
  return [compare_experiments(one, other, run=str(folder)) for one, other in pairs]


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
