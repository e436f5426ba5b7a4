"""Which lines of a text table come before its numbers, and what they say.

Above the numbers may stand notes, comments, a line of names and a line of units. Numbers begin
at the first line that looks like the later ones. The names are the only line above that can be
names; where two can, the table is refused. Headers of OpenSignals and of Empatica's E4 are known.
"""

import collections
import dataclasses
import itertools
import json
import re
from collections.abc import Sequence

from painformer_jax.core.delimited import text_rows
from painformer_jax.core.errors import InputError
from painformer_jax.core.number_cells import NO_NUMBER, is_moment, is_number
from painformer_jax.core.text_format import COMMENTS, TextFormat

# Lines that are looked at.
_LINES = 100
# What Excel writes where it could not compute, such as #REF!.
_EXCEL = re.compile(r'#[A-Z/0-9]+[!?]')
_NO_UNIT = re.compile(r'raw|counts?|adc|no.?units?|unitless|none|-|%', re.IGNORECASE)
_UNIT = re.compile(
  r'(?:[numkM\u00b5\u03bc]|micro|milli)?'
  r'(?:V|volts?|S|siemens|s|secs?|seconds?|Hz|A|M|mol(?:ar|/l)?|g|Pa|Ohms?|\u03a9|\u2126|l|m)'
  r'|a\.?u\.?|A\.?U\.?|\u00b0?C|bpm|mmHg|%|raw|counts?|adc|m/s\^?2|no.?units?|unitless|none|-'
)
# Empatica's E4 writes the time of the start and the rate above the samples.
_UNIX_TIMES = (1e9, 2e9)
_MOST_HERTZ = 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
  """What stands above the numbers.

  Attributes:
    names: of the columns, not stripped of a last one that is ''; 'f0', 'f1', ... for none.
    named: whether the file names them.
    first_row: number of the line that holds the first numbers.
    units: of the columns, where a line states them.
    sensors: of the columns, where OpenSignals states them; '' for none.
    rate: that the file states, Hz; 0 for none.
    remarks: what was understood from the lines above, in words.
  """

  names: tuple[str, ...]
  named: bool
  first_row: int
  units: tuple[str, ...] = ()
  sensors: tuple[str, ...] = ()
  rate: float = 0.0
  remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Line:
  """One line: its number, from 1, and its cells, stripped."""

  number: int
  cells: list[str]

  @property
  def is_comment(self) -> bool:
    first = self.cells[0]
    return first.startswith(COMMENTS) and first not in NO_NUMBER and not _EXCEL.fullmatch(first)

  @property
  def filled(self) -> list[str]:
    """The cells without one at the end that is empty."""
    return self.cells[:-1] if len(self.cells) > 1 and not self.cells[-1] else self.cells


def read_head(path: str, layout: TextFormat, *, header: bool) -> Head:
  """The lines above the numbers.

  Args:
    path: of the file.
    layout: of its text.
    header: whether the first line that is no comment surely is above the numbers.

  Raises:
    InputError: the file is empty, two lines may name the columns, or commas between numbers
      may be decimal commas.
  """
  rows = text_rows(path, layout, encoding_errors='replace')
  read = (_Line(number=n, cells=[c.strip() for c in cells]) for n, cells in rows if cells)
  lines = list(itertools.islice(read, _LINES))
  comments = list(itertools.takewhile(lambda each: each.is_comment, lines))
  filled = [line for line in lines if any(line.cells) and not line.is_comment]
  if not filled:
    if comments:
      return _named(comments[-1], comment=True)
    raise InputError(f'{path} is empty')
  begin, width = _begin(filled), len(filled[0].cells)
  if begin == 0 and comments and len(_uncommented(comments[-1])) == width:
    return dataclasses.replace(_named(comments[-1], comment=True), first_row=filled[0].number)
  if begin == 0 and (header or _is_numbered(filled)):
    begin = 1
  above = filled[:begin]
  known = _open_signals(path, layout, filled, above=above)
  if known:
    return dataclasses.replace(known, first_row=_after(lines, filled, begin))
  if above:
    return _head_of(path, layout, lines, filled, begin, header=header)
  # Empty cells above names are layout, above numbers they are missing values.
  first = next(line for line in lines if not line.is_comment)
  names = tuple(f'f{n}' for n in range(width))
  if layout.likely_delimiter == ',':
    _refuse_decimal_commas(path, layout, filled)
  return _empatica(filled, names) or Head(names=names, named=False, first_row=first.number)


def _begin(lines: Sequence[_Line]) -> int:
  """Which line is the first of numbers; 1 where none is known by the later ones."""
  tail = lines[len(lines) // 2 :]
  width = collections.Counter(len(line.filled) for line in tail).most_common(1)[0][0]
  tail = [line for line in tail if len(line.filled) == width]
  kinds = [_kind([line.filled[n] for line in tail]) for n in range(width)]

  def fits(line: _Line) -> bool:
    cells = line.filled
    if len(cells) > width or len(cells) < width - 1:
      return False
    cells = cells + [''] * (width - len(cells))
    pairs = [(cell, kind) for cell, kind in zip(cells, kinds) if cell]
    return (
      any(kind == 'number' for _, kind in pairs)
      and all(is_number(cell) for cell, kind in pairs if kind == 'number')
      and all(is_moment(cell) for cell, kind in pairs if kind == 'moment')
    )

  if 'number' not in kinds:
    return 0 if all(map(is_number, lines[0].cells)) else 1
  return next((n for n, line in enumerate(lines) if fits(line)), 1)


def _kind(cells: Sequence[str]) -> str:
  """What most cells of a column are: 'number', 'moment', or '' for text or nothing."""
  cells = [cell for cell in cells if cell]
  for kind, is_kind in (('number', is_number), ('moment', is_moment)):
    if cells and 2 * sum(map(is_kind, cells)) >= len(cells):
      return kind
  return ''


def _is_numbered(lines: Sequence[_Line]) -> bool:
  """Whether a first line of numbers names the columns: names may be numbers that count."""
  first, second = lines[0].cells, lines[1].cells if len(lines) > 1 else []
  if not all(map(is_number, first)):  # Beside columns of text.
    numbers = [cell for cell in first if cell and is_number(cell)]
    return numbers == [str(n) for n in range(len(numbers))] and not any(map(is_moment, first))
  counted = [str(n) for n in range(len(first))]
  if len(first) > 1 and first == ['', *counted[:-1]]:
    return True
  whole = all(cell.lstrip('-').isdecimal() for cell in second)
  return len(first) > 2 and first == counted and not whole


def _head_of(
  path: str,
  layout: TextFormat,
  lines: Sequence[_Line],
  filled: Sequence[_Line],
  begin: int,
  *,
  header: bool,
) -> Head:
  """What the lines above the numbers say."""
  above = [_respaced(line, layout, filled[begin:]) for line in filled[:begin]]
  width = len(filled[begin].cells) if begin < len(filled) else len(above[-1].cells)
  units: tuple[str, ...] = ()
  last = above[-1]
  if len(above) > 1 and _are_units(last, width):
    units, above = tuple(last.cells + [''] * (width - len(last.cells))), above[:-1]
  trailing = begin < len(filled) and not filled[begin].cells[-1]
  able = [line for line in above if _can_name(line, {width, width - trailing})]
  if len(able) > 1:
    listed = ' and '.join(str(line.number) for line in able[:2])
    raise InputError(
      f'{path}: lines {listed} may both name the columns ({_shown(able[0])} and '
      f'{_shown(able[1])}, which are not all numbers): delete one'
    )
  names = able[0] if able else above[-1]
  below = [line for line in above if line.number > names.number]
  faulty = [line for line in below if not (units and _may_be_below(line, width))]
  if faulty:
    # Numbers with a fault among them, which are no notes.
    begin, above, units = filled.index(faulty[0]), above[: above.index(faulty[0])], ()
  if not header and (_are_digits(names) if able else _may_be_numbers(names)):
    raise InputError(
      f'{path}, line {names.number}: {_shown(names)} may be names or numbers; mend it, or name the '
      'columns in a line above'
    )
  cells = list(names.cells)
  if len(cells) == width + 1 and not cells[-1]:
    cells = cells[:-1]
  # Rows may end with a delimiter though the line of names does not.
  if len(cells) == width - 1 and trailing:
    cells.append('')
  remarks = []
  notes = [str(line.number) for line in above if line is not names]
  if notes:
    plural = 's' if len(notes) > 1 else ''
    place = notes[0] + (f' to {notes[-1]}' if plural else '')
    remarks.append(f'line{plural} {place} taken as notes')
  if units:
    remarks.append(f'line {last.number} taken as units ({", ".join(filter(None, units))})')
  return Head(
    names=tuple(cells),
    named=True,
    first_row=_after(lines, filled, begin),
    units=units,
    remarks=tuple(remarks),
  )


def _after(lines: Sequence[_Line], filled: Sequence[_Line], begin: int) -> int:
  """The line behind the last one above the numbers; lines of empty cells are numbers' lines."""
  if begin:
    end = filled[begin].number if begin < len(filled) else lines[-1].number + 1
    above = [line.number for line in lines if line.number < end and any(line.cells)]
    return above[-1] + 1
  return next(line.number for line in lines if not line.is_comment)


def _respaced(line: _Line, layout: TextFormat, numbers: Sequence[_Line]) -> _Line:
  """A line of names between which stand several spaces, while names hold single ones."""
  if layout.delimiter != ' ' or not numbers or len(line.cells) == len(numbers[0].cells):
    return line
  text = next((each for each in layout.head if each.split() == line.cells), '')
  cells = re.split(r'\t|\s{2,}', text.strip())
  return dataclasses.replace(line, cells=cells) if len(cells) == len(numbers[0].cells) else line


def _are_units(line: _Line, width: int) -> bool:
  cells = [cell.strip('[]() ') for cell in line.cells if cell]
  units = [cell for cell in cells if not _NO_UNIT.fullmatch(cell)]
  return len(line.filled) <= width and bool(units) and all(map(_UNIT.fullmatch, units))


def _can_name(line: _Line, widths: set[int]) -> bool:
  """Whether a line has a name for each column, each once, and no number."""
  cells = line.filled
  names = [cell for cell in cells if cell]
  return (
    bool({len(cells), len(line.cells)} & widths)
    and len(names) >= len(cells) - 1
    and len({*names}) == len(names)
    and not any(map(is_number, names))
  )


def _may_be_below(line: _Line, width: int) -> bool:
  """Whether a line may stand between names and numbers without being numbers with a fault."""
  return len(line.filled) <= width and not re.search(r'\d', ''.join(line.cells)) and width > 1


def _may_be_numbers(line: _Line) -> bool:
  """Whether a line holds what begins as a number and is neither a count nor a name of pandas."""
  return any(
    re.match(r'[+-]?[.,]?\d', cell)
    and not cell.isdecimal()
    and not ('.' in cell and cell.split('.')[0] in line.cells)
    for cell in line.cells
  )


def _are_digits(line: _Line) -> bool:
  """Whether a cell holds several numbers, as where a separator or a quote is wrong."""
  return any(re.fullmatch(r'[\d\s.,;|+-]*\d[\d\s.,;|+-]*', cell) for cell in line.cells)


def _shown(line: _Line) -> str:
  return repr(','.join(line.cells)[:40])


def _uncommented(line: _Line) -> list[str]:
  first = line.cells[0].lstrip('#% ')
  return [*([first] if first else []), *line.cells[1:]]


def _named(line: _Line, *, comment: bool) -> Head:
  cells = _uncommented(line) if comment else line.cells
  return Head(names=tuple(cells), named=True, first_row=line.number + 1)


def _open_signals(
  path: str, layout: TextFormat, filled: Sequence[_Line], *, above: Sequence[_Line]
) -> Head | None:
  """The header of OpenSignals: a line of JSON, device by device."""
  if above or not layout.first.lower().startswith('# opensignals'):
    return None
  try:
    text = next(line for line in layout.head if line.startswith('#') and '{' in line)
    devices = list(json.loads(text.lstrip('# ')).values())
    names = [str(name) for device in devices for name in device['column']]
    rates = {float(device['sampling rate']) for device in devices}
    sensors = [sensor for device in devices for sensor in _sensors(device)]
  except (StopIteration, ValueError, TypeError, KeyError, AttributeError):
    return None
  if len(rates) > 1:
    listed = ', '.join(f'{rate:g}' for rate in sorted(rates))
    raise InputError(f'{path}: its devices have several sampling rates ({listed} Hz)')
  cells = len(filled[-1].filled)
  if len(names) != cells:
    raise InputError(f'{path}: its header names {len(names)} columns, its lines have {cells}')
  rate = rates.pop()
  last = ('',) * (len(filled[-1].cells) - cells)
  return Head(
    names=tuple(names) + last,
    named=True,
    first_row=0,
    sensors=tuple(sensors) + last,
    rate=rate,
    remarks=(f'{rate:g} Hz by the header of OpenSignals',),
  )


def _sensors(device: dict) -> list[str]:
  """The sensor of each column of a device; '' where there is none."""
  kinds = dict(zip(map(str, device.get('label', ())), map(str, device.get('sensor', ()))))
  return [kinds.get(str(name), '') for name in device['column']]


def _empatica(lines: Sequence[_Line], names: tuple[str, ...]) -> Head | None:
  """The head of Empatica's E4: the start's Unix time, then the rate, the same in each column."""
  if len(lines) < 4 or any(len(line.filled) != len(lines[0].filled) for line in lines[:4]):
    return None
  start, rate, *after = ({_number(cell) for cell in line.filled} for line in lines[:4])
  if len(start) > 1 or len(rate) > 1:
    return None
  [began], [hertz] = start, rate
  low, high = _UNIX_TIMES
  is_known = low < began < high and 0 < hertz <= _MOST_HERTZ
  if not is_known or any(value >= low for values in after for value in values):
    return None
  return Head(
    names=names,
    named=False,
    first_row=lines[1].number + 1,
    rate=hertz,
    remarks=(
      f"{hertz:g} Hz by line {lines[1].number}, as in Empatica's files; the start at Unix time "
      f'{began:.0f} in line {lines[0].number} is left out',
    ),
  )


def _number(cell: str) -> float:
  try:
    return float(cell.replace(',', '.'))
  except ValueError:
    return float('nan')


def _refuse_decimal_commas(path: str, layout: TextFormat, lines: Sequence[_Line]) -> None:
  """Refuses '0,05' in lines without names: one number with a decimal comma, or two."""
  rows = [line.cells for line in lines]
  cells = [cell for row in rows for cell in row if cell]
  quoted = any('"' in line or ', ' in line or line.strip() == ',' for line in layout.head)
  if quoted or len(rows[0]) % 2 or not all(cell.lstrip('+-').isdecimal() for cell in cells):
    return
  decimals = [cell for row in rows for cell in row[1::2]]
  if not all(map(str.isdecimal, decimals)):
    return
  zeros = any(len(cell) > 1 and cell.startswith('0') for cell in decimals)
  counts = [int(row[0]) for row in rows if row[0]]
  steps = {after - before for before, after in itertools.pairwise(counts)}
  # Two columns, of which the first counts, cannot be one of numbers with decimals.
  counting = len(steps) == 1 and steps != {0}
  if zeros or path.lower().endswith('.tsv') or (len(rows[0]) == 2 and not counting):
    raise InputError(
      f'{path}: its commas may be decimal commas or separate numbers; separate columns by '
      'semicolons or tabs, or name them in the first line'
    )
