"""Times of samples: which columns hold them, whether they are even, which rate they say."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from painformer_jax.core.errors import InputError

# Seconds of each unit of time, by its names.
_SECONDS = {
  **dict.fromkeys(('s', 'sec', 'secs', 'second', 'seconds', 'sek', 'sekunden', 'secondes'), 1.0),
  **dict.fromkeys(('ms', 'msec', 'msecs', 'millis', 'millisecond', 'milliseconds'), 1e-3),
  **dict.fromkeys(('us', 'µs', 'μs', 'usec', 'micros', 'microsecond', 'microseconds'), 1e-6),
  **dict.fromkeys(('ns', 'nsec', 'nanos', 'nanosecond', 'nanoseconds'), 1e-9),
}
# Only beside a word for time: 'min' alone is a least value.
_LONG = {
  **dict.fromkeys(('min', 'mins', 'minute', 'minutes', 'minuten'), 60.0),
  **dict.fromkeys(('h', 'hr', 'hrs', 'hour', 'hours', 'stunden'), 3600.0),
}
_WORDS = frozenset(
  'time times timestamp timestamps t clock datetime unixtime localtime zeit zeiten zeitstempel '
  'uhrzeit temps tiempo tempo tijd tid czas'.split()
)
_BESIDE = frozenset(
  'elapsed relative rel abs absolute unix epoch posix recording signal lsl local global utc gmt '
  'system sys device sample of in the from since start date day stamp stamps session real'.split()
)
_COUNTS = frozenset(
  'index idx sample samples number num no nr n id row frame count counter seq nseq unnamed'.split()
)
# The units that are tried where a name says none, and their names.
_UNITS = {1.0: 'seconds', 1e-3: 'milliseconds', 1e-6: 'microseconds', 1e-9: 'nanoseconds'}
# Modality -> lowest and highest rate in Hz that a recorder may have.
PLAUSIBLE = {
  'ecg': (40.0, 32_000.0),
  'emg': (80.0, 64_000.0),
  'gsr': (0.9, 32_000.0),
  'fnirs': (0.9, 500.0),
}
# Relative difference of two rates that are taken for the same.
TOLERANCE = 0.005
# Fewer values are not taken for times by their course alone.
_MIN_ROWS = 32
# Where so many steps are zero, samples share times: those of a packet, or of a whole second.
_SHARED = 0.45
# So many different times at least tell the rate where samples share them.
_MIN_TICKS = 4


class TimesError(InputError):
  """Times that are not even, or that contradict a rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeColumn:
  """A column of times.

  Attributes:
    name: of the column, or its number in words.
    times: float64 [rows]; None where they are written in a way that is not known.
    unit: in seconds; 0 where the name does not say.
  """

  name: str
  times: np.ndarray | None
  unit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regular:
  """Even steps.

  Attributes:
    step: mean difference of neighbours, in the column's unit.
    uncertainty: of the step, relative, as the times are rounded.
  """

  step: float
  uncertainty: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingRate:
  """Samples a second.

  Attributes:
    hertz: the rate.
    remark: what was assumed to find it, in words; '' for nothing.
  """

  hertz: float
  remark: str = ''


def unit_of(name: str) -> float | None:
  """The unit in seconds of a column that is named as times are: 'time_ms', 't [s]', 'Zeit'.

  Returns:
    0 where the name does not say the unit; None for other names.
  """
  words = [w.casefold() for w in re.findall(r'[A-Z]?[a-zà-öø-ÿµμ]+|[A-Z]+', name)]
  units = _SECONDS | _LONG
  found = [units[w] for w in words if w in units]
  if len(found) > 1 or set(words) - _WORDS - _BESIDE - units.keys():
    return None
  if set(words) & _WORDS:
    return found[0] if found else 0.0
  # 'µS' alone is a conductance; 'elapsed seconds' are times.
  alone = len(words) == 1 and name.strip(' []()') in _SECONDS
  spelt = any(len(w) > 2 for w in words if w in _SECONDS)
  return found[0] if found and (alone or spelt) else None


def is_counter(name: str, values: np.ndarray) -> bool:
  """Whether a column numbers the rows: by its name, '' included, and its values."""
  words = {w.casefold() for w in re.findall('[A-Za-z][a-z]*', name)}
  steps = np.diff(values)
  return not words - _COUNTS and len(steps) > 0 and float(np.mean(steps == 1)) > 0.9


def rises(values: np.ndarray) -> bool:
  """Whether values mostly rise, as times do even where they are faulty."""
  steps = np.diff(values)
  steps = steps[np.isfinite(steps)]
  return len(steps) > 0 and float(np.mean(steps >= 0)) > 0.9 and bool(steps.sum() > 0)


def rises_evenly(values: np.ndarray) -> bool:
  """Whether values rise as times do that have no fault; never for a few values."""
  if len(values) < _MIN_ROWS or np.mean(np.diff(values) == 0) > _SHARED:
    return False
  try:
    regular_steps(values, where=lambda row: '')
    return True
  except InputError:
    return False


def regular_steps(times: np.ndarray, *, where: Callable[[int], str]) -> Regular:
  """The step of even times.

  Steps may differ from their median by half of it, and by as much as the times are rounded,
  as long as no samples are missing and the step does not change on the way by over 2 %. Samples
  may share times, as those of a packet or of a whole second do: what counts then are the first
  samples at each time.

  Args:
    times: float64 [rows].
    where: row, from 0 -> words that begin a message about it.

  Raises:
    TimesError: fewer than two rows, a time is missing, runs backwards or jumps, or the
      steps are uneven; names the row.
  """
  if len(times) < 2:
    raise TimesError(f'{where(0)} is the only one with a time')
  missing = np.flatnonzero(~np.isfinite(times))
  if len(missing):
    raise TimesError(f'{where(missing[0])} has no time')
  steps = np.diff(times)
  back = np.flatnonzero(steps < 0)
  if len(back):
    before, after = times[back[0]], times[back[0] + 1]
    raise TimesError(f'{where(back[0] + 1)}: time runs backwards, from {before:g} to {after:g}')
  if times[-1] <= times[0]:
    raise TimesError(f'{where(1)}: time stands still at {times[0]:g}')
  # Times that are written with so many figures are rounded more at the end.
  spread = times[np.linspace(0, len(times) - 1, min(len(times), 200)).astype(int)]
  rounding = max(_rounding(spread), _rounding(times[-100:]))
  reach = max(1, min(len(times) // 4, 1000))
  step = float(np.median(times[reach:] - times[:-reach])) / reach
  if np.mean(steps == 0) > _SHARED:
    ticks = steps[steps > 0]
    is_rounded = rounding > 0 and np.median(ticks) < 1.5 * rounding
    if not is_rounded or reach * step < 100 * rounding:
      return _shared_steps(times, where)
  if step <= 0:
    raise TimesError(f'{where(1)}: time stands still at {times[0]:g}')
  jump = _jump(times, steps, step, rounding)
  if jump is not None:
    raise TimesError(_jump_in_words(times, jump, step, where))
  edges = np.linspace(0, len(times) - 1, min(50, max(1, len(times) // 20)) + 1).astype(int)
  lengths = np.diff(edges)
  means = np.diff(times[edges]) / lengths
  uneven = np.flatnonzero(np.abs(means - step) > 0.02 * step + 2 * rounding / lengths)
  if len(uneven):
    change = int(np.argmax(np.abs(np.diff(means)))) if len(means) > 1 else -1
    raise TimesError(_uneven_in_words(means, change, where(edges[change + 1])))
  span = float(times[-1] - times[0])
  equal = float(np.ptp(steps)) < 1e-6 * step
  return Regular(step=span / (len(times) - 1), uncertainty=0.0 if equal else rounding / span)


def _jump_in_words(times: np.ndarray, row: int, step: float, where: Callable[[int], str]) -> str:
  before, after = times[row], times[row + 1]
  if before == after:
    return f'{where(row + 1)}: the same time twice, {after:.9g}; its steps are {step:.6g}'
  return f'{where(row + 1)}: time jumps from {before:.9g} to {after:.9g}; its steps are {step:.6g}'


def _shared_steps(times: np.ndarray, where: Callable[[int], str]) -> Regular:
  """The step of times that many samples share.

  The first samples at each time are placed evenly, but for the jitter of half the time between
  them. Rows before the second time and after the last one tell nothing: they may be cut.
  """
  first = np.flatnonzero(np.diff(times) > 0) + 1
  ticks, rows = np.diff(times[first]), np.diff(first)
  if len(first) < _MIN_TICKS:
    # That many rows, give or take what the first and the last time may lack.
    span = float(times[-1] - times[0])
    return Regular(step=span / (len(times) - 1), uncertainty=1.0)
  reach = max(1, min(len(first) // 4, 200))
  tick = float(np.median(ticks))
  apart = times[first[reach:]] - times[first[:-reach]]
  step = float(np.median(apart / (first[reach:] - first[:-reach])))
  # Where times should be if all steps were the median, and how much they jitter about that.
  drift = times[first] - step * first
  noise = 1.5 * float(np.median(np.abs(np.diff(drift))))
  shifts = np.array([_shift(drift, n) for n in range(1, len(drift))])
  far = np.abs(shifts) > 0.25 * tick + 2 * noise + step
  if far.any():
    at = int(np.argmax(np.abs(np.diff(drift)) * far))
    row = int(first[at + 1]) - 1
    if ticks[at] > 1.5 * tick:
      raise TimesError(_jump_in_words(times, row, step, where))
    raise TimesError(
      f'{where(row + 1)}: times are uneven: {rows[at]} samples at {times[row]:.9g}, mostly '
      f'{float(np.median(rows)):.0f}'
    )
  edges = np.linspace(0, len(first) - 1, min(20, max(1, len(first) // 5)) + 1).astype(int)
  lengths = np.diff(first[edges])
  means = np.diff(times[first[edges]]) / lengths
  if (np.abs(means - step) > 0.02 * step + 2 * (noise + step) / lengths).any():
    change = int(np.argmax(np.abs(np.diff(means)))) if len(means) > 1 else -1
    raise TimesError(_uneven_in_words(means, change, where(int(first[edges[change + 1]]))))
  span, count = float(times[first[-1]] - times[first[0]]), int(first[-1] - first[0])
  return Regular(step=span / count, uncertainty=(step + noise) / span)


def _shift(drift: np.ndarray, place: int) -> float:
  """By how much values differ before and after a place, but for jitter."""
  return float(np.median(drift[place : place + 5]) - np.median(drift[max(0, place - 5) : place]))


def _uneven_in_words(means: np.ndarray, change: int, place: str) -> str:
  return (
    f'{place}: times are uneven: steps of {means[change + 1]:.6g} from about '
    f'here on, {means[max(change, 0)]:.6g} before'
  )


def _jump(times: np.ndarray, steps: np.ndarray, step: float, rounding: float) -> int | None:
  """The row before the first jump; None for none."""
  off = np.abs(steps - step)
  if not (off > 0.5 * step).any():
    return None
  if rounding < 0.25 * step:
    return int(np.argmax(off > 0.5 * step))
  if (off > 0.5 * step + rounding).any():
    return int(np.argmax(off > 0.5 * step + rounding))
  # Times that are rounded coarsely: a jump is what remains when the rounding is averaged out.
  width = int(np.ceil(10 * max(1.0, rounding / step)))
  if len(times) < 2 * width:
    return None
  drift = times - times[0] - step * np.arange(len(times))
  sums = np.concatenate([[0.0], np.cumsum(drift)])
  means = (sums[width:] - sums[:-width]) / width
  shifts = np.abs(means[width:] - means[:-width])
  largest = int(np.argmax(shifts))
  return largest + width - 1 if shifts[largest] > 0.5 * step + rounding / 8 else None


def _rounding(times: np.ndarray) -> float:
  """The power of ten that times are multiples of; 0 where they have all their digits."""
  times = np.unique(times)
  for exponent in range(-3, 13) if len(times) > 1 else ():
    scaled = times * 10.0**exponent
    tolerance = max(1e-6, 5e-16 * np.abs(scaled).max())
    if tolerance > 0.01:
      break
    if (np.abs(scaled - np.rint(scaled)) < tolerance).all():
      return 10.0**-exponent
  return 0.0


def sampling_rate(
  columns: Sequence[TimeColumn],
  *,
  stated: float,
  modality: str,
  where: Callable[[TimeColumn, int], str],
) -> SamplingRate:
  """The rate of a recording, by what its user and its columns of times say.

  Args:
    columns: of times; perhaps none.
    stated: by the user, Hz; 0 where not.
    modality: see `PLAUSIBLE`; others may have any rate.
    where: column, row from 0 -> words that begin a message about it.

  Returns:
    The rate; `stated` itself where it is given.

  Raises:
    TimesError: columns contradict what is stated or one another, or times are not even.
    InputError: the rate is not known, or the unit of the times may be several.
  """
  rate, remarks, by = stated, [], 'the stated rate'
  # Those whose name says the unit come first: the others follow them.
  for column in sorted(columns, key=lambda c: c.times is None or not c.unit):
    if column.times is None:
      remarks.append(f"the times in column '{column.name}' are not understood")
      continue
    found = regular_steps(column.times, where=lambda row, c=column: where(c, row))
    units = (column.unit,) if column.unit else tuple(_UNITS)
    rates = {unit: 1 / (found.step * unit) for unit in units}
    if rate:
      tolerance = TOLERANCE + 2 * found.uncertainty
      if found.uncertainty >= 1:
        remarks.append(f"the times in column '{column.name}' are rounded too much to tell the rate")
      if not any(abs(each / rate - 1) <= tolerance for each in rates.values()):
        said = ', '.join(_in_words(hertz, unit) for unit, hertz in list(rates.items())[:3])
        raise TimesError(f'{where(column, 0)}: the times say {said}; {by} is {rate:g} Hz')
      continue
    low, high = PLAUSIBLE.get(modality, (0.0, np.inf))
    likely = {unit: hertz for unit, hertz in rates.items() if low <= hertz <= high}
    if len(likely) != 1:
      said = ' or '.join(_in_words(hertz, unit) for unit, hertz in (likely or rates).items())
      raise InputError(
        f"{where(column, 0)}: the times say {said}; write the unit into the column's name, such "
        'as time_s or time_ms, or give the rate (--rate)'
      )
    if found.uncertainty > TOLERANCE:
      raise InputError(
        f'{where(column, 0)}: the times are rounded too much to tell the rate; give it (--rate)'
      )
    [(unit, hertz)] = likely.items()
    rate, by = _rounded(hertz, found.uncertainty), f"that of column '{column.name}'"
    if not column.unit:
      remarks.append(f"{rate:g} Hz by column '{column.name}', taken as {_UNITS[unit]}")
  if not rate:
    why = f' ({"; ".join(remarks)})' if remarks else ''
    raise InputError(f'its sampling rate is not known{why}; give it (--rate), or a column of times')
  return SamplingRate(hertz=rate, remark='; '.join(remarks))


def _in_words(hertz: float, unit: float) -> str:
  return f'{hertz:.6g} Hz' + (f' (as {_UNITS[unit]})' if unit in _UNITS else '')


def _rounded(hertz: float, uncertainty: float) -> float:
  """The whole number that a rate may well be, or its first nine digits."""
  whole = round(hertz)
  near = abs(hertz - whole) <= hertz * (uncertainty + 1e-6)
  return float(whole) if whole and near else float(f'{hertz:.9g}')
