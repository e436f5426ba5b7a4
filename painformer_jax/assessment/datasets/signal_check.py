"""What is wrong with a recorded signal and with a table of them, in words."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.recordings import Finding, read_table
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.quality import QualityRules, examine

CLIPPED_SHARE = 0.01  # Of a signal, above which it is worth a finding.


def troubles(signal: np.ndarray, rules: QualityRules) -> tuple[str, ...]:
  """What is wrong with one signal in words, worst first; none if it is sound.

  Args:
    signal: real [n].
    rules: by which a signal may be flat.
  """
  found, words = examine(signal, rules=rules), []
  if found.missing == 1:
    return ('no finite value',)
  if 'flat' in found.fatal:
    words.append('flat')
  if found.missing:
    words.append(f'{round(found.missing * found.samples)} of {found.samples} values are no number')
  if found.clipped > CLIPPED_SHARE:
    words.append(f'clipped: {found.clipped:.0%} of it lies at its limits')
  return tuple(words)


def table_findings(
  path: Path, *, delimiter: str, columns: Sequence[str], rows: int, tolerance: int, signals: bool
) -> Iterator[Finding]:
  """What is wrong with a table of one sample's signals.

  Args:
    path: of the table.
    delimiter: between its cells.
    columns: that it should have, among others.
    rows: how many it should have, give or take `tolerance`.
    tolerance: of the number of rows.
    signals: whether to examine the values too.
  """

  def finding(what: str) -> Finding:
    return Finding(where=str(path), what=what)

  try:
    if signals:
      table = read_table(path, delimiter=delimiter)
      header, count = table.columns, len(table.values)
    else:
      header, count = _shape(path, delimiter)
  except InputError as error:
    yield finding(str(error).removeprefix(f'{path}').lstrip(', '))
    return
  missing = [name for name in columns if name not in header]
  if missing:
    yield finding(f'no column {", ".join(missing)}; it has {", ".join(header)[:80]}')
  if abs(count - rows) > tolerance:
    yield finding(f'{count} rows, not {rows}')
  if signals:
    for name in columns:
      if name in header:
        for trouble in troubles(table.values[:, header.index(name)], QualityRules()):
          yield finding(f'{name}: {trouble}')


def _shape(path: Path, delimiter: str) -> tuple[tuple[str, ...], int]:
  """Column names and number of rows, without reading any number."""
  try:
    content = path.read_bytes()
    first, _, rest = content.removeprefix(b'\xef\xbb\xbf').partition(b'\n')
    header = tuple(name.strip().strip('"') for name in first.decode().split(delimiter))
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is no table of text: {error}') from error
  rest = rest.rstrip()
  return header, rest.count(b'\n') + 1 if rest else 0
