"""Cells of tables as numbers or as moments."""

import dataclasses
import re

import numpy as np

# What programs write where a number is missing: Arrow's list.
NO_NUMBER = (
  *('', 'NA', 'N/A', 'n/a', '#N/A', '#N/A N/A', '#NA', 'NULL', 'null', 'NaN', 'nan', '-NaN'),
  *('-nan', '1.#IND', '-1.#IND', '1.#QNAN', '-1.#QNAN'),
)
# What separates thousands beside points and commas: apostrophes and spaces; and a minus sign.
_SPACES = "'\u2019 \u00a0\u2009\u202f"
_MINUS = '\u2212'
_SPACED = f'[1-9][0-9]{{0,2}}(?:[{_SPACES}][0-9]{{3}})+'
_NUMBER = re.compile(
  rf'[+{_MINUS}-]?(?:(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?|inf|infinity|nan|{_SPACED}(?:[.,]\d*)?'
  r'|\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?:\.\d{3})+(?:,\d*)?)',
  re.IGNORECASE | re.ASCII,
)
_CLOCK = re.compile(r'\d{1,2}:\d\d(:\d\d([.,]\d+)?)?')
_DATE = re.compile(r'\d{4}-\d\d-\d\d.*')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
  """How numbers are written: their decimal mark, and what separates thousands ('' for nothing)."""

  decimal: str = '.'
  groups: str = ''


def is_number(cell: str) -> bool:
  """Whether a cell holds a number, with one mark or another, or stands for none."""
  cell = cell.strip()
  return cell in NO_NUMBER or bool(_NUMBER.fullmatch(cell))


def is_moment(cell: str) -> bool:
  """Whether a cell holds a date or a time of day."""
  return bool(_CLOCK.fullmatch(cell) or _DATE.fullmatch(cell))


def as_text(column):
  """An Arrow column of text or bytes as stripped text, null where no number is written.

  Apostrophes and spaces between the thousands of a number are left out.

  Returns:
    An Arrow column; None for columns of another type, and for bytes that are no text.
  """
  import pyarrow
  from pyarrow import compute

  if not (pyarrow.types.is_binary(column.type) or _is_text(column.type)):
    return None
  try:
    text = compute.utf8_trim_whitespace(column.cast(pyarrow.string()))
  except pyarrow.ArrowException:
    return None
  is_ascii = compute.all(compute.string_is_ascii(text), min_count=0).as_py()
  if not is_ascii:
    text = compute.replace_substring(text, _MINUS, '-')
  if not is_ascii or any(holds(text, mark) for mark in "' "):
    spaced = compute.match_substring_regex(text, f'^[+-]?{_SPACED}(?:[.,][0-9]*)?$')
    bare = compute.replace_substring_regex(text, f'[{_SPACES}]', '')
    text = compute.if_else(spaced, bare, text)
  empty = compute.is_in(text, value_set=pyarrow.array(NO_NUMBER))
  return compute.if_else(empty, pyarrow.scalar(None, pyarrow.string()), text)


def holds(text, mark: str) -> bool:
  """Whether any cell of an Arrow column holds a mark."""
  from pyarrow import compute

  return bool(compute.any(compute.match_substring(text, mark)).as_py())


def numbers(column, marks: Marks = Marks()) -> np.ndarray:
  """An Arrow column as float64, NaN where no number is written.

  Raises:
    pyarrow.ArrowException: a cell is not a number with these marks.
  """
  import pyarrow

  text = as_text(column)
  if text is not None:
    return numbers_of(text, marks)
  return column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def numbers_of(text, marks: Marks) -> np.ndarray:
  """What `as_text` gives as float64; ArrowException as for `numbers`."""
  import pyarrow
  from pyarrow import compute

  text = compute.utf8_ltrim(text, '+')
  if marks.groups:
    text = compute.replace_substring(text, marks.groups, '')
  if marks.decimal != '.':
    text = compute.replace_substring(text, marks.decimal, '.')
  return text.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def seconds(column) -> np.ndarray | None:
  """An Arrow column of timestamps, ISO dates with times, or times of day, in seconds.

  Returns:
    float64 [rows], counted from the first row, NaN where a cell is empty; None where the
    column holds anything else.
  """
  import pyarrow
  from pyarrow import compute

  try:
    text = as_text(column)
    if text is not None:
      column = _moments(text)
    elif not pyarrow.types.is_timestamp(column.type):
      return None
    ticks = column.cast(pyarrow.timestamp('ns'), safe=False).cast(pyarrow.int64())
    first = next((tick.as_py() for tick in ticks if tick.is_valid), 0)
    since = compute.subtract(ticks, first).cast(pyarrow.float64(), safe=False)
    return since.to_numpy(zero_copy_only=False) / 1e9
  except (pyarrow.ArrowException, ValueError):
    return None


def _is_text(kind) -> bool:
  import pyarrow

  return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _moments(text):
  """Text as timestamps; ArrowException or ValueError where it is none."""
  import pyarrow
  from pyarrow import compute

  first = next((cell.as_py() for cell in text if cell.is_valid), '')
  text = compute.replace_substring(text, ',', '.')
  if _CLOCK.fullmatch(first):
    text = compute.binary_join_element_wise('1970-01-01T', text, '')
    text = compute.replace_substring_regex(text, r'T(\d):', r'T0\1:')
  elif not _DATE.fullmatch(first):
    raise ValueError('no dates')
  # Zones would have to be in every cell or in none; only differences count.
  text = compute.replace_substring_regex(text, r'(Z|[+-]\d\d:?\d\d)$', '')
  return text.cast(pyarrow.timestamp('ns'))
