"""Cells of tables as numbers or as moments; Arrow columns in, Arrow columns out."""

import re

import numpy as np

# What programs write where a number is missing: Arrow's list.
NO_NUMBER = (
  *('', 'NA', 'N/A', 'n/a', '#N/A', '#N/A N/A', '#NA', 'NULL', 'null', 'NaN', 'nan', '-NaN'),
  *('-nan', '1.#IND', '-1.#IND', '1.#QNAN', '-1.#QNAN'),
)
# A column has decimal points or decimal commas.
DECIMALS = '.,'
_CLOCK = re.compile(r'\d{1,2}:\d\d(:\d\d([.,]\d+)?)?')
_DATE = re.compile(r'\d{4}-\d\d-\d\d.*')


def is_number(cell: str) -> bool:
  """Whether a cell holds a number, with a decimal point or comma, or stands for none."""
  cell = cell.strip()
  try:
    return cell in NO_NUMBER or float(cell if '.' in cell else cell.replace(',', '.')) is not None
  except ValueError:
    return False


def numbers(column) -> np.ndarray:
  """An Arrow column as float64, NaN where no number is written.

  Raises:
    pyarrow.ArrowException: a cell is not a number, or the column has decimal points and
      decimal commas.
  """
  import pyarrow
  from pyarrow import compute

  if pyarrow.types.is_binary(column.type) or pyarrow.types.is_string(column.type):
    column = compute.utf8_ltrim(_text(column), '+')
    if not compute.any(compute.match_substring(column, '.')).as_py():
      column = compute.replace_substring(column, ',', '.')
  return column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def seconds(column) -> np.ndarray | None:
  """An Arrow column of timestamps, ISO dates with times, or times of day, in seconds.

  Returns:
    float64 [rows], counted from the first row, NaN where a cell is empty; None where the
    column holds anything else.
  """
  import pyarrow
  from pyarrow import compute

  try:
    if pyarrow.types.is_binary(column.type) or pyarrow.types.is_string(column.type):
      column = _moments(_text(column))
    elif not pyarrow.types.is_timestamp(column.type):
      return None
    ticks = column.cast(pyarrow.timestamp('ns'), safe=False).cast(pyarrow.int64())
    first = next((tick.as_py() for tick in ticks if tick.is_valid), 0)
    since = compute.subtract(ticks, first).cast(pyarrow.float64(), safe=False)
    return since.to_numpy(zero_copy_only=False) / 1e9
  except (pyarrow.ArrowException, ValueError):
    return None


def _text(column):
  """A column as stripped text, null where no number is written."""
  import pyarrow
  from pyarrow import compute

  text = compute.utf8_trim_whitespace(column.cast(pyarrow.string()))
  empty = compute.is_in(text, value_set=pyarrow.array(NO_NUMBER))
  return compute.if_else(empty, pyarrow.scalar(None, pyarrow.string()), text)


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
