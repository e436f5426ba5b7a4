"""Which marks the numbers of a table have: its decimal mark, and one that separates thousands.

A mark is decimal for sure in 0,5 and 1,25, and separates thousands for sure in 1,234.5 and
1,234,567. 1,234 may be either. What the other cells of its column say decides, then what the
whole table says; where neither does, the column is refused. One mark stands for one thing in a
column. Points are decimal where nothing speaks against it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from painformer_jax.core.number_cells import Marks, as_text, holds, is_number, numbers_of

MARKS = '.,'
# So many cells of a column tell quickly whether it holds text.
_SAMPLE = 100
_EXPONENT = r'(?:[eE][+-]?\d+)?'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unclear:
  """Numbers that can be read in two ways.

  Attributes:
    cell: the first of them.
    mark: what may be a decimal mark or separate thousands.
  """

  cell: str
  mark: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evidence:
  """What the cells of a column of numbers say.

  Attributes:
    decimal: marks that are decimal for sure.
    groups: marks that separate thousands for sure.
    unclear: mark -> first cell in which it may be either.
    ungrouped: whether numbers of four digits and more stand without a mark.
    short: whether numbers of one to three digits stand without a mark.
    is_sound: whether all cells are numbers; others tell nothing of other columns.
  """

  decimal: frozenset[str] = frozenset()
  groups: frozenset[str] = frozenset()
  unclear: dict[str, str] = dataclasses.field(default_factory=dict)
  ungrouped: bool = False
  short: bool = False
  is_sound: bool = True


def marks_of(columns: Sequence) -> list[Marks | Unclear | None]:
  """The marks of each column of a table.

  Args:
    columns: Arrow columns of text, or of bytes that are text; others hold no marks.

  Returns:
    For each column its marks, `Unclear`, or None where it begins with what is no number or
    holds marks that contradict one another. Other cells that are no numbers tell nothing.
  """
  found = [_evidence(column) for column in columns]
  decimal = frozenset().union(*(each.decimal for each in found if each and each.is_sound))
  groups = frozenset().union(*(each.groups for each in found if each and each.is_sound))
  return [each and _resolved(each, decimal, groups) for each in found]


def surely_decimal(values: np.ndarray) -> bool:
  """Whether the mark that float64 values were read with cannot separate thousands."""
  parts = values[np.isfinite(values) & (values != np.rint(values))]
  size = np.abs(parts)
  thousandths = size * 1000
  off = np.abs(thousandths - np.rint(thousandths)) > 1e-6 * thousandths
  return bool(((size < 1) | (size >= 1000) | off).any())


def _resolved(
  own: _Evidence, decimal: frozenset[str], groups: frozenset[str]
) -> Marks | Unclear | None:
  """The marks of one column, where the whole table has such marks for sure."""
  if len(own.decimal) > 1 or len(own.groups) > 1 or own.decimal & own.groups:
    return None
  for mark in own.decimal:
    other = _other(mark)
    if other in own.unclear and other not in groups:
      return Unclear(cell=own.unclear[other], mark=other)
    return Marks(decimal=mark, groups=other if other in own.unclear or own.groups else '')
  for mark in own.groups:
    return Marks(decimal=_other(mark), groups=mark)
  if len(own.unclear) > 1:
    mark, cell = next(iter(own.unclear.items()))
    return Unclear(cell=cell, mark=mark)
  for mark, cell in own.unclear.items():
    other = _other(mark)
    as_decimal, as_groups = mark in decimal or other in groups, mark in groups or other in decimal
    # Numbers below a thousand have no mark, all others have one.
    like_groups = own.short and not own.ungrouped
    if as_decimal and not as_groups:
      return Marks(decimal=mark)
    if as_groups and not as_decimal and (like_groups or mark in groups) and not own.ungrouped:
      return Marks(decimal=other, groups=mark)
    if mark == '.' and not (as_decimal or as_groups or like_groups):
      return Marks()
    return Unclear(cell=cell, mark=mark)
  return Marks()


def _other(mark: str) -> str:
  return MARKS[mark == MARKS[0]]


def _evidence(column) -> _Evidence | None:
  """What a column says; None where it is no column of numbers in text."""
  import pyarrow
  from pyarrow import compute

  sample = as_text(column.slice(0, _SAMPLE))
  cells = sample.drop_null().to_pylist() if sample is not None else ()
  if sample is None or (cells and not any(map(is_number, cells))):
    return None
  text = as_text(column)
  if text is None:
    return None
  # Most tables need no more.
  for mark in MARKS:
    try:
      values = numbers_of(text, Marks(decimal=mark))
    except pyarrow.ArrowException:
      continue
    if surely_decimal(values) and not holds(text, _other(mark)):
      return _Evidence(decimal=frozenset(mark))
  text = compute.utf8_ltrim(text.unique().drop_null(), '+-')
  left, decimal, groups, unclear = text, set(), set(), {}

  def taken(pattern: str):
    """The cells of a pattern, which are left out from here on."""
    nonlocal left
    fits = compute.match_substring_regex(left, f'^(?:{pattern})$')
    cells, left = left.filter(fits), left.filter(compute.invert(fits))
    return cells

  whole = taken(rf'\d+{_EXPONENT}')
  taken('(?i)nan|inf|infinity')
  for mark in MARKS:
    group = rf'[1-9]\d{{0,2}}(?:[{mark}]\d{{3}})'
    if len(cells := taken(group)):
      unclear[mark] = cells[0].as_py()
    if len(taken(group + '{2,}')):
      groups.add(mark)
    if len(taken(rf'{group}+[{_other(mark)}]\d*{_EXPONENT}')):
      groups.add(mark)
      decimal.add(_other(mark))
    if len(taken(rf'(?:\d+[{mark}]\d*|[{mark}]\d+){_EXPONENT}')):
      decimal.add(mark)
  lengths = compute.utf8_length(whole)
  is_short = compute.less(lengths, pyarrow.scalar(4, lengths.type))
  return _Evidence(
    decimal=frozenset(decimal),
    groups=frozenset(groups),
    unclear=unclear,
    ungrouped=not compute.all(is_short, min_count=0).as_py(),
    short=bool(compute.any(is_short).as_py()),
    is_sound=not len(left),
  )
