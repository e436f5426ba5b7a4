"""Signals in files: one channel, or a span of one, as a float array."""

import csv
import dataclasses
import functools
import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

SUFFIXES = ('.csv', '.tsv', '.npy', '.npz', '.parquet')
# Text files are parsed whole; so many stay in memory for the next span. A file
# of a long recording can take some hundred MB.
FILES_KEPT = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
  """Where one signal lies.

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


class _Files:
  """The last few files, parsed; safe to use from several threads."""

  def __init__(self, kept: int):
    self._kept = kept
    self._lock = threading.Lock()
    self._entries = OrderedDict()

  def get(self, path: str):
    with self._lock:
      entry = self._entries.setdefault(path, _Entry())
      self._entries.move_to_end(path)
      while len(self._entries) > self._kept:
        self._entries.popitem(last=False)
    return entry.load(path)


class _Entry:
  """One file, parsed by the first thread that asks for it."""

  def __init__(self):
    self._lock = threading.Lock()
    self._content = self._stamp = None

  def load(self, path: str):
    with self._lock:
      status = os.stat(path)
      stamp = (status.st_mtime_ns, status.st_size)
      if stamp != self._stamp:
        self._content, self._stamp = _parse(path), stamp
      return self._content


_files = _Files(FILES_KEPT)


def read_span(root: str, span: Span) -> np.ndarray:
  """Reads one signal.

  Args:
    root: the manifest's folder.
    span: what to read.

  Returns:
    float64 [samples]; empty fields of text files are NaN.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is damaged, has no such channel or row, the channel is not
      numbers, or the span holds no sample.
  """
  path = os.path.join(root, span.file)
  content = _files.get(path)
  if isinstance(content, dict):
    content = _member(content, span.key)
  values = (
    _channel_of_table(content, span)
    if isinstance(content, _Table)
    else _channel_of_array(content, span)
  )
  # Of a column of text files, only the span is made an array: files can be long.
  begin = round(span.start * span.rate)
  end = None if span.stop is None else round(span.stop * span.rate)
  if begin >= len(values) or (end is not None and end > len(values)):
    raise ValueError(
      f'the file has {len(values) / span.rate:g} s at {span.rate:g} Hz, the span '
      f'is {span.start:g} to {"its end" if end is None else f"{span.stop:g}"} s'
    )
  part = values[begin:end]
  return part.numbers() if isinstance(part, _Column) else np.asarray(part, np.float64)


@dataclasses.dataclass(frozen=True)
class _Column:
  """A column of a text or Parquet file, as Arrow holds it."""

  name: str
  values: Any

  def __len__(self) -> int:
    return len(self.values)

  def __getitem__(self, part: slice) -> '_Column':
    return _Column(self.name, self.values[part])

  def numbers(self) -> np.ndarray:
    """float64 [len]; ValueError where there is other text."""
    import pyarrow

    try:
      return self.values.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    except pyarrow.ArrowException:
      raise ValueError(f"column '{self.name}' is not all numbers") from None


class _Table:
  """Columns of a text or Parquet file, in order."""

  def __init__(self, names: list[str], columns: list):
    self.names = [name.strip() for name in names]
    self.columns = [_Column(name, c) for name, c in zip(self.names, columns)]

  @functools.cached_property
  def rows(self) -> np.ndarray:
    """float64 [rows, columns]."""
    return np.stack([column.numbers() for column in self.columns], axis=1)


def _parse(path: str):
  suffix = os.path.splitext(path)[1].lower()
  if suffix == '.npy':
    # Only what is asked for is read from the disk.
    return np.load(path, mmap_mode='r', allow_pickle=False)
  if suffix == '.npz':
    try:
      with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
    except OSError:
      raise
    except Exception as error:  # zipfile and zlib raise errors of their own.
      raise ValueError(f'not a readable .npz file: {error}') from error
  return _parse_table(path, suffix)


def _parse_table(path: str, suffix: str) -> _Table:
  # Slow to import; tensorflow-datasets installs it.
  import pyarrow
  import pyarrow.csv
  import pyarrow.parquet

  try:
    if suffix == '.parquet':
      table = pyarrow.parquet.read_table(path)
      names = table.column_names
    else:
      delimiter, names = _header(path)
      table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
          autogenerate_column_names=True, skip_rows=int(bool(names))
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
      )
      names = names or table.column_names
  except pyarrow.ArrowException as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f'not a readable {suffix} file: {reason}') from error
  if len(names) != table.num_columns:
    raise ValueError(
      f'not a readable {suffix} file: {len(names)} names for {table.num_columns} columns'
    )
  return _Table(names, table.columns)


def _header(path: str) -> tuple[str, list[str]]:
  """Delimiter of a text file, and its columns' names; none where it has none."""
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    line = file.readline().rstrip('\r\n')
  counts = {d: line.count(d) for d in ',;\t'}
  delimiter = '\t' if path.lower().endswith('.tsv') else max(counts, key=counts.get)
  names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
  try:
    for name in names:
      float(name or 0)
  except ValueError:
    return delimiter, names
  return delimiter, []


def _channel_of_table(table: _Table, span: Span) -> np.ndarray | _Column:
  if span.row is not None:
    return _row(table.rows, span.row)
  names = table.names
  if span.column in names:
    number = names.index(span.column)
  elif span.column.isdecimal() and int(span.column) < len(names):
    number = int(span.column)
  elif span.column:
    raise ValueError(f"the file has no column '{span.column}' (there: {', '.join(names[:20])})")
  elif len(names) == 1:
    number = 0
  else:
    raise ValueError(f'the file has {len(names)} columns; the manifest must say which')
  return table.columns[number]


def _channel_of_array(array: np.ndarray, span: Span) -> np.ndarray:
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
