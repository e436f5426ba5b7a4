"""Reads tables: delimited text (CSV, TSV) and Parquet, row by row or as columns of numbers.

Text is UTF-8, with or without a byte order mark. Cells may be quoted. Tabs separate the
cells of .tsv files; for other text, unless the caller says what separates them, it is the
one of comma, semicolon and tab that occurs most often in the first line.
"""

import csv
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painformer_jax.core.errors import InputError

SUFFIXES = ('.csv', '.tsv', '.parquet')
# What programs write where a number is missing: Arrow's list.
_NO_NUMBER = (
  *('', 'NA', 'N/A', 'n/a', '#N/A', '#N/A N/A', '#NA', 'NULL', 'null', 'NaN', 'nan', '-NaN'),
  *('-nan', '1.#IND', '-1.#IND', '1.#QNAN', '-1.#QNAN'),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
  """One row of a table, as text.

  Attributes:
    file: path of the table.
    number: of the row. In text the header is row 1, as a spreadsheet shows it; in
      Parquet the first row is row 1.
    cells: how many cells the row has.
    values: column name -> text, stripped; '' or absent where the row has no value.
  """

  file: str
  number: int
  cells: int
  values: Mapping[str, str]

  @property
  def where(self) -> str:
    """The file and the row's number, for messages."""
    return f'{self.file}, row {self.number}'

  def __getitem__(self, column: str) -> str:
    return self.values.get(column, '')

  def required(self, column: str) -> str:
    """The column's text; InputError where it is empty."""
    value = self[column]
    if not value:
      raise InputError(f"{self.where}: '{column}' is empty")
    return value

  def number_of(self, column: str) -> float | None:
    """The column's number, None where it is empty; InputError for other text."""
    text = self[column]
    if not text:
      return None
    try:
      return float(text)
    except ValueError:
      raise InputError(f"{self.where}: '{column}' is {text!r}, not a number") from None


def read_rows(
  path: str | Path,
  *,
  required: Sequence[str] = (),
  header: Sequence[str] | None = None,
  delimiter: str | None = None,
  encoding_errors: str = 'strict',
  ragged: bool = False,
) -> Iterator[TableRow]:
  """Yields a table's rows.

  Text may have spaces after its delimiters and one more delimiter at the end of its
  lines. Names of columns are found in any case. Empty rows are left out, but numbered.

  Args:
    path: .csv, .tsv or .parquet.
    required: columns that must be there.
    header: the columns' names for text files that may come without a header:
      where the first row names none of them, it is data.
    delimiter: between the cells of text; None to find it out.
    encoding_errors: what becomes of text that is not UTF-8, as for `open`.
    ragged: whether a row may have more values than there are columns; those beyond
      the last column are left out (`TableRow.cells` counts them).

  Raises:
    InputError: the file cannot be read, is of another type, lacks a required
      column, names a column twice, or a row has more values than columns.
  """
  path = Path(path)
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    raise InputError(f'{path} is no table, only {", ".join(SUFFIXES)} files are read')
  if not path.is_file():
    raise InputError(f'there is no file {path}')
  if suffix == '.parquet':
    yield from _parquet_rows(path, required)
    return
  columns = None
  for number, fields in _lines(path, delimiter, encoding_errors):
    fields = [field.strip() for field in fields]
    if not any(fields):
      continue
    if columns is None:
      columns = _columns(path, fields, required, header)
      if header is None or _names_any(fields, header):
        continue
    cells = len(fields)
    if cells > len(columns) and not any(fields[len(columns) :]):
      cells = len(columns)
    if cells > len(columns) and not ragged:
      raise InputError(
        f'{path}, row {number}: {cells} values in {len(columns)} '
        'columns; quote the values that contain the separator'
      )
    yield TableRow(
      file=str(path), number=number, cells=cells, values=dict(zip(columns, fields[:cells]))
    )
  if columns is None:
    raise InputError(f'{path} is empty')


def column_names(path: str | Path, *, delimiter: str | None = None) -> tuple[str, ...]:
  """Cells of the first line of a text table, stripped; () where there is none.

  Raises:
    InputError: the file cannot be read.
  """
  _, fields = next(_lines(path, delimiter), (1, ()))
  return tuple(field.strip() for field in fields)


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
  delimiter = delimiter or _delimiter(path, first)
  names = next(csv.reader([first], delimiter=delimiter, skipinitialspace=delimiter != '\t'))
  if header or not all(map(_is_number, names)):
    return delimiter, names, number + 1
  return delimiter, [f'f{n}' for n in range(len(names))], number


def _first_fault(
  path: str, delimiter: str, columns: int, first_row: int, *, numbers: bool
) -> InputError | None:
  """What is wrong with the first line of another length, or with text among the numbers."""
  for number, fields in _lines(path, delimiter):
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


def _delimiter(path: str | Path, first: str) -> str:
  return '\t' if str(path).lower().endswith('.tsv') else max(',;\t', key=first.count)


def _lines(
  path: str | Path, delimiter: str | None, encoding_errors: str = 'strict'
) -> Iterator[tuple[int, list[str]]]:
  """Numbers, from 1, and cells of the rows of a text table."""
  try:
    with open(path, newline='', encoding='utf-8-sig', errors=encoding_errors) as file:
      if delimiter is None:
        delimiter = _delimiter(path, file.readline())
        file.seek(0)
      reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != '\t')
      yield from enumerate(reader, start=1)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except (UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path} is no table of text: {error}') from error


def _names_any(fields: Sequence[str], header: Sequence[str]) -> bool:
  return bool({f.casefold() for f in fields} & {h.casefold() for h in header})


def _columns(
  path: Path, fields: list[str], required: Sequence[str], header: Sequence[str] | None
) -> list[str]:
  """Names of the columns, the required and known ones spelt as asked for."""
  if header is not None and not _names_any(fields, header):
    return list(header)
  spelling = {name.casefold(): name for name in (*(header or ()), *required)}
  # A comma at the end of the header makes a column without a name.
  while fields and not fields[-1]:
    fields = fields[:-1]
  columns = [spelling.get(f.casefold(), f.casefold()) for f in fields]
  twice = sorted({c for c in columns if c and columns.count(c) > 1})
  if twice:
    raise InputError(f"{path} has two columns '{twice[0]}'")
  missing = [name for name in required if name not in columns]
  if missing:
    raise InputError(f"{path} has no column '{missing[0]}' (there: {', '.join(columns)})")
  return columns


def _parquet_rows(path: Path, required: Sequence[str]) -> Iterator[TableRow]:
  import pyarrow
  import pyarrow.parquet

  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      columns = _columns(path, list(file.schema_arrow.names), required, None)
      number = 0
      for batch in file.iter_batches():
        for values in zip(*(column.to_pylist() for column in batch.columns)):
          number += 1
          yield TableRow(
            file=str(path),
            number=number,
            cells=len(values),
            values={c: '' if v is None else str(v).strip() for c, v in zip(columns, values)},
          )
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error}') from error
  except pyarrow.ArrowException as error:
    raise InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
