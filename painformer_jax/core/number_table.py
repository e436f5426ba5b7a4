"""Reads columns of numbers from tables: delimited text and Parquet."""

import csv
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painformer_jax.core.delimited import delimiter_of, text_rows
from painformer_jax.core.errors import InputError

# What programs write where a number is missing: Arrow's list.
_NO_NUMBER = (
  *('', 'NA', 'N/A', 'n/a', '#N/A', '#N/A N/A', '#NA', 'NULL', 'null', 'NaN', 'nan', '-NaN'),
  *('-nan', '1.#IND', '-1.#IND', '1.#QNAN', '-1.#QNAN'),
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NumberTable:
  """A table whose columns are read as numbers when they are asked for.

  Attributes:
    path: of the file.
    names: of the columns, stripped.
    columns: the columns as Arrow arrays, of float64 or of text not yet converted.
    delimiter: between the cells of text.
    first_row: number of the line that holds the first row.
  """

  path: str
  names: tuple[str, ...]
  columns: Sequence[Any]
  delimiter: str | None
  first_row: int

  def __len__(self) -> int:
    return len(self.columns[0])

  def column(self, number: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start` to `stop` of a column.

    Args:
      number: of the column, from 0.
      start, stop: rows, from 0; a stop of None is the end.

    Returns:
      float64 [rows]; empty cells are NaN.

    Raises:
      InputError: a cell of these rows is not a number.
    """
    import pyarrow

    try:
      return _numbers(self.columns[number][start:stop])
    except pyarrow.ArrowException:
      raise InputError(f"{self.path}: column '{self.names[number]}' is not all numbers") from None

  @functools.cached_property
  def array(self) -> np.ndarray:
    """float64 [rows, columns], read-only; empty cells are NaN.

    Raises:
      InputError: a cell is not a number; names its line.
    """
    try:
      values = np.stack([self.column(n) for n in range(len(self.names))], axis=1)
    except InputError as error:
      fault = self.delimiter and _first_fault(
        self.path, self.delimiter, len(self.names), self.first_row, numbers=True
      )
      raise fault or error from None
    values.flags.writeable = False
    return values


def read_numbers(
  path: str | Path, *, delimiter: str | None = None, header: bool = True, only_numbers: bool = False
) -> NumberTable:
  """Reads a table whose columns hold numbers, or some of them.

  Args:
    path: .parquet, or any text.
    delimiter: between the cells of text; None to find it out.
    header: whether the first line of text surely names the columns; otherwise it does
      unless all its cells are numbers or empty.
    only_numbers: whether text in any column is an error already here.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is empty or damaged, or a line has too many or too few cells (names it).
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
    names, delimiter, first_row = table.column_names, None, 1
  else:
    delimiter, names, first_row = _head(path, delimiter, header)
    try:
      table = _text_columns(path, delimiter, count=len(names), skip=first_row - 1)
    except pyarrow.ArrowException as error:
      if not any(fields for number, fields in text_rows(path, delimiter) if number >= first_row):
        raise InputError(f'{path} has no rows below its line of names') from error
      fault = _first_fault(path, delimiter, len(names), first_row, numbers=False)
      raise fault or InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
  if not len(table):
    raise InputError(f'{path} has no rows below its line of names')
  result = NumberTable(
    path=path,
    names=tuple(name.strip() for name in names),
    columns=table.columns,
    delimiter=delimiter,
    first_row=first_row,
  )
  if only_numbers:
    result.array  # noqa: B018, converts all columns.
  return result


def _text_columns(path: str, delimiter: str, *, count: int, skip: int):
  """The columns as float64 where all cells are numbers, else as bytes."""
  import pyarrow
  import pyarrow.csv

  names = [str(number) for number in range(count)]
  for kind in (pyarrow.float64(), pyarrow.binary()):
    try:
      return pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=skip),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(
          column_types=dict.fromkeys(names, kind), null_values=_NO_NUMBER
        ),
      )
    except pyarrow.ArrowInvalid:
      if kind == pyarrow.binary():
        raise


def _numbers(column) -> np.ndarray:
  """An Arrow column as float64; ArrowException where a cell is not a number."""
  import pyarrow
  from pyarrow import compute

  if pyarrow.types.is_binary(column.type):
    text = compute.utf8_ltrim(compute.utf8_trim_whitespace(column.cast(pyarrow.string())), '+')
    empty = compute.is_in(text, value_set=pyarrow.array(_NO_NUMBER))
    column = compute.if_else(empty, pyarrow.scalar(None, pyarrow.string()), text)
  return column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def _head(path: str, delimiter: str | None, header: bool) -> tuple[str, list[str], int]:
  """Delimiter, names of the columns ('f0', ... where there are none), line of the first row."""
  with open(path, newline='', encoding='utf-8-sig', errors='replace') as file:
    lines = enumerate(file, start=1)
    number, first = next(((n, line) for n, line in lines if line.strip('\r\n')), (0, ''))
  if not first:
    raise InputError(f'{path} is empty')
  delimiter = delimiter or delimiter_of(path, first)
  names = next(csv.reader([first], delimiter=delimiter, skipinitialspace=delimiter != '\t'))
  if header or not all(map(_is_number, names)):
    return delimiter, names, number + 1
  return delimiter, [f'f{n}' for n in range(len(names))], number


def _first_fault(
  path: str, delimiter: str, columns: int, first_row: int, *, numbers: bool
) -> InputError | None:
  """What is wrong with the first line of another length, or with text among the numbers."""
  for number, fields in text_rows(path, delimiter):
    if number < first_row or not fields:
      continue
    if len(fields) != columns or (numbers and not all(map(_is_number, fields))):
      return InputError(
        f'{path}, line {number}: expected {columns} {"numbers" if numbers else "cells"}, '
        f'found {delimiter.join(fields)[:60]!r}'
      )
  return None


def _is_number(cell: str) -> bool:
  try:
    return cell.strip() in _NO_NUMBER or float(cell) is not None
  except ValueError:
    return False
