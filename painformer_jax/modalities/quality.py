"""Defects of a window of a signal, and whether the window is used in spite of them.

| defect | how it is recognised | what happens |
|---|---|---|
| padding | NaN or infinite samples at the ends | cut off before windows are made |
| gaps | other NaN or infinite samples | interpolated; left out above `max_missing` |
| clipped | runs at the extreme that begin or end abruptly | kept; left out above `max_clipped` |
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
    clipped: share that lies in clipped runs.
    flat: nothing was recorded, see `is_flat`; or there is no finite sample.
    troubles: 'empty', 'flat', 'short', 'gaps', 'clipped', as they apply.
    fatal: those because of which the window is left out.
  """

  samples: int
  wanted: int
  missing: float
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
  clipped = 0.0 if flat else _clipped(values, rules.clipped_run) / samples
  # Trouble -> whether it is there, and whether it is too much.
  judged = {
    'empty': (len(kept) == 0, len(kept) == 0),
    'flat': (flat and len(kept) > 0, flat and len(kept) > 0 and not steady),
    'short': (samples < wanted, samples < rules.min_length * wanted),
    'gaps': (missing > 0 and len(kept) > 0, missing > rules.max_missing),
    'clipped': (clipped > 0, clipped > rules.max_clipped),
  }
  troubles = tuple(name for name, (there, _) in judged.items() if there)
  return SignalQuality(
    samples=samples,
    wanted=wanted,
    missing=missing,
    clipped=clipped,
    flat=flat,
    troubles=troubles,
    fatal=tuple(name for name in troubles if judged[name][1]),
  )


def is_flat(values: np.ndarray) -> bool:
  """Whether nothing was recorded, as where an electrode is off.

  Apart from one sample in a hundred, the values are equal, or differ by less than float32
  can tell, or flicker between up to three neighbouring values of the converter. A signal
  that rises or falls through so few values is not flat.

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
  quarter = max(len(inside) // 4, 1)
  # Flicker turns round all the time and leads nowhere; a slow signal does neither.
  turns = np.diff(inside)
  turns = np.sign(turns[turns != 0])
  reversals = np.count_nonzero(np.diff(turns))
  drift = abs(inside[-quarter:].mean() - inside[:quarter].mean())
  return bool(drift < 0.5 * step and reversals >= _REVERSALS)


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
  """How many samples lie in clipped runs.

  A signal that changes slowly also stays at its peak for some samples, but it reaches and
  leaves the peak in its smallest steps; a clipped signal does so in larger steps.
  """
  steps = np.abs(np.diff(values))
  real = steps[np.isfinite(steps) & (steps > 0)]
  if not len(real):
    return 0
  smallest = real.min()
  count = 0
  for limit in (np.nanmin(values[np.isfinite(values)]), np.nanmax(values[np.isfinite(values)])):
    held = np.concatenate([[False], values == limit, [False]])
    edges = np.flatnonzero(np.diff(held))
    for start, stop in zip(edges[::2], edges[1::2]):
      beside = np.concatenate([steps[max(start - 1, 0) : start], steps[stop - 1 : stop]])
      beside = beside[np.isfinite(beside)]
      if stop - start >= run and len(beside) and beside.max() > 1.5 * smallest:
        count += int(stop - start)
  return count
