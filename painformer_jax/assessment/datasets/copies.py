"""Finds recordings that occur more than once in a study, under whatever name.

Signals and clips are compared by what they hold, see `signal_matches` and `clip_matches`;
clips, images and folders of images also byte by byte.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.clip_matches import ClipMatches
from painformer_jax.assessment.datasets.recordings import Copies, Finding, Sample, named
from painformer_jax.assessment.datasets.signal_matches import SignalMatches
from painformer_jax.core.errors import InputError
from painformer_jax.core.number_table import NumberTable

_EDGE = 65536  # Bytes at each end that are compared before whole files are.
# Changes of value that a table needs if another that is equal to it is to be its copy.
_CHANGES = 100
# Pairs of the same two people that are listed one by one.
_LISTED = 20

_Recording = tuple[str, str]  # Name of a sample, and the source.


class CopyFinder:
  """Takes the recordings of a study one by one, and tells which of them are copies."""

  def __init__(self):
    self._signals, self._clips = SignalMatches(), ClipMatches()
    self._digests: dict[str, str] = {}
    self._tables: dict[tuple, list[_Recording]] = collections.defaultdict(list)
    self._files: dict[tuple, list[tuple[_Recording, Path]]] = collections.defaultdict(list)

  def add_signal(self, sample: Sample, source: str, channels: np.ndarray) -> None:
    """Adds a signal of a sample.

    Args:
      sample: of the study.
      source: the modality.
      channels: real [channels, n], as `load_channels` gives them. Those that change a few
        times only, such as an oxygen saturation, are alike by chance and are not compared.
    """
    best = max(channels, key=lambda values: len(np.unique(values[np.isfinite(values)])))
    self._signals.add((sample.name, source), best, kind=source)

  def add_table(self, sample: Sample, source: str, table: NumberTable, column: int) -> None:
    """Adds a signal by the whole table that it is a column of, which may be a copy."""
    if table.path not in self._digests:
      self._digests[table.path] = _table_digest(table)
    if digest := self._digests[table.path]:
      self._tables[source, digest, column].append((sample.name, source))

  def add_clip(self, sample: Sample, source: str, thumbnails: np.ndarray) -> None:
    """Adds a video by its thumbnails, see `clip_check.ClipState`."""
    self._clips.add((sample.name, source), thumbnails)

  def add_file(self, sample: Sample, source: str, path: Path) -> None:
    """Adds a file or a folder of images; one that is missing is passed over."""
    state = _size(path)
    if state is not None:
      self._files[source, state].append(((sample.name, source), path))

  def copies(self) -> list[Copies]:
    """Every recording that occurs more than once, in the order of their first samples."""
    groups: dict[_Recording, list[_Recording]] = {}
    pairs = itertools.chain(
      self._signals.pairs(), self._clips.pairs(), self._same_tables(), self._same_files()
    )
    for one, other in pairs:
      mine, theirs = groups.setdefault(one, [one]), groups.setdefault(other, [other])
      if mine is not theirs:
        mine.extend(theirs)
        for each in theirs:
          groups[each] = mine
    return [
      Copies(recordings=tuple(group))
      for group in {id(group): group for group in groups.values()}.values()
    ]

  def _same_tables(self) -> Iterator[tuple[_Recording, _Recording]]:
    for first, *others in self._tables.values():
      yield from ((first, other) for other in others)

  def _same_files(self) -> Iterator[tuple[_Recording, _Recording]]:
    for entries in self._files.values():
      for edge in (_EDGE, None):
        alike = collections.defaultdict(list)
        for entry in entries if len(entries) > 1 else ():
          if (digest := _digest(entry[1], edge)) is not None:
            alike[digest].append(entry)
        same = [group for group in alike.values() if len(group) > 1]
        entries = list(itertools.chain(*same))
      for group in same:
        yield from ((group[0][0], other) for other, _ in group[1:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Line:
  """Two samples that have recordings in common: (source of one, of the other), and groups."""

  one: Sample
  other: Sample
  sources: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  copies: list[Copies] = dataclasses.field(default_factory=list)


def findings(
  copies: Iterable[Copies], samples: Sequence[Sample], *, beside: Sequence[Finding] = ()
) -> Iterator[Finding]:
  """Copies as findings, one for each sample that is a copy of an earlier one.

  Of very many between the same two people the rest is one finding.

  Args:
    copies: from `CopyFinder`.
    samples: of the study.
    beside: other findings. Of samples that are unusable for another reason, copies among
      the same person's samples are not reported too.
  """
  by_name = {sample.name: sample for sample in samples}
  order = {name: number for number, name in enumerate(by_name)}
  faulty = {name for finding in beside if finding.unusable for name in finding.samples}
  lines: dict[tuple[str, str], _Line] = {}
  for each in copies:
    first, *others = sorted(each.recordings, key=lambda r: (order[r[0]], r[1]))
    for number, other in enumerate(others):
      one, two = by_name[first[0]], by_name[other[0]]
      same = (one.subject, one.split) == (two.subject, two.split)
      if same and faulty & {one.name, two.name}:
        continue
      line = lines.setdefault((one.name, two.name), _Line(one=one, other=two))
      line.sources.append((first[1], other[1]))
      if not number or not line.copies:
        line.copies.append(each)
  people: dict[tuple, list[_Line]] = collections.defaultdict(list)
  for line in sorted(lines.values(), key=lambda x: (order[x.other.name], order[x.one.name])):
    key = (line.one.subject, line.one.split, line.other.subject, line.other.split)
    people[key].append(line)
  for (one, _, another, _), own in people.items():
    listed = own if len(own) <= _LISTED + 1 else own[:_LISTED]
    for line in listed:
      yield _finding([line], _said(line))
    if rest := own[len(listed) :]:
      whose = f'of {one}' if one == another else f'of {one} and of {another}'
      what = f'{len(rest):,} more such pairs {whose}, up to {rest[-1].other.name}'
      yield _finding(rest, what)


def _finding(lines: Sequence[_Line], what: str) -> Finding:
  last = lines[-1]
  return Finding(
    where=str(last.other.data[last.sources[0][1]].path),
    what=what,
    kind='duplicate',
    samples=tuple(dict.fromkeys(s.name for line in lines for s in (line.one, line.other))),
    copies=tuple(copies for line in lines for copies in line.copies),
  )


def _said(line: _Line) -> str:
  if line.one is line.other:
    names = dict.fromkeys(itertools.chain(*line.sources))
    return f'{" and ".join(names)} are the same signal'
  sources = dict.fromkeys(
    theirs if ours == theirs else f'its {theirs} is the {ours} there'
    for ours, theirs in line.sources
  )
  listed = named(list(sources), limit=5)
  return f'{line.other.name} is the same recording as {line.one.name} ({listed})'


def _table_digest(table: NumberTable) -> str:
  """Hash of all numbers of a table; '' if these hardly change."""
  try:
    values = np.ascontiguousarray(table.array + 0.0)
  except InputError:
    return ''  # A column is text.
  with np.errstate(invalid='ignore'):
    if np.count_nonzero(np.diff(values, axis=0)) < _CHANGES:
      return ''
  return hashlib.blake2b(values, digest_size=16).hexdigest()


def _paths(path: Path) -> list[Path]:
  return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> tuple | None:
  try:
    sizes = tuple(p.stat().st_size for p in _paths(path))
  except OSError:
    return None
  return sizes if any(sizes) else None


def _digest(path: Path, edge: int | None) -> str | None:
  """Hash of the files at a path, or of both ends of each; None where one cannot be read."""
  digest = hashlib.sha256()
  try:
    for each in _paths(path):
      with open(each, 'rb') as file:
        if edge is None:
          digest.update(hashlib.file_digest(file, 'sha256').digest())
          continue
        digest.update(file.read(edge))
        file.seek(max(each.stat().st_size - edge, 0))
        digest.update(file.read(edge))
  except OSError:
    return None
  return digest.hexdigest()
