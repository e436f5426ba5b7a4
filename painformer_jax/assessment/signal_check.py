"""What can be wrong with a recorded signal and with a table of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.recordings import Finding, read_table
from painformer_jax.errors import InputError

# A signal that runs into its amplifier's limit stops there at once; one that turns
# slowly comes to its peak in the smallest steps of its digits.
CLIPPED_RUN = 5
CLIPPED_SHARE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
  """The state of one signal.

  Attributes:
    samples: how many.
    missing: how many are NaN or infinite.
    flat: all finite ones are equal (or there is none).
    clipped: share of the samples in runs of `CLIPPED_RUN` or more at the signal's
      maximum or minimum that begin or end with more than its smallest step.
  """

  samples: int
  missing: int
  flat: bool
  clipped: float

  @property
  def troubles(self) -> tuple[str, ...]:
    """In words, worst first; none if the signal is sound."""
    words = []
    if self.missing == self.samples:
      return ('no finite value',)
    if self.flat:
      words.append('flat')
    if self.missing:
      words.append(f'{self.missing} of {self.samples} values are no number')
    if self.clipped > CLIPPED_SHARE and not self.flat:
      words.append(f'clipped: {self.clipped:.0%} of it lies at its limits')
    return tuple(words)


def quality(signal: np.ndarray) -> Quality:
  """Examines one signal.

  Args:
    signal: real [n].
  """
  values = np.asarray(signal, np.float64)
  finite = np.isfinite(values)
  kept = values[finite]
  flat = kept.size == 0 or bool(kept.max() == kept.min())
  held = 0
  if not flat:
    held = sum(_held(kept, limit) for limit in (kept.min(), kept.max()))
  return Quality(samples=values.size, missing=int(values.size - kept.size), flat=flat,
                 clipped=held / max(values.size, 1))


def _held(values: np.ndarray, limit: float) -> int:
  """How many of a signal's samples lie in clipped runs at a limit."""
  edges = np.flatnonzero(np.diff(np.concatenate([[False], values == limit, [False]])))
  steps = np.abs(np.diff(values))
  smallest = steps[steps > 0].min()
  held = 0
  for start, stop in zip(edges[::2], edges[1::2]):
    beside = np.concatenate([steps[max(start - 1, 0):start], steps[stop - 1:stop]])
    if stop - start >= CLIPPED_RUN and beside.max() > 1.5 * smallest:
      held += int(stop - start)
  return held


def table_findings(
    path: Path, *, delimiter: str, columns: Sequence[str], rows: int, tolerance: int,
    signals: bool,
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
        for trouble in quality(table.values[:, header.index(name)]).troubles:
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
