"""Tables for people: the only place that puts text into columns.

Tables are plain text, without lines or colours, so that a terminal, a pipe and a file
show the same.
"""

import io
from collections.abc import Collection, Sequence


def aligned(
  rows: Sequence[Sequence[str]], *, right: Collection[int] = (), indent: int = 0
) -> list[str]:
  """The lines of a table, its columns two spaces apart.

  Args:
    rows: cells of each row, the header's first if there is one; all rows have the same
      length.
    right: numbers of the columns that are aligned to the right, such as figures.
    indent: spaces before each line.

  Raises:
    ValueError: rows of different lengths.
  """
  # Imported here because it takes a while and most commands need no table.
  from rich.cells import cell_len
  from rich.console import Console
  from rich.table import Table
  from rich.text import Text

  if not rows:
    return []
  if len({len(row) for row in rows}) > 1:
    raise ValueError(f'rows of {sorted({len(row) for row in rows})} cells')
  table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
  for number in range(len(rows[0])):
    table.add_column(justify='right' if number in right else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*map(Text, row))
  # As wide as the table: a terminal wraps what it cannot show, and nothing is cut off.
  width = sum(max(map(cell_len, column)) + 2 for column in zip(*rows))
  console = Console(file=(file := io.StringIO()), width=width, color_system=None)
  console.print(table)
  return [(' ' * indent + line).rstrip() for line in file.getvalue().splitlines()]


def cut(text: str, width: int) -> str:
  """The text, or its beginning and '...', in at most `width` characters."""
  return text if len(text) <= width else text[: max(width - 3, 0)] + '...'
