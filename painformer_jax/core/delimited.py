"""Tables that come with datasets: CSV, TSV and Parquet, row by row."""

import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError

SUFFIXES = ('.csv', '.tsv', '.parquet')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
  """One row of a table.

  Attributes:
    where: the file and the row's number for messages; in text the header is
      row 1, as a spreadsheet shows it, in Parquet the first row is row 1.
    values: column name -> text, stripped; '' where the row has no value.
  """

  where: str
  values: Mapping[str, str]

  def __getitem__(self, column: str) -> str:
    return self.values.get(column, '')

  def required(self, column: str) -> str:
    """The column's text; InputError where it is empty."""
    value = self[column]
    if not value:
      raise InputError(f"{self.where}: '{column}' is empty")
    return value

  def number(self, column: str) -> float | None:
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
  encoding_errors: str = 'strict',
) -> Iterator[Row]:
  """Yields a table's rows.

  Text may have spaces after its commas, quoted values, a byte order mark, a
  comma at the end of its lines, and semicolons or tabs in the place of commas. Columns
  are found in any case. Empty rows are passed over, their numbers counted.

  Args:
    path: .csv, .tsv or .parquet.
    required: columns that must be there.
    header: the columns' names for text files that may come without a header:
      where the first row names none of them, it is data.
    encoding_errors: what becomes of text that is not UTF-8, as for `open`.

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
  try:
    if suffix == '.parquet':
      yield from _parquet_rows(path, required)
    else:
      yield from _text_rows(path, required, header, encoding_errors)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path} cannot be read: {error}') from error


def _text_rows(
  path: Path, required: Sequence[str], header: Sequence[str] | None, encoding_errors: str
) -> Iterator[Row]:
  with open(path, newline='', encoding='utf-8-sig', errors=encoding_errors) as file:
    first = file.readline()
    file.seek(0)
    if path.suffix.lower() == '.tsv':
      delimiter = '\t'
    else:
      delimiter = ',' if ',' in first else next((d for d in ';\t' if d in first), ',')
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != '\t')
    columns = None
    for number, fields in enumerate(reader, start=1):
      fields = [field.strip() for field in fields]
      if not any(fields):
        continue
      if columns is None:
        columns = _columns(path, fields, required, header)
        if header is None or _names_any(fields, header):
          continue
      if len(fields) > len(columns) and not any(fields[len(columns) :]):
        del fields[len(columns) :]
      if len(fields) > len(columns):
        raise InputError(
          f'{path}, row {number}: {len(fields)} values in {len(columns)} '
          'columns; quote the values that contain the separator'
        )
      yield Row(where=f'{path}, row {number}', values=dict(zip(columns, fields)))
  if columns is None:
    raise InputError(f'{path} is empty')


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


def _parquet_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
  # Slow to import; tensorflow-datasets installs it.
  import pyarrow
  import pyarrow.parquet

  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      columns = _columns(path, list(file.schema_arrow.names), required, None)
      number = 0
      for batch in file.iter_batches():
        for values in zip(*(column.to_pylist() for column in batch.columns)):
          number += 1
          yield Row(
            where=f'{path}, row {number}',
            values={c: '' if v is None else str(v).strip() for c, v in zip(columns, values)},
          )
  except pyarrow.ArrowException as error:
    raise InputError(f'{path} is damaged: {str(error).splitlines()[0]}') from error
