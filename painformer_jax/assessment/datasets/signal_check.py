"""Describes what is wrong with a recorded signal, and with a table of signals."""

from collections.abc import Iterator

import numpy as np

from painformer_jax.assessment.datasets.recordings import Finding, Locator, read_table
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.quality import QualityRules, examine

CLIPPED_SHARE = 0.01  # Share of a signal above which clipping is reported.


def troubles(signal: np.ndarray, rules: QualityRules) -> tuple[str, ...]:
  """What is wrong with one signal, worst first; nothing if it is sound.

  Args:
    signal: real [n].
    rules: when a flat signal is a fault.
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
  try:
    table = read_table(place)
  except InputError as error:
    yield Finding(what=str(error))
    return
  where = str(place.path)
  missing = [name for name in place.columns if name not in table.names]
  if missing:
    yield Finding(
      where=where, what=f'no column {", ".join(missing)}; it has {", ".join(table.names)[:80]}'
    )
  if abs(len(table) - rows) > tolerance:
    yield Finding(where=where, what=f'{len(table)} rows, not {rows}')
  for name in place.columns:
    if name in table.names:
      for trouble in troubles(table.array[:, table.names.index(name)], QualityRules()):
        yield Finding(where=where, what=f'{name}: {trouble}')
