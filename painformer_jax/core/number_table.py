"""Reads columns of numbers from tables: delimited text and Parquet.

Numbers in text have a decimal point or a decimal comma, each column one of them. Nothing is
guessed: a cell that can be read in two ways, or in none, is an error that names its line.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painformer_jax.core import number_cells
from painformer_jax.core.delimited import text_rows
from painformer_jax.core.errors import InputError
from painformer_jax.core.number_cells import DECIMALS, NO_NUMBER, is_number
from painformer_jax.core.text_format import TextFormat, text_format

_GROUPED = re.compile(r'[+-]?[1-9]\d{0,2}(,\d{3})+')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NumberTable:
  """A table whose columns are read as numbers when they are asked for.

  Attributes:
    path: of the file.
    names: of the columns, stripped; 'f0', 'f1', ... where the file names none.
    named: whether the file names them.
    columns: the columns as Arrow arrays, of float64 or of text not yet converted.
    layout: of text; None for Parquet.
    first_row: number of the line that holds the first row.
  """

  path: str
  names: tuple[str, ...]
  named: bool
  columns: Sequence[Any]
  layout: TextFormat | None
  first_row: int

  def __len__(self) -> int:
    return len(self.columns[0])

  def index(self, column: str) -> int:
    """Number of a column, from 0.

    Args:
      column: its name, in any case and with or without a unit in brackets where no other
        column is meant; or its number.

    Raises:
      InputError: there is no such column, or there are several.
    """
    for same in (str, str.casefold, _without_unit):
      found = [n for n, name in enumerate(self.names) if same(name) == same(column)]
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
      InputError: a cell of these rows is not a number; names its line.
    """
    import pyarrow

    try:
      return number_cells.numbers(self.columns[number][start:stop])
    except pyarrow.ArrowException:
      what = f"{self.path}: column '{self.names[number]}' is not all numbers"
      fault = self._first_text(number, start)
      raise InputError(f'{what} ({fault})' if fault else what) from None

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
    filled = (number for number, fields in lines if fields and number >= self.first_row)
    return next((line for count, line in enumerate(filled) if count == row), self.first_row + row)

  @functools.cached_property
  def array(self) -> np.ndarray:
    """float64 [rows, columns], read-only; empty cells are NaN.

    Raises:
      InputError: a cell is not a number; names its line.
    """
    try:
      values = np.stack([self.column(n) for n in range(len(self.names))], axis=1)
    except InputError as error:
      fault = self.layout and _first_fault(
        self.path, self.layout, len(self.names), self.first_row, numbers=True
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
      if line < self.first_row or not fields:
        continue
      row += 1
      if row < start or number >= len(fields):
        continue
      cell = fields[number].strip()
      if not is_number(cell):
        return f'line {line}: {cell[:40]!r}'
      used = next((d for d in DECIMALS if d in cell), decimal)
      if decimal and used != decimal:
        return f'line {line}: {cell[:40]!r} after numbers with {decimal!r}'
      decimal = used
    return ''


def read_numbers(
  path: str | Path, *, delimiter: str | None = None, header: bool = True, only_numbers: bool = False
) -> NumberTable:
  """Reads a table whose columns hold numbers, or some of them.

  Lines at the top that begin with '#' are comments; the last of them names the columns
  where it has as many cells as the rows and no other line does. A last column without a
  name and without values is left out.

  Args:
    path: .parquet, or any text; see `text_format`.
    delimiter: between the cells of text; None to find it out.
    header: whether the first line of text surely names the columns; otherwise it does
      unless all its cells are numbers or empty.
    only_numbers: whether text in any column is an error already here.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is empty or damaged, a line has too many or too few cells (names it), or
      commas may be decimal or separate numbers.
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
    names, named, layout, first_row = table.column_names, True, None, 1
  else:
    layout = _layout(path, delimiter)
    names, named, first_row = _head(path, layout, header)
    try:
      table = _text_columns(path, layout, count=len(names), skip=first_row - 1)
    except UnicodeError as error:  # Not wrapped by pyarrow.
      raise InputError(f'{path} is no table of text: {error}') from error
    except pyarrow.ArrowException as error:
      rows = text_rows(path, layout, encoding_errors='replace')
      if not any(fields for number, fields in rows if number >= first_row):
        raise InputError(f'{path} has no rows below its line of names') from error
      fault = _first_fault(path, layout, len(names), first_row, numbers=False)
      raise fault or InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
  if not len(table):
    raise InputError(f'{path} has no rows below its line of names')
  columns = table.columns
  while len(columns) > 1 and not (named and names[-1].strip()) and _is_empty(columns[-1]):
    names, columns = names[:-1], columns[:-1]
  result = NumberTable(
    path=path,
    names=tuple(name.strip() for name in names),
    named=named,
    columns=columns,
    layout=layout,
    first_row=first_row,
  )
  if only_numbers:
    result.array  # noqa: B018, converts all columns.
  return result


def _layout(path: str, delimiter: str | None) -> TextFormat:
  """The format of a text; where its lines have one cell each, commas are decimal."""
  layout = text_format(path, delimiter=delimiter, any_encoding=True)
  if not layout.first:
    raise InputError(f'{path} is empty')
  if layout.delimiter or any(d in layout.first for d in ',;\t'):
    return layout
  if len(layout.first.split()) > 1 and all(map(is_number, layout.first.split())):
    raise InputError(f'{path}: separate its columns by tabs, semicolons or commas, not by spaces')
  return dataclasses.replace(layout, delimiter=';')


def _text_columns(path: str, layout: TextFormat, *, count: int, skip: int):
  """The columns as float64 where all cells are numbers, else as bytes."""
  import pyarrow
  import pyarrow.csv

  names = [str(number) for number in range(count)]
  tries = [(pyarrow.float64(), decimal) for decimal in DECIMALS] + [(pyarrow.binary(), '.')]
  for kind, decimal in tries:
    try:
      table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
          column_names=names,
          skip_rows=skip,
          encoding='utf8' if layout.encoding == 'utf-8-sig' else layout.encoding,
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=layout.likely_delimiter),
        convert_options=pyarrow.csv.ConvertOptions(
          column_types=dict.fromkeys(names, kind), null_values=NO_NUMBER, decimal_point=decimal
        ),
      )
    except pyarrow.ArrowInvalid:
      if kind == pyarrow.binary():
        raise
    else:
      if decimal == ',' and layout.likely_delimiter == ',':
        _refuse_grouped(path, layout, first_row=skip + 1)
      return table


def _refuse_grouped(path: str, layout: TextFormat, *, first_row: int) -> None:
  """Among separating commas, "1,234" in quotes is more often a thousand than a decimal."""
  for line, fields in text_rows(path, layout, encoding_errors='replace'):
    if line >= first_row:
      cells = [cell.strip() for cell in fields if ',' in cell]
      if any(not _GROUPED.fullmatch(cell) for cell in cells):
        return
      if cells:
        grouped = cells[0]
        break
  raise InputError(
    f'{path}, line {line}: {grouped!r} may have a decimal comma or separate thousands; '
    'write it without a comma'
  )


def _head(path: str, layout: TextFormat, header: bool) -> tuple[list[str], bool, int]:
  """Names of the columns, whether the file names them, and the line of the first row."""
  lines: list[tuple[int, list[str]]] = []
  comment: list[str] = []
  blank: tuple[int, list[str]] | None = None
  for number, fields in text_rows(path, layout, encoding_errors='replace'):
    fields = [field.strip() for field in fields]
    if not fields:
      continue
    if not lines and fields[0].startswith('#') and fields[0] not in NO_NUMBER:
      comment, after = [fields[0].lstrip('# '), *fields[1:]], number + 1
    elif lines or any(fields):
      lines.append((number, fields))
    else:
      blank = blank or (number, fields)
    if len(lines) == 3:
      break
  # Empty cells above names are layout, above numbers they are missing values.
  if blank and (not lines or not (header or _names_columns(*_first_two(lines)))):
    lines.insert(0, blank)
  if not lines:
    if comment:
      return comment, True, after
    raise InputError(f'{path} is empty')
  number, (first, second) = lines[0][0], _first_two(lines)
  if comment and len(comment) == len(first) and all(map(is_number, first)):
    return comment, True, number
  if header or _names_columns(first, second):
    # Rows may end with a delimiter though the line of names does not.
    extra = [''] if len(second) == len(first) + 1 and not second[-1] else []
    return first + extra, True, number + 1
  if layout.likely_delimiter == ',':
    _refuse_decimal_commas(path, [fields for _, fields in lines])
  return [f'f{n}' for n in range(len(first))], False, number


def _first_two(lines: Sequence[tuple[int, list[str]]]) -> tuple[list[str], list[str]]:
  return lines[0][1], lines[1][1] if len(lines) > 1 else []


def _names_columns(first: Sequence[str], second: Sequence[str]) -> bool:
  """Whether a line names the columns of the next; names may be numbers that count."""
  if not all(map(is_number, first)):
    return True
  counted = [str(n) for n in range(len(first))]
  if len(first) > 1 and list(first) == ['', *counted[:-1]]:
    return True
  whole = all(cell.lstrip('-').isdecimal() for cell in second)
  return len(first) > 2 and list(first) == counted and not whole


def _refuse_decimal_commas(path: str, rows: Sequence[Sequence[str]]) -> None:
  """Refuses '0,05' in lines without names: one number with a decimal comma, or two."""
  cells = [cell for row in rows for cell in row]
  if len(rows[0]) % 2 or not all(cell.lstrip('+-').isdecimal() for cell in cells):
    return
  decimals = [cell for row in rows for cell in row[1::2]]
  if path.lower().endswith('.tsv') or any(len(c) > 1 and c.startswith('0') for c in decimals):
    raise InputError(
      f'{path}: its commas may be decimal commas or separate numbers; separate columns by '
      'semicolons or tabs'
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
