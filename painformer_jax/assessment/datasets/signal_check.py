"""Describes what is wrong with a recorded signal, and with a table of signals."""

import collections
from collections.abc import Iterator, Mapping

import numpy as np

from painformer_jax.assessment.datasets.copies import CopyFinder
from painformer_jax.assessment.datasets.recordings import (
  Finding,
  Locator,
  Sample,
  read_table,
  table_faults,
)
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.quality import QualityRules, examine, fitted, is_slow

SHORTEST = 16  # Rows of a table of another length from which on its signals are looked at.
# A signal is faint if it is so many times weaker than the median of at least so many.
FAINT, COMPARED = 100.0, 8
CLIPPED_SHARE = 0.01  # Share of a signal above which clipping is reported.


def troubles(signal: np.ndarray, rules: QualityRules, *, where: str, name: str) -> list[Finding]:
  """What is wrong with one signal, worst first; nothing if it is sound.

  Args:
    signal: real [n].
    rules: what makes it unusable.
    where: the file.
    name: of the signal.
  """
  found = examine(signal, rules=rules)

  def finding(kind: str, what: str, trouble: str) -> Finding:
    return Finding(where=where, what=f'{name}: {what}', kind=kind, unusable=trouble in found.fatal)

  if found.missing == 1:
    return [finding('blank', 'no finite value', 'empty')]
  result = []
  if 'flat' in found.fatal:
    result.append(finding('flat', 'flat', 'flat'))
  if found.spikes:
    what = '1 value lies' if found.spikes == 1 else f'{found.spikes} values lie'
    odd = signal[np.argmax(np.abs(np.nan_to_num(signal - np.nanmedian(signal))))]
    result.append(finding('spike', f'{what} far beyond all others, such as {odd:g}', 'spike'))
  if found.held:
    what = f'held at one value for {found.held:.0%} of it'
    result.append(finding('flat', what, 'held'))
  if found.missing:
    count = round(found.missing * found.samples)
    what = f'{count} of {found.samples} values are no number'
    result.append(finding('blank', what, 'gaps'))
  # Saturation is a whole percentage, which looks clipped.
  if found.clipped > CLIPPED_SHARE and not rules.flat_between:
    what = f'clipped: {found.clipped:.0%} of it lies at its limits'
    result.append(finding('clipped', what, 'clipped'))
  return result


class Amplitudes:
  """Compares every signal with the others of the same channel.

  An electrode that is off may still give the noise of its converter. Such a signal is far
  weaker than the others of its channel, and unlike a weak one it holds nothing slow.
  """

  def __init__(self):
    self._noises: dict[str, list[tuple[Sample, str, float, bool]]] = collections.defaultdict(list)

  def add(self, sample: Sample, source: str, signal: np.ndarray, *, where: str) -> None:
    values = signal[np.isfinite(signal)]
    if len(values):
      low, high = np.percentile(values, (5, 95))
      self._noises[source].append((sample, where, float(high - low), is_slow(values)))

  def findings(self) -> Iterator[Finding]:
    """Signals in which nothing was recorded, as the others show."""
    for source, entries in self._noises.items():
      usual = float(np.median([spread for _, _, spread, _ in entries]))
      for sample, where, spread, slow in entries:
        if 0 < spread < usual / FAINT and not slow and len(entries) >= COMPARED:
          yield Finding(
            where=where,
            what=f'{source}: flat but for noise, {usual / spread:.0f} times weaker than usual',
            kind='flat',
            unusable=True,
            samples=(sample.name,),
            sources=(source,),
          )


def table_findings(
  sample: Sample,
  place: Locator,
  *,
  rules: Mapping[str, QualityRules],
  copies: CopyFinder,
  amplitudes: Amplitudes,
) -> Iterator[Finding]:
  """What is wrong with a table of one sample's signals, and with their values.

  Args:
    sample: whose table it is; a modality has one column.
    place: of the table, with all columns that it should have, among others.
    rules: modality -> what makes it unusable; the defaults where there are none.
    copies, amplitudes: get the signals.
  """
  try:
    table = read_table(place)
  except InputError as error:
    yield Finding(what=str(error), kind='damaged')
    return
  where, columns, missing = str(place.path), {}, []
  for name in place.columns:
    try:
      columns[name] = table.index(name)
    except InputError as error:
      if ' columns ' in str(error):  # Several have the name: which one is meant?
        yield Finding(what=str(error), kind='list', unusable=True)
      else:
        missing.append(name)
  if missing:
    what = f'no column {", ".join(missing)}; it has {", ".join(table.names)[:80]}'
    yield Finding(where=where, what=what, kind='missing')
  faults = table_faults(table, place, rows=len(table))
  yield from faults
  if any(fault.kind == 'length' for fault in faults) and len(table) < SHORTEST:
    return
  for name, column in columns.items():
    try:
      signal = table.column(column)[None]
    except InputError as error:
      yield Finding(what=str(error), kind='damaged')
      continue
    copies.add_table(sample, name, table, column)
    copies.add_signal(sample, name, signal)
    if abs(len(table) - place.rows) <= place.tolerance:
      signal = fitted(signal, place.rows)
    own = list(troubles(signal[0], rules.get(name, QualityRules()), where=where, name=name))
    if not own:
      amplitudes.add(sample, name, signal[0], where=where)
    yield from own
