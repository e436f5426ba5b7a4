"""Rows of text under one another."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
  """Lines of the rows with their cells in columns, two spaces between.

  Args:
    rows: of one length.
    right: numbers of the columns that are aligned to the right, such as figures.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.rjust(width) if number in right else cell.ljust(width)
      for number, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  ]
