"""Defects of a window of a signal, and whether the window is used in spite of them.

| defect | how it is recognised | what happens |
|---|---|---|
| padding | NaN or infinite samples at the ends | cut off before windows are made |
| gaps | other NaN or infinite samples | interpolated; left out above `max_missing` |
| held | a value that is held for far longer than others | kept; left out above `max_missing` |
| spike | single values far beyond all others, such as -9999 | left out: the rest is drawn flat |
| clipped | many samples at the extreme, see `_clipped` | kept; left out above `max_clipped` |
| flat | all finite samples are equal, see `is_flat` | left out, or kept within `flat_between` |
| short | fewer samples than asked for | kept; left out below `min_length` |

All of them are counted. The limits are choices of this package.
"""

import collections
import dataclasses

import numpy as np

from painformer_jax.core.errors import InputError

# Share of a signal that may be filled with its last value where it is a little too short.
_FILLED = 0.02
# Differences below this share of a value are rounding.
_FLOAT32 = 4 * float(np.finfo(np.float32).eps)
# So many neighbouring values at most are flicker, if the signal turns round this often.
_FLICKER, _REVERSALS = 3, 8
# A slow signal moves the means of so many parts by more than noise does, so many times.
_PARTS, _BEYOND_NOISE = 16, 2.5
# A value is held if it stays for so many samples, this share of all, and so many times as
# long as the signal's values usually do; these are so many samples at most, or the value is
# reached by a step so many times the usual one.
_HELD, _HELD_SHARE, _HELD_TIMES, _USUALLY, _JUMP = 64, 0.05, 16, 4, 8
# A value is a spike if it lies so many times the range of the others away from them; these
# stand for missing values and need this distance only.
_SPIKE = 30.0
_SENTINELS, _SENTINEL = (-99999.0, -9999.0, -999.0, 999.0, 9999.0, 99999.0), 5.0
# An extreme is a limit if this share of a signal has it, in so many places at least, and so
# many times as many samples as the values next to it.
_AT_LIMIT, _LIMIT_RUNS, _LIMIT_TIMES = 0.01, 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityRules:
  """When a window is left out.

  Attributes:
    max_missing: share of samples that may be missing, in [0, 1].
    max_clipped: share that may be clipped, in [0, 1].
    min_length: share of the samples asked for that must be there, in (0, 1].
    clipped_run: number of equal samples in a row at the extreme that count as clipped.
    flat_between: (lowest, highest) value of flat windows that are kept; () for none. An
      oxygen saturation in whole percent is often constant for seconds; other flat signals,
      and a saturation of 0 %, mean that nothing was recorded.
  """

  max_missing: float = 0.25
  max_clipped: float = 0.5
  min_length: float = 0.5
  clipped_run: int = 5
  flat_between: tuple[float, ...] = ()

  def __post_init__(self):
    if not (0 <= self.max_missing <= 1 and 0 <= self.max_clipped <= 1):
      raise InputError(f'max_missing and max_clipped must lie in [0, 1]: {self}')
    if not 0 < self.min_length <= 1 or self.clipped_run < 2:
      raise InputError(f'min_length must lie in (0, 1], clipped_run be at least 2: {self}')
    if self.flat_between and not (
      len(self.flat_between) == 2 and self.flat_between[0] <= self.flat_between[1]
    ):
      raise InputError(f'flat_between is {self.flat_between}, neither (lowest, highest) nor ()')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalQuality:
  """The state of one window.

  Attributes:
    samples: how many there are.
    wanted: how many there should be.
    missing: share that is NaN or infinite.
    held: share that is held at one value, see `held_share`.
    spikes: how many values lie far beyond all others.
    clipped: share that lies in clipped runs.
    flat: nothing was recorded, see `is_flat`; or there is no finite sample.
    troubles: 'empty', 'flat', 'short', 'gaps', 'held', 'spike', 'clipped', as they apply.
    fatal: those because of which the window is left out.
  """

  samples: int
  wanted: int
  missing: float
  held: float
  spikes: int
  clipped: float
  flat: bool
  troubles: tuple[str, ...]
  fatal: tuple[str, ...]

  @property
  def usable(self) -> bool:
    return not self.fatal


def examine(
  window: np.ndarray, *, wanted: int = 0, rules: QualityRules = QualityRules()
) -> SignalQuality:
  """Examines one window of a signal.

  Args:
    window: real [n].
    wanted: samples asked for; 0 for as many as there are.
  """
  values = np.asarray(window, np.float64)
  kept = values[np.isfinite(values)]
  samples = len(values)
  wanted = wanted or samples
  missing = 1 - len(kept) / samples if samples else 1.0
  flat = len(kept) == 0 or is_flat(kept)
  steady = bool(
    flat
    and len(kept)
    and rules.flat_between
    and rules.flat_between[0] <= np.median(kept) <= rules.flat_between[1]
  )
  spikes = 0 if flat else count_spikes(kept)
  held = 0.0 if flat or spikes else held_share(values, honest=rules.flat_between)
  clipped = 0.0 if flat or spikes else _clipped(values, rules.clipped_run) / samples
  if held:  # A single run at an extreme is that, and no limit of the converter.
    clipped = max(clipped - held, 0.0)
  # Trouble -> whether it is there, and whether it is too much.
  judged = {
    'empty': (len(kept) == 0, len(kept) == 0),
    'flat': (flat and len(kept) > 0, flat and len(kept) > 0 and not steady),
    'short': (samples < wanted, samples < rules.min_length * wanted),
    'gaps': (missing > 0 and len(kept) > 0, missing > rules.max_missing),
    'held': (held > 0, held > rules.max_missing),
    'spike': (spikes > 0, spikes > 0),
    'clipped': (clipped > 0, clipped > rules.max_clipped),
  }
  troubles = tuple(name for name, (there, _) in judged.items() if there)
  return SignalQuality(
    samples=samples,
    wanted=wanted,
    missing=missing,
    held=held,
    spikes=spikes,
    clipped=clipped,
    flat=flat,
    troubles=troubles,
    fatal=tuple(name for name in troubles if judged[name][1]),
  )


def is_flat(values: np.ndarray) -> bool:
  """Whether nothing was recorded, as where an electrode is off.

  Apart from one sample in a hundred, the values are equal, or differ by less than float32
  can tell, or flicker between up to three neighbouring values of the converter. A signal
  that moves slowly through so few values is not flat, nor is one around zero, such as a weak
  EMG, which has no offset.

  Args:
    values: real [n], finite, n at least 1.
  """
  levels, counts = np.unique(values, return_counts=True)
  if levels[-1] - levels[0] <= _FLOAT32 * np.abs(levels).max():
    return True
  odd = len(values) // 100
  if counts.max() >= len(values) - odd:
    return True
  # The usual values: what is left without the odd ones at either end.
  below = np.searchsorted(np.cumsum(counts), odd, side='right')
  above = np.searchsorted(np.cumsum(counts[::-1]), odd, side='right')
  usual = levels[below : len(levels) - above]
  if len(usual) > _FLICKER:
    spread = usual[-1] - usual[0]
    return bool(spread <= _FLOAT32 * np.abs(usual).max())
  if len(usual) < 2:
    return True
  step = np.diff(usual).min()
  if usual[-1] - usual[0] > (_FLICKER - 0.5) * step:
    return False
  inside = values[(values >= usual[0]) & (values <= usual[-1])]
  if -usual[0] == usual[-1]:
    return False
  quarter = max(len(inside) // 4, 1)
  # Flicker turns round all the time and leads nowhere; a slow signal does neither.
  turns = np.diff(inside)
  turns = np.sign(turns[turns != 0])
  reversals = np.count_nonzero(np.diff(turns))
  drift = abs(inside[-quarter:].mean() - inside[:quarter].mean())
  return bool(drift < 0.5 * step and reversals >= _REVERSALS and not is_slow(inside))


def is_slow(values: np.ndarray) -> bool:
  """Whether a signal moves slowly by more than noise from sample to sample would move it.

  Args:
    values: real [n], finite.
  """
  if len(values) < 4 * _PARTS:
    return False
  parts = np.array([part.mean() for part in np.array_split(values, _PARTS)])
  expected = np.diff(values).std() / np.sqrt(2 * len(values) / _PARTS)
  return bool(parts.std() > _BEYOND_NOISE * expected)


def held_share(values: np.ndarray, *, honest: tuple[float, ...] = ()) -> float:
  """The share of a signal that is held at one value, as where blanks were filled up.

  A coarsely digitised slow signal also has long runs of one value; but all of its runs are
  long, and it gets there in small steps.

  Args:
    values: real [n].
    honest: (lowest, highest) value that may be held; () for none.
  """
  starts = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
  lengths = np.diff(np.append(starts, len(values)))
  inside = np.isfinite(values[starts])
  starts, lengths = starts[inside], lengths[inside]
  if len(starts) < 3:
    return 0.0
  usual = float(np.quantile(lengths, 0.9))
  steps = np.abs(np.diff(values[starts]))
  step = float(np.quantile(steps, 0.9))
  held, limits = 0, (np.nanmin(values[starts]), np.nanmax(values[starts]))
  for number in np.flatnonzero(
    lengths > max(_HELD, _HELD_SHARE * len(values), _HELD_TIMES * usual)
  ):
    value = values[starts[number]]
    if honest and honest[0] <= value <= honest[1]:
      continue
    # A limit of the converter is reached and left, perhaps again and again.
    ends = number in (0, len(starts) - 1)
    if value in limits and (
      np.count_nonzero(values[starts] == value) > 2 or value != 0 and not ends
    ):
      continue
    beside = steps[max(number - 1, 0) : number + 1]
    if usual <= _USUALLY or beside.max() > _JUMP * step:
      held += int(lengths[number])
  return held / len(values)


def count_spikes(values: np.ndarray) -> int:
  """How many values lie so far beyond all others that these would be drawn as a line.

  Args:
    values: real [n], finite.
  """
  marks = np.isin(values, _SENTINELS)
  for mask, times in ((marks, _SENTINEL), (_far(values), _SPIKE)):
    others = values[~mask]
    if not mask.any() or len(others) < 8:
      continue
    low, high = others.min(), others.max()
    away = np.maximum(values[mask] - high, low - values[mask])
    if (away > times * (high - low)).all() and (mask is not marks or high > low):
      return int(np.count_nonzero(mask))
  return 0


def _far(values: np.ndarray) -> np.ndarray:
  """bool [n], the values far beyond the middle 99 %."""
  low, middle, high = np.percentile(values, (0.5, 50, 99.5))
  return np.abs(values - middle) > _SPIKE * max(high - low, 1e-12 * abs(middle))


def trim(signal: np.ndarray) -> tuple[np.ndarray, int]:
  """A signal without the padding at its ends, and how many samples were cut in front.

  Args:
    signal: real [n].
  """
  finite = np.flatnonzero(np.isfinite(signal))
  if not len(finite):
    return signal[:0], 0
  return signal[finite[0] : finite[-1] + 1], int(finite[0])


def is_short(there: int, rows: int) -> bool:
  """Whether a signal lacks so many of the rows wanted that they count as missing values."""
  return rows - there > max(1, _FILLED * rows)


def fitted(signals: np.ndarray, rows: int) -> np.ndarray:
  """Signals with exactly so many rows: cut at the end, or filled up there.

  Images are scaled to their window, so that one row more or less would move all of them.
  A few rows that are lacking get the last value; more than that are missing values.

  Args:
    signals: float [channels, n], n at least 1.
    rows: wanted; 0 leaves them as they are.
  """
  lacking = rows - signals.shape[1]
  if not rows or not lacking:
    return signals
  if lacking < 0:
    return signals[:, :rows]
  space = ((0, 0), (0, lacking))
  if not is_short(signals.shape[1], rows):
    return np.pad(signals, space, mode='edge')
  return np.pad(signals, space, constant_values=np.nan)


class Tally:
  """Counts troubles over many windows.

  Attributes:
    windows: examined.
    kept: drawn.
    drawn: trouble -> number of windows that were drawn in spite of it.
    left_out: trouble -> number of windows that were left out because of it.
  """

  def __init__(self):
    self.windows = self.kept = 0
    self.drawn: collections.Counter = collections.Counter()
    self.left_out: collections.Counter = collections.Counter()

  def add(self, quality: SignalQuality) -> None:
    self.windows += 1
    self.kept += quality.usable
    if quality.usable:
      self.drawn.update(quality.troubles)
    self.left_out.update(quality.fatal)

  def __str__(self) -> str:
    """'3 of 10 windows left out (2 flat, 1 gaps); drawn in spite of
    troubles: 4 clipped'; '' if sound."""
    parts = []
    if self.kept < self.windows:
      parts.append(
        f'{self.windows - self.kept} of {self.windows} windows left out ({_listed(self.left_out)})'
      )
    if self.drawn:
      parts.append(f'drawn in spite of troubles: {_listed(self.drawn)}')
    return '; '.join(parts)


def _listed(counter: collections.Counter) -> str:
  return ', '.join(f'{count} {name}' for name, count in counter.items())


def _clipped(values: np.ndarray, run: int) -> int:
  """How many samples lie at the limits of a converter.

  A fast signal touches its limits in many places, far more often than the values beside
  them. A slow one stays there for runs of samples. A signal that changes slowly also stays
  at its peak for some samples, but it reaches and leaves the peak in its smallest steps; a
  clipped signal does so in larger steps.
  """
  steps = np.abs(np.diff(values))
  real = steps[np.isfinite(steps) & (steps > 0)]
  if not len(real):
    return 0
  smallest = real.min()
  finite = values[np.isfinite(values)]
  levels, counts = np.unique(finite, return_counts=True)
  at_limits = 0
  for limit, at, beside in (
    (levels[0], counts[0], counts[1:4]),
    (levels[-1], counts[-1], counts[-4:-1]),
  ):
    runs = np.count_nonzero(np.diff(np.concatenate([[False], values == limit])) == 1)
    often = len(levels) > 8 and at > _LIMIT_TIMES * beside.max()
    if often and at >= _AT_LIMIT * len(values) and runs >= 2 * _LIMIT_RUNS:
      at_limits += int(at)
  count = 0
  for limit in (np.nanmin(values[np.isfinite(values)]), np.nanmax(values[np.isfinite(values)])):
    held = np.concatenate([[False], values == limit, [False]])
    edges = np.flatnonzero(np.diff(held))
    for start, stop in zip(edges[::2], edges[1::2]):
      beside = np.concatenate([steps[max(start - 1, 0) : start], steps[stop - 1 : stop]])
      beside = beside[np.isfinite(beside)]
      if stop - start >= run and len(beside) and beside.max() > 1.5 * smallest:
        count += int(stop - start)
  return max(count, at_limits)
