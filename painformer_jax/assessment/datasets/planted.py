"""A BioVid folder of synthetic signals whose best possible accuracy is known.

For tests and demonstrations of the pipeline: it must find the planted effect, no more
and no less. No person was recorded. Each sample has one hidden number,

  a = shift[subject] + effect * level / 4 + noise,    noise ~ N(0, 1),
  shift ~ N(0, subject_spread^2),

which the form of its skin conductance shows (see `planted_signals`). ECG and EMG are
independent of level and subject shift: an assessment of them must come out at chance.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.special

from painformer_jax.assessment.datasets import planted_signals
from painformer_jax.assessment.datasets.biovid import LEVELS, LIST_COLUMNS, PLANTED, ROWS, SIGNALS
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import new_folder

NOTE = 'Synthetic signals in the layout of BioVid part A; no person was recorded.'


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlantedPlan:
  """The effect that a synthetic study contains.

  Attributes:
    subjects: number of subjects.
    per_level: samples per level, of five levels, and subject.
    effect: distance of PA4 from BL1 in standard deviations of the noise (Cohen's d
      within a subject); the levels between are evenly spaced.
    subject_spread: standard deviation of the subjects' shifts, in the same unit.
    seed: of everything random.

  Raises:
    InputError: a number is out of range.
  """

  subjects: int = 20
  per_level: int = 10
  effect: float = 2.0
  subject_spread: float = 0.5
  seed: int = 0

  def __post_init__(self):
    if self.subjects < 1 or self.per_level < 1:
      raise InputError(f'a planted study needs people and samples: {self}')
    if not (math.isfinite(self.effect) and 0 <= self.subject_spread < math.inf):
      raise InputError(f'effect and spread must be finite, the spread not negative: {self}')

  def accuracy(self, task: str) -> float:
    """The best possible accuracy of a classifier that knows each subject's shift.

    Normalising embeddings by subject comes near it, because it estimates the shift from
    the subject's samples. For two levels a distance d apart the accuracy is Phi(d / 2),
    with the threshold half way. For five levels, with d = `effect`, inner levels are
    recognised with probability 2 Phi(d / 8) - 1 and outer ones with Phi(d / 8).

    Args:
      task: 'BL1-PA1' to 'BL1-PA4', or '5-class'.

    Raises:
      InputError: another task.
    """
    return self._best(task, spread=1.0)

  def accuracy_on_unseen_subjects(self, task: str) -> float:
    """The best possible accuracy on unseen subjects, whose shift is not known.

    The shift then counts as noise: every distance is divided by
    sqrt(1 + subject_spread^2).
    """
    return self._best(task, spread=math.hypot(1.0, self.subject_spread))

  def _best(self, task: str, *, spread: float) -> float:
    distance = abs(self.effect) / spread
    if task == '5-class':
      return (8 * _normal(distance / 8) - 3) / 5
    if task not in (known := [f'BL1-{level}' for level in LEVELS[1:]]):
      raise InputError(
        f'the planted accuracy of {task!r} is not known, only of {", ".join(known)} and 5-class'
      )
    return _normal(distance * LEVELS.index(task[4:]) / 8)


def write_study(root: str | os.PathLike, plan: PlantedPlan = PlantedPlan()) -> Path:
  """Writes the folder: samples.csv, one table per sample, and the plan.

  It holds no videos. A sample takes about 180 KB and 15 ms.

  Args:
    root: must not exist yet; appears once it is complete.
    plan: the effect to plant.

  Returns:
    `root`.

  Raises:
    InputError: it exists, or cannot be written.
  """
  root = Path(root)
  if root.exists():
    raise InputError(f'{root} exists; name a folder that does not')
  try:
    with new_folder(root) as partial:
      rows = _write_signals(partial / 'biosignals_filtered', plan)
      (partial / 'starting_point').mkdir()
      (partial / 'starting_point' / 'samples.csv').write_text(
        ''.join('\t'.join(row) + '\n' for row in (LIST_COLUMNS, *rows))
      )
      (partial / PLANTED).write_text(json.dumps(_description(plan), indent=2) + '\n')
  except OSError as error:
    raise InputError(f'{root} cannot be written: {error.strerror}') from error
  return root


def read_plan(root: str | os.PathLike) -> PlantedPlan | None:
  """The plan of a folder that `write_study` wrote; None for any other folder.

  Raises:
    InputError: its description is damaged.
  """
  path = Path(root) / PLANTED
  if not path.is_file():
    return None
  try:
    return PlantedPlan(**json.loads(path.read_text())['plan'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise InputError(f'{path} does not describe what was planted: {error}') from error


def subject_names(plan: PlantedPlan) -> list[str]:
  """Names like BioVid's (date, sex, age); the month 13 keeps them apart from any of those."""
  rng = np.random.default_rng([plan.seed, 1])
  return [
    f'13{number // 100 % 100:02d}{number % 100:02d}_{"mw"[number % 2]}_{rng.integers(20, 66)}'
    for number in range(1, plan.subjects + 1)
  ]


def _write_signals(folder: Path, plan: PlantedPlan) -> list[tuple[str, ...]]:
  """Writes all tables; returns the rows of samples.csv."""
  rows: list[tuple[str, ...]] = []
  shifts = np.random.default_rng([plan.seed, 2]).normal(0, plan.subject_spread, plan.subjects)
  for number, (name, shift) in enumerate(zip(subject_names(plan), shifts), 1):
    (folder / name).mkdir(parents=True)
    # One generator per subject: with more subjects the first ones stay the same.
    rng = np.random.default_rng([plan.seed, 3, number])
    gain, heart_rate = rng.lognormal(0, 0.4), rng.normal(72, 8)
    levels = rng.permutation(np.repeat(np.arange(len(LEVELS)), plan.per_level))
    counts = dict.fromkeys(range(len(LEVELS)), 0)
    for level in levels.tolist():
      counts[level] += 1
      amplitude = shift + plan.effect * level / 4 + rng.normal()
      sample = f'{name}-{LEVELS[level]}-{counts[level]:03d}'
      _write_table(
        folder / name / f'{sample}_bio.csv',
        planted_signals.signals(
          amplitude, rng, gain=gain, heart_rate=heart_rate, effect=plan.effect
        ),
      )
      rows.append((str(number), name, str(level), LEVELS[level], str(len(rows) + 1), sample))
  return rows


def _write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
  names = ('gsr', 'ecg', *SIGNALS[2:])
  values = np.column_stack([planted_signals.TIME * 1e6, *(columns[n] for n in names)])
  line = '\t'.join(['%d'] + ['%.6g'] * len(names)) + '\n'
  path.write_text('\t'.join(('time', *names)) + '\n' + line * ROWS % tuple(values.ravel().tolist()))


def _description(plan: PlantedPlan) -> dict:
  tasks = [*(f'BL1-{level}' for level in LEVELS[1:]), '5-class']
  return {
    'note': NOTE,
    'plan': dataclasses.asdict(plan),
    'best_accuracy': {t: plan.accuracy(t) for t in tasks},
    'best_accuracy_on_unseen_subjects': {t: plan.accuracy_on_unseen_subjects(t) for t in tasks},
    'chance_modalities': list(SIGNALS[1:]),
  }


def _normal(z: float) -> float:
  return float(scipy.special.ndtr(z))
