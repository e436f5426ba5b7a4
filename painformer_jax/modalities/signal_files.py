"""Signals in files: one channel, or a span of one, as a float array."""

import dataclasses
import os
from typing import Literal

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.core.number_table import NumberTable, UnclearError, read_numbers
from painformer_jax.modalities import signal_arrays
from painformer_jax.modalities.sample_times import (
  TOLERANCE,
  SamplingRate,
  TimeColumn,
  TimesError,
  is_counter,
  rises,
  rises_evenly,
  sampling_rate,
  unit_of,
)

_TEXT = ('.csv', '.tsv', '.txt')
SUFFIXES = (*_TEXT, *(f'{suffix}.gz' for suffix in _TEXT), '.npy', '.npz', '.parquet')
# Text files are parsed whole; so many stay in memory for the next span. A file
# of a long recording can take some hundred MB.
FILES_KEPT = 4
# In place of the name of a column of times: there is none, or it is not to be believed.
NO_TIMES = 'none'

Course = Literal['times', 'other', 'signal']
Content = np.ndarray | dict[str, np.ndarray] | NumberTable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalSpan:
  """Where one signal is stored.

  Attributes:
    file: relative to the manifest's folder.
    key: array of an .npz file; '' where it has one array.
    column: name or number (from 0) of the column that is the channel; '' where
      there is one column, or for one-dimensional arrays.
    row: number (from 0) of the row that is the signal, in files that hold one
      signal a row; None for columns.
    rate: samples a second, Hz.
    time: name or number of the column of times, which must agree with the rate; '' to find
      it, 'none' to read none.
    start, stop: in seconds from the file's beginning; a stop of None is the end.
  """

  file: str
  rate: float
  key: str = ''
  column: str = ''
  row: int | None = None
  time: str = ''
  start: float = 0.0
  stop: float | None = None

  def __str__(self) -> str:
    channel = ''.join(f'#{c}' for c in (self.key, self.column) if c)
    if self.row is not None:
      channel += f'#row {self.row}'
    end = 'end' if self.stop is None else f'{self.stop:.12g} s'
    when = '' if not self.start and self.stop is None else f', {self.start:.12g} s to {end}'
    return f'{self.file}{channel}{when} at {self.rate:.12g} Hz'


def read_span(root: str, span: SignalSpan) -> np.ndarray:
  """Reads one signal.

  Args:
    root: the manifest's folder.
    span: what to read.

  Returns:
    float64 [samples]; empty fields of text files are NaN.

  Raises:
    InputError: the file cannot be read, is damaged, has no such channel or row, the
      channel is not numbers or holds the times, the times contradict the rate or are not
      even, or the span holds no sample.
  """
  path = os.path.join(root, span.file)
  content = _files(path)
  if span.row is None:
    recorded_rate(path, stated=span.rate, key=span.key, time=span.time)
  # Of a column of text files, only the span is made an array: files can be long.
  begin = round(span.start * span.rate)
  end = None if span.stop is None else round(span.stop * span.rate)
  try:
    if isinstance(content, NumberTable) and span.row is None:
      column, length = _column_number(content, span.column, span.time), len(content)
    else:
      array = _array(content, span)
      column, length = None, len(array)
    if begin >= length or (end is not None and end > length):
      raise ValueError(
        f'the file has {length / span.rate:g} s at {span.rate:g} Hz, the span '
        f'is {span.start:g} to {"its end" if end is None else f"{span.stop:g}"} s'
      )
  except ValueError as error:
    raise InputError(f'{path}: {error}') from None
  if column is not None:
    return content.column(column, begin, end)
  return np.asarray(array[begin:end], np.float64)


def recorded_rate(
  path: str, *, stated: float = 0.0, modality: str = '', key: str = '', time: str = ''
) -> SamplingRate:
  """The sampling rate of a file, by its times, its first lines and what its user states.

  Times are columns (of an .npz file also arrays) that are named so, or a first column that
  rises evenly. Columns that number the rows say nothing.

  Args:
    path: of the file.
    stated: Hz; 0 for nothing.
    modality: see `sample_times.PLAUSIBLE`.
    key: array of an .npz file that holds the signal.
    time: name or number of the column of times; '' to find it; 'none' to ignore times.

  Raises:
    InputError: as `sample_times.sampling_rate` says, or the file cannot be read.
  """
  return _rates(path, stated=stated, modality=modality, key=key, time=time)


def channel_name(path: str, *, column: str = '', key: str = '', time: str = '') -> str:
  """The name of the channel that a span of this file, column, key and time holds.

  Returns:
    The column as it was asked for, else its name or number, of an .npz file after the array's
    name; '' where the file has one column without a name.

  Raises:
    InputError: as `read_span` does.
  """
  content = _files(path)
  try:
    if column:
      return column
    if isinstance(content, NumberTable):
      number = _column_number(content, '', time)
      unnamed = '' if len(content.names) == 1 else str(number)
      return content.names[number] if content.named else unnamed
    return signal_arrays.channel_name(content, key=key, time='' if time == NO_TIMES else time)
  except ValueError as error:
    raise InputError(f'{path}: {error}') from None


def _rate_of(path: str, *, stated: float, modality: str, key: str, time: str) -> SamplingRate:
  content = _files(path)
  try:
    columns = [] if time == NO_TIMES else _time_columns(content, key, time)
  except ValueError as error:
    raise InputError(f'{path}: {error}') from None

  def where(column: TimeColumn, row: int) -> str:
    if isinstance(content, NumberTable):
      place = f', {"line" if content.layout else "row"} {content.line(row)}'
    else:
      place = f', row {row}'
    return f"{path}{place}, column '{column.name}'"

  head = content.head if isinstance(content, NumberTable) else None
  if head and head.rate and time != NO_TIMES:
    if stated and abs(stated / head.rate - 1) > TOLERANCE:
      raise TimesError(
        f'{path}: its first lines say {head.rate:g} Hz; the stated rate is {stated:g} Hz'
      )
    stated = stated or head.rate
  try:
    found = sampling_rate(columns, stated=stated, modality=modality, where=where)
    remarks = [*(head.remarks if head else ()), found.remark]
    return SamplingRate(hertz=found.hertz, remark='; '.join(filter(None, remarks)))
  except InputError as error:
    _raise_if_no_numbers(content)
    text = str(error)
    raise type(error)(text if text.startswith(path) else f'{path}: {text}') from None


_rates = FileCache(_rate_of, kept=64)


def _raise_if_no_numbers(content: Content) -> None:
  """Raises what is wrong with a table of text, which is why nothing else in it is right."""
  if not isinstance(content, NumberTable):
    return
  fault = None
  for number, course in enumerate(_courses(content.path)):
    try:
      if course == 'signal':
        content.column(number)
        return
    except InputError as error:
      fault = fault or error
  if fault:
    raise fault


def _read(path: str) -> Content:
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in ('.npy', '.npz'):
    return read_numbers(path, header=False)
  try:
    if suffix == '.npy':
      # Only what is asked for is read from the disk.
      return np.load(path, mmap_mode='r', allow_pickle=False)
    # NumPy does not close a file that it cannot read.
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except OSError:
    raise
  except Exception as error:  # zipfile and zlib raise errors of their own.
    raise InputError(f'{path} is not a readable {suffix} file: {error}') from error


_files = FileCache(_read, kept=FILES_KEPT)


# What follows raises ValueError, whose text the caller puts behind the file's name.


def _column_number(table: NumberTable, column: str, time: str) -> int:
  courses = list(_courses(table.path))
  if time not in ('', NO_TIMES):
    courses[table.index(time)] = 'times'
  if column:
    number = table.index(column)
    if courses[number] != 'signal':
      raise ValueError(f"column '{table.names[number]}' holds times or numbers the rows")
    return number
  if courses.count('signal') != 1:
    signals = [name for name, course in zip(table.names, courses) if course == 'signal']
    there = f' (there: {", ".join(signals[:20])})' if table.named and signals else ''
    raise ValueError(
      f"the file has {len(table.names)} columns: name the 'column' to read (--column){there}"
    )
  return courses.index('signal')


def _courses_of(path: str) -> tuple[Course, ...]:
  """What each column of a table is."""
  table = _files(path)
  if len(table.names) == 1:
    return ('signal',)
  return tuple(_course(table, n) for n in range(len(table.names)))


_courses = FileCache(_courses_of, kept=64)


def _course(table: NumberTable, number: int) -> Course:
  """What a column is, by its name and its values."""
  name = _label(table, number)
  unit = unit_of(name)
  moments = table.seconds(number)
  if moments is not None and not rises(moments) and unit is None:
    return 'other'  # The date of the recording.
  # A signal may be called t or s.
  if (unit is not None and len(name) > 1) or moments is not None:
    return 'times'
  try:
    values = table.column(number)
  except InputError:  # Text of some kind.
    return 'signal' if unit is None else 'times'
  if unit is not None and (rises(values) or rises(-values)):
    return 'times'
  if table.named and is_counter(name, values):
    return 'other'
  if number == 0 and rises_evenly(values):
    return 'other' if (np.diff(values) == 1).all() else 'times'
  return 'signal'


def _time_columns(content: Content, key: str, time: str) -> list[TimeColumn]:
  if isinstance(content, NumberTable):
    if time:
      numbers = [content.index(time)]
    else:
      numbers = [n for n, course in enumerate(_courses(content.path)) if course == 'times']
    return [_table_times(content, n) for n in numbers]
  return signal_arrays.time_columns(content, key=key, time=time)


def _label(table: NumberTable, number: int) -> str:
  """The name of a column, with its unit where a line of its own states it; '' for no names."""
  if not table.named:
    return ''
  name, units = table.names[number], table.head.units
  return f'{name} [{units[number]}]' if units and units[number] and name else name


def _table_times(table: NumberTable, number: int) -> TimeColumn:
  name, times = table.names[number], table.seconds(number)
  if times is not None:
    return TimeColumn(name=name, times=times, unit=1.0)
  try:
    times = table.column(number)
  except UnclearError:
    raise
  except InputError:
    times = None
  return TimeColumn(name=name, times=times, unit=unit_of(_label(table, number)) or 0.0)


def _array(content: Content, span: SignalSpan) -> np.ndarray:
  """The signal in an array, or in a row of a table."""
  if isinstance(content, NumberTable):
    return signal_arrays.numbered_row(content.array, span.row or 0)
  return signal_arrays.signal_array(
    content,
    key=span.key,
    column=span.column,
    row=span.row,
    time='' if span.time == NO_TIMES else span.time,
  )
