"""Signals in arrays of NumPy: which array, which column, and which hold times.

Functions here raise ValueError, whose text the caller puts behind the file's name.
"""

from collections.abc import Sequence

import numpy as np

from painformer_jax.modalities.sample_times import TimeColumn, rises, rises_evenly, unit_of

# Arrays of .npz files that hold the rate.
_RATES = ('fs', 'sfreq', 'rate', 'srate', 'sr', 'sampling_rate', 'sample_rate', 'hz')


def time_columns(
  content: np.ndarray | dict[str, np.ndarray], *, key: str, time: str
) -> list[TimeColumn]:
  """The times, or the rate, that a file of arrays holds beside a signal.

  Args:
    content: an array, or the arrays of an .npz file.
    key: of the array that holds the signal; '' for the only one.
    time: name of the array, or number of the column, of times; '' to find it.
  """
  array = member(content, key)
  if isinstance(content, dict):
    stated = {n: a for n, a in content.items() if n.casefold() in _RATES and a.size == 1}
    rates = {n: a.item() for n, a in stated.items() if a.dtype.kind in 'fiu' and a.item() > 0}
    if rates and not time:
      return [
        TimeColumn(name=n, times=np.arange(64) / hertz, unit=1.0) for n, hertz in rates.items()
      ]
    beside = {n: a for n, a in content.items() if a is not array and a.shape == array.shape[:1]}
    named = [n for n in beside if (n == time if time else unit_of(n) is not None)]
    if named:
      return [
        TimeColumn(name=n, times=np.asarray(beside[n], np.float64), unit=unit_of(n) or 0.0)
        for n in named
        if beside[n].dtype.kind in 'fiu'
      ]
  if time and not (array.ndim == 2 and time.isdecimal() and int(time) < array.shape[1]):
    raise ValueError(f"the file has no column of times '{time}'")
  if array.ndim != 2 or array.dtype.kind not in 'fiu' or array.shape[1] < 2:
    return []
  times = np.asarray(array[:, int(time or 0)], np.float64)
  if not time and (not rises_evenly(times) or (np.diff(times) == 1).all()):
    return []
  return [TimeColumn(name=time or '0', times=times, unit=0.0)]


def signal_array(
  content: np.ndarray | dict[str, np.ndarray], *, key: str, column: str, row: int | None, time: str
) -> np.ndarray:
  """The signal that a file of arrays holds.

  Args:
    content: an array, or the arrays of an .npz file.
    key: of the array; '' for the only one.
    column: number of the column; '' for the only one beside times.
    row: number of the row, where rows are signals; else None.
    time: number of the column of times; '' to find it.

  Returns:
    Real [n].
  """
  array = member(content, key)
  if array.dtype.kind not in 'fiub':
    raise ValueError(f'the array is of type {array.dtype}, not of real numbers')
  if isinstance(content, dict) and len(content) > 1 and unit_of(key) is not None:
    if array.ndim == 1 and rises(np.asarray(array, np.float64)):
      raise ValueError(f"array '{key}' holds times")
  if array.ndim == 1 and row is None and column in ('', '0'):
    return array
  if array.ndim != 2:
    raise ValueError(
      f'the array has shape {list(array.shape)}; a signal is one-dimensional, '
      'or a row or column of a two-dimensional one'
    )
  if row is not None:
    return numbered_row(array, row)
  return array[:, _column(array, column, time)]


def channel_name(content: np.ndarray | dict[str, np.ndarray], *, key: str, time: str) -> str:
  """The name of the signal that is read where no column is named: the array's, or a number."""
  array = member(content, key)
  number = str(_column(array, '', time)) if array.ndim == 2 and array.shape[1] > 1 else ''
  name = member_name(content, key) if isinstance(content, dict) else ''
  return ' '.join(filter(None, (name, number)))


def _column(array: np.ndarray, column: str, time: str) -> int:
  """Number of the column that is the signal."""
  columns = array.shape[1]
  others = {int(time)} if time.isdecimal() else set()
  if columns > 1 and rises_evenly(np.asarray(array[:, 0], np.float64)):
    others.add(0)
  signals = [n for n in range(columns) if n not in others]
  if not column and len(signals) == 1:
    return signals[0]
  lying = '; signals are columns: transpose it' if len(array) < columns else ''
  if not column:
    raise ValueError(f'the array has {columns} columns: give the number of one (--column){lying}')
  if not column.isdecimal() or int(column) >= columns:
    raise ValueError(f"the array has {columns} columns, none of number '{column}'{lying}")
  if int(column) in others:
    raise ValueError(f"column '{column}' holds times or numbers the rows")
  return int(column)


def numbered_row(rows: np.ndarray, number: int) -> np.ndarray:
  """One row of an array [rows, n]."""
  if number >= len(rows):
    raise ValueError(f'the file has {len(rows)} rows, none of number {number}')
  return rows[number]


def member(content: np.ndarray | dict[str, np.ndarray], key: str) -> np.ndarray:
  """The array of a name, or the only one that is no time and no single number."""
  return content[member_name(content, key)] if isinstance(content, dict) else content


def member_name(arrays: dict[str, np.ndarray], key: str) -> str:
  """The name of the array `member` gives."""
  if key in arrays:
    return key
  # Times and single numbers, such as a rate, are no signals.
  signals = [n for n, a in arrays.items() if a.size > 1 and unit_of(n) is None] or list(arrays)
  if not key and len(signals) == 1:
    return signals[0]
  if not key:
    raise ValueError(f'the file has several arrays: name one (--key; there: {_listed(signals)})')
  raise ValueError(f"the file has no array '{key}' (there: {_listed(list(arrays))})")


def _listed(names: Sequence[str]) -> str:
  return ', '.join(names[:20])
