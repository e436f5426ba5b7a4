"""Reads columns of numbers from tables: delimited text and Parquet.

`number_marks` says which decimal marks numbers in text have, `number_head` what may stand above
them. Nothing is guessed: a cell that can be read in two ways, or in none, is an error that names
its line.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painformer_jax.core import number_cells
from painformer_jax.core.delimited import text_rows
from painformer_jax.core.errors import InputError
from painformer_jax.core.number_cells import NO_NUMBER, Marks, holds, is_number
from painformer_jax.core.number_head import Head, read_head
from painformer_jax.core.number_layout import number_layout
from painformer_jax.core.number_marks import MARKS, Unclear, marks_of, surely_decimal
from painformer_jax.core.text_format import TextFormat, is_compressed, read_bytes


class UnclearError(InputError):
  """A column of numbers that can be read in two ways."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NumberTable:
  """A table whose columns are read as numbers when they are asked for.

  Attributes:
    path: of the file.
    names: of the columns, stripped; 'f0', 'f1', ... where the file names none.
    named: whether the file names them.
    columns: the columns as Arrow arrays, of float64 or of text not yet converted.
    layout: of text; None for Parquet.
    head: what stands above the numbers.
  """

  path: str
  names: tuple[str, ...]
  named: bool
  columns: Sequence[Any]
  layout: TextFormat | None
  head: Head

  def __len__(self) -> int:
    return len(self.columns[0])

  def index(self, column: str) -> int:
    """Number of a column, from 0.

    Args:
      column: its name, in any case and with or without a unit in brackets where no other
        column is meant; the sensor by OpenSignals' header; or its number.

    Raises:
      InputError: there is no such column, or there are several.
    """
    names = self.names
    for same in (str, str.casefold, _without_unit, None):
      if same is None:
        names, same = self.head.sensors, str.casefold
      found = [n for n, name in enumerate(names) if same(name) == same(column)]
      if len(found) > 1:
        raise InputError(
          f"{self.path} has {len(found)} columns '{column}' (numbers "
          f'{", ".join(map(str, found))}, from 0): give the number of one'
        )
      if found:
        return found[0]
    if column.isdecimal() and int(column) < len(self.names):
      return int(column)
    raise InputError(
      f"{self.path}: the file has no column '{column}' (there: {', '.join(self.names[:20])})"
    )

  def column(self, number: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start` to `stop` of a column.

    Args:
      number: of the column, from 0.
      start, stop: rows, from 0; a stop of None is the end.

    Returns:
      float64 [rows]; empty cells are NaN.

    Raises:
      UnclearError: a number of the column can be read in two ways.
      InputError: a cell of these rows is not a number; names its line.
    """
    import pyarrow

    marks = self._marks[number]
    if isinstance(marks, Unclear):
      what = 'decimal point' if marks.mark == '.' else 'decimal comma'
      line = self._line_of(number, marks.cell)
      raise UnclearError(
        f"{self.path}{line}, column '{self.names[number]}': {marks.cell!r} may have a {what} or "
        'separate thousands; write numbers without a separator of thousands'
      )
    try:
      return number_cells.numbers(self.columns[number][start:stop], marks or Marks())
    except pyarrow.ArrowException:
      what = f"{self.path}: column '{self.names[number]}' is not all numbers"
      fault = self._first_text(number, start)
      raise InputError(f'{what} ({fault})' if fault else what) from None

  @functools.cached_property
  def _marks(self) -> list[Marks | Unclear | None]:
    return marks_of(self.columns)

  def seconds(self, number: int) -> np.ndarray | None:
    """A column of dates with times, or of times of day, in seconds; None for anything else.

    Returns:
      float64 [rows], counted from the first row; empty cells are NaN.
    """
    return number_cells.seconds(self.columns[number])

  def line(self, row: int) -> int:
    """Number of the line that holds a row, from 1; in Parquet the number of the row."""
    if self.layout is None:
      return row + 1
    lines = text_rows(self.path, self.layout, encoding_errors='replace')
    filled = (number for number, fields in lines if fields and number >= self.head.first_row)
    return next(
      (line for count, line in enumerate(filled) if count == row), self.head.first_row + row
    )

  @functools.cached_property
  def array(self) -> np.ndarray:
    """float64 [rows, columns], read-only; empty cells are NaN.

    Raises:
      InputError: a cell is not a number; names its line.
    """
    try:
      values = np.stack([self.column(n) for n in range(len(self.names))], axis=1)
    except UnclearError:
      raise
    except InputError as error:
      fault = self.layout and _first_fault(
        self.path, self.layout, len(self.names), self.head.first_row, numbers=True
      )
      raise fault or error from None
    values.flags.writeable = False
    return values

  def _first_text(self, number: int, start: int) -> str:
    """The first cell of a column that is no number, and its line; '' for none."""
    if self.layout is None:
      return ''
    row, decimal = -1, ''
    for line, fields in text_rows(self.path, self.layout, encoding_errors='replace'):
      if line < self.head.first_row or not fields:
        continue
      row += 1
      if row < start or number >= len(fields):
        continue
      cell = fields[number].strip()
      if not is_number(cell):
        return f'line {line}: {cell[:40]!r}'
      used = max((mark for mark in MARKS if mark in cell), key=cell.rfind, default=decimal)
      if decimal and used != decimal:
        return f'line {line}: {cell[:40]!r} after numbers with {decimal!r}'
      decimal = used
    return ''

  def _line_of(self, number: int, text: str) -> str:
    """', line 3' of the first cell of a column that ends so; '' for none."""
    rows = text_rows(self.path, self.layout, encoding_errors='replace') if self.layout else ()
    for line, fields in rows:
      if line >= self.head.first_row and number < len(fields):
        if fields[number].strip().lstrip('+-') == text:
          return f', line {line}'
    return ''


def read_numbers(
  path: str | Path, *, delimiter: str | None = None, header: bool = True, only_numbers: bool = False
) -> NumberTable:
  """Reads a table whose columns hold numbers, or some of them.

  Lines at the top that begin with '#' or '%' are comments; the last of them names the columns
  where it has as many cells as the rows and no other line does. Above the names may stand
  notes, below them units. A last column without a name and without values is left out.

  Args:
    path: .parquet, or any text; see `text_format`.
    delimiter: between the cells of text; None to find it out.
    header: whether the first line of text surely names the columns, even if it holds numbers.
    only_numbers: whether text in any column is an error already here.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is empty or damaged, a line has too many or too few cells (names it),
      several lines may name the columns, or commas may be decimal or separate numbers.
  """
  # Slow to import; tensorflow-datasets installs it.
  import pyarrow
  import pyarrow.parquet

  path = str(path)
  if path.lower().endswith('.parquet'):
    try:
      table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
      raise InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
    layout, head = None, Head(names=tuple(table.column_names), named=True, first_row=1)
  else:
    layout = number_layout(path, delimiter)
    head = read_head(path, layout, header=header)
    try:
      table = _text_columns(path, layout, count=len(head.names), skip=head.first_row - 1)
    except UnicodeError as error:  # Not wrapped by pyarrow.
      raise InputError(f'{path} is no table of text: {error}') from error
    except pyarrow.ArrowException as error:
      rows = text_rows(path, layout, encoding_errors='replace')
      if not any(fields for number, fields in rows if number >= head.first_row):
        raise InputError(f'{path} has no rows below its line of names') from error
      fault = _first_fault(path, layout, len(head.names), head.first_row, numbers=False)
      raise fault or InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
  if not len(table):
    raise InputError(f'{path} has no rows below its line of names')
  if layout and len(head.names) == 1:
    _refuse_blank_lines(path, layout, head.first_row, rows=len(table))
  columns, names = table.columns, head.names
  while len(columns) > 1 and not (head.named and names[-1].strip()) and _is_empty(columns[-1]):
    names, columns = names[:-1], columns[:-1]
  result = NumberTable(
    path=path,
    names=tuple(name.strip() for name in names),
    named=head.named,
    columns=columns,
    layout=layout,
    head=head,
  )
  if only_numbers:
    result.array  # noqa: B018, converts all columns.
  return result


def _text_columns(path: str, layout: TextFormat, *, count: int, skip: int):
  """The columns as float64 where that reads them in the one way they can be, else as bytes."""
  import pyarrow

  for decimal in MARKS:
    try:
      table = _read_columns(path, layout, pyarrow.float64(), count=count, skip=skip, mark=decimal)
    except pyarrow.ArrowInvalid:
      continue
    if any(surely_decimal(column.to_numpy()) for column in table.columns):
      return table
    text = _read_columns(path, layout, pyarrow.binary(), count=count, skip=skip)
    with_mark = any(holds(column, decimal) for column in text.columns)
    if with_mark and marks_of(text.columns) != [Marks(decimal=decimal)] * count:
      return text
    return table
  return _read_columns(path, layout, pyarrow.binary(), count=count, skip=skip)


def _refuse_blank_lines(path: str, layout: TextFormat, first_row: int, *, rows: int) -> None:
  """Refuses a blank line among the numbers of one column: a missing value, or nothing."""
  import pyarrow
  from pyarrow import compute

  [cells] = _read_columns(
    path, layout, pyarrow.binary(), count=1, skip=first_row - 1, blanks=True
  ).columns
  filled = np.flatnonzero(compute.binary_length(cells).to_numpy())
  end = filled[-1] + 1 if len(filled) else 0
  # A quoted cell without text is a row, and lines may be blank by turns.
  blank = int(end) - rows
  if 0 < blank < rows - 1:
    first = int(np.argmax(compute.binary_length(cells).to_numpy() == 0))
    raise InputError(
      f'{path}, line {first_row + first} is blank: write nan where a value is missing, else '
      'delete the line'
    )


def _read_columns(
  path: str,
  layout: TextFormat,
  kind,
  *,
  count: int,
  skip: int,
  mark: str = '.',
  blanks: bool = False,
):
  """All columns as one type; with rows for lines that are blank on request."""
  import pyarrow.csv

  names = [str(number) for number in range(count)]
  source: Any = path
  encoding = 'utf8' if layout.encoding == 'utf-8-sig' else layout.encoding
  delimiter = layout.likely_delimiter
  if is_compressed(path):
    source = io.BytesIO(read_bytes(path))
  if delimiter == ' ':
    lines = text_rows(path, layout, encoding_errors='replace')
    text = '\n'.join('\t'.join(fields) for number, fields in lines if number > skip)
    source, encoding, delimiter, skip = io.BytesIO(text.encode()), 'utf8', '\t', 0
  return pyarrow.csv.read_csv(
    source,
    read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=skip, encoding=encoding),
    parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=not blanks),
    convert_options=pyarrow.csv.ConvertOptions(
      column_types=dict.fromkeys(names, kind), null_values=NO_NUMBER, decimal_point=mark
    ),
  )


def _first_fault(
  path: str, layout: TextFormat, columns: int, first_row: int, *, numbers: bool
) -> InputError | None:
  """What is wrong with the first line of another length, or with text among the numbers."""
  for number, fields in text_rows(path, layout, encoding_errors='replace'):
    if number < first_row or not fields:
      continue
    if len(fields) != columns or (numbers and not all(map(is_number, fields))):
      text = layout.likely_delimiter.join(fields)
      hint = ''
      if layout.likely_delimiter == ',' and len(fields) > columns:
        hint = '; if commas are decimal, separate columns by semicolons or tabs'
      return InputError(
        f'{path}, line {number}: expected {columns} {"numbers" if numbers else "cells"}, '
        f'found {text[:60]!r}{hint}'
      )
  return None


def _is_empty(column) -> bool:
  return column.null_count == len(column) or not any(
    v.as_py().strip() if isinstance(v.as_py(), bytes) else v.is_valid for v in column
  )


def _without_unit(name: str) -> str:
  """'ECG [mV]' -> 'ecg'."""
  return re.sub(r'\s*[\[(][^\])]*[\])]$', '', name.strip()).casefold()
