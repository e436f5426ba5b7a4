"""A BioVid folder of synthetic signals whose best possible accuracy is known.

For tests and demonstrations of the pipeline: what is planted must be found, no more
and no less. Nobody's pain is in it.

Each sample has one hidden number,

  a = shift[subject] + effect * level / 4 + noise,    noise ~ N(0, 1),
  shift ~ N(0, subject_spread^2),

and the skin conductance shows it: a response of height exp(SLOPE (a - effect / 2))
rises upon the falling tail of an earlier response of height 1, both times the
person's own gain. So the form of the curve tells a, whatever its units and offset.
ECG and EMG look like themselves and are independent of level and subject shift:
they must give chance.
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.special

from painformer_jax.assessment.datasets.biovid import (
  LEVELS,
  LIST_COLUMNS,
  PLANTED,
  RATE,
  ROWS,
  SIGNALS,
)
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically

NOTE = 'Synthetic signals in the layout of BioVid part A; no person was recorded.'

# Steep enough to stand out of noise, mild enough that pictures of people with a large
# shift still differ.
SLOPE = 0.3
# Seconds: when the response begins, on average and at most so much off; how fast
# skin conductance rises and falls; how long before the window the tail began.
ONSET, JITTER = 1.8, 0.1
RISE, FALL = 0.7, 2.2
TAIL_BEFORE = 1.2
# Of the skin conductance in units of the tail's height.
_FLOOR = 0.004

_TIME = np.arange(ROWS) / RATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What is planted.

  Attributes:
    subjects: how many people.
    per_level: samples of each of the five levels and each person.
    effect: distance of PA4 from BL1 in standard deviations of the noise (Cohen's d
      within a person); the levels between are evenly spaced.
    subject_spread: standard deviation of the people's shifts, in the same unit.
    seed: of everything random.
  """

  subjects: int = 20
  per_level: int = 10
  effect: float = 2.0
  subject_spread: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.subjects < 1 or self.per_level < 1:
      raise InputError(f'a planted study needs people and samples: {self}')
    if not (math.isfinite(self.effect) and 0 <= self.subject_spread < math.inf):
      raise InputError(f'effect and spread must be finite, the spread not negative: {self}')

  def accuracy(self, task: str) -> float:
    """The most that any detector can reach who knows each person's shift.

    Per-subject normalisation comes near it: it estimates the shift from the
    person's samples. For two levels a distance d apart it is Phi(d / 2), the
    threshold lying half way; for five, each inner one is met with 2 Phi(d/8) - 1
    and each outer one with Phi(d/8), d being `effect`.

    Args:
      task: 'BL1-PA1' to 'BL1-PA4', or '5-class'.

    Raises:
      InputError: another task.
    """
    return self._best(task, spread=1.0)

  def accuracy_of_strangers(self, task: str) -> float:
    """As `accuracy`, not knowing the shift: one sample of a stranger at a time.

    The shift is then noise like any other, and every distance is divided by
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


def write_study(root: str | os.PathLike, plan: Plan = Plan()) -> Path:
  """Writes the folder: samples.csv, a table a sample, and what was planted.

  No videos are written: leave the modality out. About 180 KB and 15 ms a sample.

  Args:
    root: must not exist yet; appears when it is complete.
    plan: of what is planted.

  Returns:
    `root`.

  Raises:
    InputError: it exists, or cannot be written.
  """
  root = Path(root)
  if root.exists():
    raise InputError(f'{root} exists; name a folder that does not')
  partial = root.with_name(f'.{root.name}.partial')
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = _write_signals(partial / 'biosignals_filtered', plan)
    (partial / 'starting_point').mkdir()
    (partial / 'starting_point' / 'samples.csv').write_text(
      ''.join('\t'.join(row) + '\n' for row in (LIST_COLUMNS, *rows))
    )
    text = json.dumps(_description(plan), indent=2) + '\n'
    write_atomically(partial / PLANTED, lambda file: file.write(text.encode()))
    os.replace(partial, root)
  except OSError as error:
    raise InputError(f'{root} cannot be written: {error.strerror}') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return root


def read_plan(root: str | os.PathLike) -> Plan | None:
  """What was planted in a folder; None where it is no planted one.

  Raises:
    InputError: its description is damaged.
  """
  path = Path(root) / PLANTED
  if not path.is_file():
    return None
  try:
    return Plan(**json.loads(path.read_text())['plan'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise InputError(f'{path} does not describe what was planted: {error}') from error


def subject_names(plan: Plan) -> list[str]:
  """Like BioVid's: date, sex, age; unlike any of them, as no month is the 13th."""
  rng = np.random.default_rng([plan.seed, 1])
  return [
    f'13{number // 100 % 100:02d}{number % 100:02d}_{"mw"[number % 2]}_{rng.integers(20, 66)}'
    for number in range(1, plan.subjects + 1)
  ]


def signals(
  amplitude: float,
  rng: np.random.Generator,
  *,
  gain: float = 1.0,
  heart_rate: float = 70.0,
  effect: float = 2.0,
) -> dict[str, np.ndarray]:
  """One sample's signals.

  Args:
    amplitude: the hidden number a.
    rng: of all that is random.
    gain: of the person's skin conductance, microsiemens.
    heart_rate: beats a minute.
    effect: that centres the heights, see the module.

  Returns:
    Names of `biovid.SIGNALS` -> float64 [2816]: microsiemens, then millivolts of
    ECG, microvolts of EMG.
  """
  height = math.exp(SLOPE * (amplitude - effect / 2))
  onset = ONSET + rng.uniform(-JITTER, JITTER)
  conductance = response(_TIME + TAIL_BEFORE) + height * response(_TIME - onset)
  conductance = conductance + _FLOOR * _smooth_noise(rng)
  return {
    'gsr': 2 + gain * (conductance + 1),
    'ecg': _ecg(rng, heart_rate),
    **{name: _emg(rng, level) for name, level in zip(SIGNALS[2:], (6.0, 3.0, 2.5))},
  }


def response(seconds: np.ndarray) -> np.ndarray:
  """A skin conductance response of height 1 that begins at 0 s.

  The difference of two exponentials (Bateman's curve), which rises in a second or
  two and falls slowly, as in Alexander et al. 2005.
  """
  t = np.maximum(seconds, 0)
  peak = math.log(FALL / RISE) * RISE * FALL / (FALL - RISE)
  return (np.exp(-t / FALL) - np.exp(-t / RISE)) / (math.exp(-peak / FALL) - math.exp(-peak / RISE))


def read_amplitude(gsr: np.ndarray, *, effect: float = 2.0) -> float:
  """The hidden number as a detector that knows the curves reads it from a signal.

  Fits the tail, the response at each of several onsets, and an offset by least
  squares, and takes the ratio of response to tail at the best onset.

  Args:
    gsr: float [2816].
    effect: as the signal was made with.

  Returns:
    The number, at most 0.15 off from -3 to 5 (with an effect of 2).
  """
  best = None
  for onset in np.linspace(ONSET - JITTER, ONSET + JITTER, 9):
    columns = np.stack(
      [response(_TIME + TAIL_BEFORE), response(_TIME - onset), np.ones(ROWS)], axis=1
    )
    weights, rest, _, _ = np.linalg.lstsq(columns, gsr, rcond=None)
    if best is None or rest[0] < best[0]:
      best = rest[0], weights[1] / weights[0]
  return math.log(max(best[1], 1e-6)) / SLOPE + effect / 2


def _write_signals(folder: Path, plan: Plan) -> list[tuple[str, ...]]:
  """All tables; returns the rows of the list."""
  rows = []
  shifts = np.random.default_rng([plan.seed, 2]).normal(0, plan.subject_spread, plan.subjects)
  for number, (name, shift) in enumerate(zip(subject_names(plan), shifts), 1):
    (folder / name).mkdir(parents=True)
    # A generator a person: more people leave the first ones as they are.
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
        signals(amplitude, rng, gain=gain, heart_rate=heart_rate, effect=plan.effect),
      )
      rows.append((str(number), name, str(level), LEVELS[level], str(len(rows) + 1), sample))
  return rows


def _write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
  names = ('gsr', 'ecg', *SIGNALS[2:])
  values = np.column_stack([_TIME * 1e6, *(columns[n] for n in names)])
  line = '\t'.join(['%d'] + ['%.6g'] * len(names)) + '\n'
  path.write_text('\t'.join(('time', *names)) + '\n' + line * ROWS % tuple(values.ravel().tolist()))


def _description(plan: Plan) -> dict:
  tasks = [*(f'BL1-{level}' for level in LEVELS[1:]), '5-class']
  return {
    'note': NOTE,
    'plan': dataclasses.asdict(plan),
    'best_accuracy': {t: plan.accuracy(t) for t in tasks},
    'best_accuracy_of_strangers': {t: plan.accuracy_of_strangers(t) for t in tasks},
    'chance_modalities': list(SIGNALS[1:]),
  }


def _normal(z: float) -> float:
  return float(scipy.special.ndtr(z))


def _smooth_noise(rng: np.random.Generator) -> np.ndarray:
  """Standard deviation about 1, slower than 2 Hz: filtered conductance."""
  knots = rng.normal(size=14)
  return np.interp(_TIME, np.linspace(0, _TIME[-1], len(knots)), knots)


def _ecg(rng: np.random.Generator, heart_rate: float) -> np.ndarray:
  """P, Q, R, S and T waves as bells, beats a little uneven; mV."""
  signal = 0.01 * rng.normal(size=ROWS)
  beat = -rng.uniform(0, 60 / heart_rate)
  while beat < _TIME[-1] + 1:
    for delay, height, width in (
      (-0.17, 0.12, 0.022),
      (-0.026, -0.1, 0.008),
      (0, 1, 0.011),
      (0.028, -0.22, 0.01),
      (0.27, 0.28, 0.045),
    ):
      signal += height * np.exp(-0.5 * ((_TIME - beat - delay) / width) ** 2)
    beat += 60 / heart_rate * (1 + 0.04 * rng.normal())
  return signal + 0.03 * np.sin(2 * np.pi * (0.25 * _TIME + rng.uniform()))


def _emg(rng: np.random.Generator, level: float) -> np.ndarray:
  """Noise whose strength swells in a few bursts; microvolts."""
  strength = np.ones(ROWS)
  for _ in range(rng.poisson(1.5)):
    middle, width = rng.uniform(0, _TIME[-1]), rng.uniform(0.1, 0.5)
    strength += rng.uniform(1, 5) * np.exp(-0.5 * ((_TIME - middle) / width) ** 2)
  return level * strength * rng.normal(size=ROWS)
