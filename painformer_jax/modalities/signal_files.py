"""Signals in files: one channel, or a span of one, as a float array."""

import dataclasses
import os

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.core.number_table import NumberTable, read_numbers

SUFFIXES = ('.csv', '.tsv', '.npy', '.npz', '.parquet')
# Text files are parsed whole; so many stay in memory for the next span. A file
# of a long recording can take some hundred MB.
FILES_KEPT = 4


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
    start, stop: in seconds from the file's beginning; a stop of None is the end.
  """

  file: str
  rate: float
  key: str = ''
  column: str = ''
  row: int | None = None
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
      channel is not numbers, or the span holds no sample.
  """
  path = os.path.join(root, span.file)
  content = _files(path)
  # Of a column of text files, only the span is made an array: files can be long.
  begin = round(span.start * span.rate)
  end = None if span.stop is None else round(span.stop * span.rate)
  try:
    if isinstance(content, NumberTable) and span.row is None:
      column, length = _column_number(content, span), len(content)
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


def _read(path: str) -> np.ndarray | dict[str, np.ndarray] | NumberTable:
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in ('.npy', '.npz'):
    return read_numbers(path, header=False)
  try:
    if suffix == '.npy':
      # Only what is asked for is read from the disk.
      return np.load(path, mmap_mode='r', allow_pickle=False)
    with np.load(path, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except OSError:
    raise
  except Exception as error:  # zipfile and zlib raise errors of their own.
    raise InputError(f'{path} is not a readable {suffix} file: {error}') from error


_files = FileCache(_read, kept=FILES_KEPT)


# What follows raises ValueError, whose text the caller puts behind the file's name.


def _column_number(table: NumberTable, span: SignalSpan) -> int:
  names = table.names
  if span.column in names:
    return names.index(span.column)
  if span.column.isdecimal() and int(span.column) < len(names):
    return int(span.column)
  if span.column:
    raise ValueError(f"the file has no column '{span.column}' (there: {', '.join(names[:20])})")
  if len(names) > 1:
    raise ValueError(f"the file has {len(names)} columns: name the 'column' to read")
  return 0


def _array(
  content: np.ndarray | dict[str, np.ndarray] | NumberTable, span: SignalSpan
) -> np.ndarray:
  """The signal in an array, or in a row of a table."""
  if isinstance(content, NumberTable):
    return _row(content.array, span.row)
  array = _member(content, span.key) if isinstance(content, dict) else content
  if array.dtype.kind not in 'fiub':
    raise ValueError(f'the array is of type {array.dtype}, not of real numbers')
  if array.ndim == 1 and span.row is None and span.column in ('', '0'):
    return array
  if array.ndim != 2:
    raise ValueError(
      f'the array has shape {list(array.shape)}; a signal is one-dimensional, '
      'or a row or column of a two-dimensional one'
    )
  if span.row is not None:
    return _row(array, span.row)
  if not span.column.isdecimal() or int(span.column) >= array.shape[1]:
    raise ValueError(f"the array has {array.shape[1]} columns, none of number '{span.column}'")
  return array[:, int(span.column)]


def _row(rows: np.ndarray, number: int) -> np.ndarray:
  if number >= len(rows):
    raise ValueError(f'the file has {len(rows)} rows, none of number {number}')
  return rows[number]


def _member(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
  if key in arrays:
    return arrays[key]
  if not key and len(arrays) == 1:
    return next(iter(arrays.values()))
  raise ValueError(f"the file has no array '{key}' (there: {', '.join(list(arrays)[:20])})")
