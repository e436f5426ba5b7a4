"""What is wrong with a recorded signal and with a table of them, in words."""

from collections.abc import Iterator

import numpy as np

from painformer_jax.assessment.datasets.recordings import Finding, Locator, read_table
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


def table_findings(place: Locator, *, rows: int, tolerance: int) -> Iterator[Finding]:
  """What is wrong with a table of one sample's signals, and with their values.

  Args:
    place: of the table, with the columns that it should have, among others.
    rows: how many it should have, give or take `tolerance`.
    tolerance: of the number of rows.
  """

  def finding(what: str) -> Finding:
    return Finding(where=str(place.path), what=what)

  try:
    table = read_table(place)
  except InputError as error:
    yield finding(str(error).removeprefix(f'{place.path}').lstrip(', '))
    return
  missing = [name for name in place.columns if name not in table.names]
  if missing:
    yield finding(f'no column {", ".join(missing)}; it has {", ".join(table.names)[:80]}')
  if abs(len(table) - rows) > tolerance:
    yield finding(f'{len(table)} rows, not {rows}')
  for name in place.columns:
    if name in table.names:
      for trouble in troubles(table.array[:, table.names.index(name)], QualityRules()):
        yield finding(f'{name}: {trouble}')
