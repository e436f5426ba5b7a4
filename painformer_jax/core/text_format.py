"""How a text file holds a table: its encoding, and what separates the cells.

Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32. Where a caller allows
it, other text is taken as Windows-1252, which contains Latin-1. The separator is the first
of tab, semicolon, comma and vertical bar by which all of the first lines have equally many
cells, two or more, and commas stand in cells only where they are part of a number. A first line
such as sep=; says it. Text may be compressed by gzip.
"""

import codecs
import csv
import dataclasses
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from painformer_jax.core.errors import InputError
from painformer_jax.core.number_cells import is_number

DELIMITERS = '\t;,|'
# At the beginning of a line that is a comment.
COMMENTS = ('#', '%')
# What reading of compressed files raises.
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
_HEAD_BYTES = 1 << 16
_HEAD_LINES = 100
# Compressed text is read up to this length, in bytes.
MOST_BYTES = 1 << 31
# UTF-32's mark begins with UTF-16's.
_MARKS = {
  codecs.BOM_UTF8: 'utf-8-sig',
  codecs.BOM_UTF32_LE: 'utf-32',
  codecs.BOM_UTF32_BE: 'utf-32',
  codecs.BOM_UTF16_LE: 'utf-16',
  codecs.BOM_UTF16_BE: 'utf-16',
}
# Control characters that text may contain: tab, line ends, page break, old end of file.
_TEXT_CONTROLS = b'\t\n\r\x0b\x0c\x1a'
_NO_TEXT = bytes(n for n in range(32) if n not in _TEXT_CONTROLS)
# How workbooks of Excel and OpenDocument begin.
_WORKBOOKS = (b'PK\x03\x04', b'\xd0\xcf\x11\xe0')
_WORKBOOK_SUFFIXES = ('.xlsx', '.xls', '.xlsm', '.xlsb', '.ods')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
  """How one file holds its table.

  Attributes:
    encoding: name of a Python codec.
    delimiter: between the cells, ' ' for any number of spaces; '' where the first lines have
      one cell each, or not equally many by any delimiter.
    head: the first lines that are not empty, without their ends.
  """

  encoding: str
  delimiter: str
  head: tuple[str, ...]

  @property
  def first(self) -> str:
    """The first line that is not empty; '' for none."""
    return self.head[0] if self.head else ''

  @property
  def likely_delimiter(self) -> str:
    """The delimiter, or the one that occurs most often in the first line."""
    return self.delimiter or max(',;\t|', key=self.first.count)


def is_workbook(path: str | Path) -> bool:
  """Whether a file is named as a workbook of Excel or OpenDocument is."""
  return str(path).lower().endswith(_WORKBOOK_SUFFIXES)


def open_binary(path: str | Path) -> BinaryIO:
  """Opens a file, decompressed where it was compressed by gzip.

  Raises:
    OSError: the file cannot be opened.
  """
  return gzip.open(path, 'rb') if is_compressed(path) else open(path, 'rb')  # type: ignore


def is_compressed(path: str | Path) -> bool:
  """Whether a file was compressed by gzip, by its first bytes."""
  with open(path, 'rb') as file:
    return file.read(2) == b'\x1f\x8b'


def read_bytes(path: str | Path) -> bytes:
  """All bytes of a file, decompressed.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is damaged, or longer than `MOST_BYTES`.
  """
  try:
    with open_binary(path) as file:
      content = file.read(MOST_BYTES + 1)
  except DAMAGED as error:
    raise InputError(f'{path} is damaged: {error}') from error
  if len(content) > MOST_BYTES:
    raise InputError(f'{path} has more than {MOST_BYTES >> 20:,} MiB of text: decompress it first')
  return content


def text_format(
  path: str | Path, *, delimiter: str | None = None, any_encoding: bool = False
) -> TextFormat:
  """Finds out how a file holds its table, from its first 64 KiB.

  Args:
    path: of the file.
    delimiter: where the caller knows it.
    any_encoding: whether text that is not Unicode is taken as Windows-1252.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is no text.
  """
  try:
    with open_binary(path) as file:
      head = file.read(_HEAD_BYTES)
      whole = not file.read(1)
  except DAMAGED as error:
    raise InputError(f'{path} is damaged: {error}') from error
  encoding = _encoding(path, head, any_encoding)
  lines = head.decode(encoding, errors='replace').splitlines()
  # A line cut in the middle has too few cells.
  lines = [line for line in (lines if whole else lines[:-1]) if line.strip()]
  first = lines[0] if lines else ''
  # What Excel reads and writes as a first line.
  excel = re.fullmatch(r'"?sep=([,;\t|])"?', first.strip('\r\n'), re.IGNORECASE)
  if delimiter is None and excel:
    delimiter = excel[1]
  if delimiter is None:
    cells = [line for line in lines if not line.lstrip().startswith(COMMENTS)][:_HEAD_LINES]
    cells = cells or lines
    # Tabs separate the cells of .tsv files, even where rows differ in length.
    is_tsv = str(path).lower().removesuffix('.gz').endswith('.tsv')
    has_tab = any('\t' in line for line in cells[:1])
    delimiter = '\t' if is_tsv and has_tab else dividing(cells) or '\t' * is_tsv
  return TextFormat(encoding=encoding, delimiter=delimiter, head=tuple(lines))


def _encoding(path: str | Path, head: bytes, any_encoding: bool) -> str:
  for mark, name in _MARKS.items():
    if head.startswith(mark):
      return name
  if zeros := head.count(0):
    # UTF-16 without a mark: every other byte of figures and Latin letters is zero.
    low, high = head[1::2].count(0), head[::2].count(0)
    if max(low, high) > 0.3 * len(head) and min(low, high) < 0.1 * zeros:
      return 'utf-16-le' if low > high else 'utf-16-be'
  if any_encoding and head.startswith(_WORKBOOKS):
    raise InputError(f'{path} is a workbook or an archive, no text: save its sheet as CSV')
  if any_encoding and head.translate(None, _NO_TEXT) != head:
    raise InputError(f'{path} is no table of text: it holds control characters')
  if not any_encoding:
    return 'utf-8-sig'
  try:
    codecs.getincrementaldecoder('utf-8')().decode(head)
    return 'utf-8-sig'
  except UnicodeDecodeError:
    try:
      head.decode('cp1252')
      return 'cp1252'
    except UnicodeDecodeError:
      return 'latin-1'


def dividing(lines: Sequence[str]) -> str:
  """The delimiter by which all lines have equally many cells; '' for none."""
  cells_by: dict[str, int] = {}
  for delimiter in DELIMITERS:
    try:
      rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != '\t'))
    except csv.Error:
      continue
    # Some programs end lines with a delimiter, the line of names not always.
    counts = {len(row) - (len(row) > 1 and not row[-1].strip()) for row in rows}
    if len(counts) > 1 or max(counts, default=0) < 2:
      continue
    cells_by[delimiter] = counts.pop()
    # A cell of a list, such as 1;2;3, divides lines evenly too, but leaves commas in words.
    values = (cell for row in rows[1:] or rows for cell in row if ',' in cell)
    if all(map(is_number, values)):
      return delimiter
  return max(cells_by, key=cells_by.__getitem__, default='')
