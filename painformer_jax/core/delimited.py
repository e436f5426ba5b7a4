"""Reads tables row by row: delimited text (CSV, TSV) and Parquet.

Cells may be quoted. `text_format` says which encodings are read, and what separates the
cells where the caller does not. `number_table` reads columns of numbers by the same rules.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError
from painformer_jax.core.text_format import (
  DAMAGED,
  TextFormat,
  is_workbook,
  open_binary,
  text_format,
)

SUFFIXES = ('.csv', '.tsv', '.parquet')


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
    encoding_errors: what becomes of text that is not Unicode, as for `open`.
    ragged: whether a row may have more values than there are columns; those beyond
      the last column are left out (`TableRow.cells` counts them).

  Raises:
    InputError: the file cannot be read, is of another type, lacks a required
      column, names a column twice, or a row has more values than columns.
  """
  path = Path(path)
  suffix = path.suffix.lower()
  if is_workbook(path):
    raise InputError(f'{path} is a workbook: save its sheet as CSV')
  if suffix not in SUFFIXES:
    raise InputError(f'{path} is no table, only {", ".join(SUFFIXES)} files are read')
  if not path.is_file():
    raise InputError(f'there is no file {path}')
  if suffix == '.parquet':
    yield from _parquet_rows(path, required)
    return
  columns = None
  for number, fields in text_rows(path, _layout(path, delimiter), encoding_errors=encoding_errors):
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
  _, fields = next(text_rows(path, _layout(path, delimiter)), (1, ()))
  return tuple(field.strip() for field in fields)


def text_rows(
  path: str | Path, layout: TextFormat, *, encoding_errors: str = 'strict'
) -> Iterator[tuple[int, list[str]]]:
  """Yields the number, from 1, and the cells of each row of a text table.

  Raises:
    InputError: the file cannot be read or is not text.
  """
  delimiter = layout.likely_delimiter
  try:
    with io.TextIOWrapper(
      open_binary(path), newline='', encoding=layout.encoding, errors=encoding_errors
    ) as file:
      if delimiter == ' ':
        reader = (line.split() for line in file)
      else:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != '\t')
      for number, fields in enumerate(reader, start=1):
        if number > 1 or fields[:1] not in (['sep='], [f'sep={delimiter}']):
          yield number, fields
  except DAMAGED as error:
    raise InputError(f'{path} is damaged: {error}') from error
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except (UnicodeError, csv.Error) as error:
    raise InputError(f'{path} is no table of text: {error}') from error


def _layout(path: str | Path, delimiter: str | None) -> TextFormat:
  try:
    return text_format(path, delimiter=delimiter)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error


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
