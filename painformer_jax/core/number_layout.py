"""What separates the columns of a text of numbers, below notes and by spaces too."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError
from painformer_jax.core.number_cells import is_moment, is_number
from painformer_jax.core.text_format import COMMENTS, TextFormat, dividing, text_format


def holds_numbers(path: str | Path) -> bool:
  """Whether a text has a number in each of its last lines, as far as its beginning is read."""
  try:
    layout = number_layout(str(path), None)
  except (InputError, OSError):
    return False
  lines = [line for line in layout.head if not line.lstrip().startswith(COMMENTS)]
  mark = None if layout.likely_delimiter == ' ' else layout.likely_delimiter
  cells = [line.strip().split(mark) for line in lines[len(lines) // 2 :]]
  return bool(cells) and all(any(c.strip() and is_number(c) for c in line) for line in cells)


def number_layout(path: str, delimiter: str | None) -> TextFormat:
  """The format of a text; where its lines have one cell each, commas are decimal.

  Args:
    path: of the file.
    delimiter: between its cells; None to find it out, below notes too.

  Raises:
    OSError: the file cannot be opened.
    InputError: it is no text, or empty.
  """
  layout = text_format(path, delimiter=delimiter, any_encoding=True)
  if not layout.head:
    raise InputError(f'{path} is empty')
  if delimiter:
    return layout
  lines = [line for line in layout.head if not line.lstrip().startswith(COMMENTS)][:100]
  if _by_spaces(lines):
    return dataclasses.replace(layout, delimiter=' ')
  if layout.delimiter:
    return layout
  # Lines of names and numbers below notes.
  for start in range(1, len(lines) - 1):
    divided = dividing(lines[start:])
    names = [name.strip() for name in lines[start].split(divided)] if divided else []
    if names and not any(re.match(r'[+-]?[.,]?\d', name) for name in names):
      return dataclasses.replace(layout, delimiter=divided)
  if any(mark in layout.first for mark in ',;\t|'):
    return layout
  return dataclasses.replace(layout, delimiter=';')


def _by_spaces(lines: Sequence[str]) -> bool:
  """Whether spaces separate numbers, below lines of another kind."""
  if any(mark in line for line in lines for mark in '\t;|'):
    return False
  counts = [len(line.split()) if _are_spaced(line.split()) else 0 for line in lines]
  begin = next((n for n, count in enumerate(counts) if count), len(counts))
  below = set(counts[begin:])
  return begin <= len(lines) // 2 and len(below) == 1 and 0 not in below


def _are_spaced(cells: Sequence[str]) -> bool:
  """Whether cells are two or more numbers, dates or times, without commas between them."""
  return len(cells) > 1 and all(
    is_moment(cell) or (is_number(cell) and cell.strip(',') == cell) for cell in cells
  )
