"""Finds recordings that occur more than once in a study, under whatever name.

Signals are compared by their values, so that a copy in another format, with other columns
beside it, or with some rows more or less is found. Videos and images are compared byte by
byte.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.recordings import (
  Copies,
  Finding,
  Sample,
  load_channels,
  named,
)
from painformer_jax.core.errors import InputError

# Numbers that stand for a signal: the smallest hashes of all its stretches of so many runs of
# equal values. Two signals that share a stretch share some of them.
_RUNS, _KEPT, _SHARED = 32, 16, 3
# A copy: so much of the shorter signal lies beside the other, and so much of that is equal.
_OVERLAP, _EQUAL = 0.5, 0.95
# Samples with the same hash that a new one is compared with.
_TRIED = 4
_WEIGHTS = np.random.default_rng(0).integers(1, 2**63, _RUNS, dtype=np.uint64) | np.uint64(1)
_EDGE = 65536  # Bytes at each end that are compared before whole files are.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Known:
  """A signal that was added, and where in it the stretches of its hashes begin."""

  sample: Sample
  places: dict[int, int]


class CopyFinder:
  """Takes the recordings of a study one by one, and tells which of them are copies."""

  def __init__(self):
    self._by_hash: dict[tuple, list[_Known]] = collections.defaultdict(list)
    self._files: dict[str, dict[tuple, list[tuple[Sample, Path]]]] = {}
    # (source, name of the first) -> samples with its recording.
    self._groups: dict[tuple[str, str], list[Sample]] = {}
    self._first: dict[tuple[str, str], str] = {}

  def add_signal(self, sample: Sample, source: str, channels: np.ndarray) -> None:
    """Adds a signal of a sample.

    Args:
      sample: of the study.
      source: the modality.
      channels: real [channels, n], as `load_channels` gives them. Signals of a few steps,
        such as an oxygen saturation, are alike by chance and are not compared.
    """
    places = _stretches(_finite(channels))
    if not places:
      return
    known = _Known(sample=sample, places=places)
    candidates: dict[int, tuple[_Known, int]] = {}
    for h in places:
      for other in self._by_hash[source, h][:_TRIED]:
        candidates[id(other)] = (other, candidates.get(id(other), (other, 0))[1] + 1)
    for other, shared in candidates.values():
      if shared >= min(_SHARED, len(places)) and self._same(known, other, source, channels):
        self._join(source, other.sample, sample)
        break
    for h in places:
      self._by_hash[source, h].append(known)

  def add_file(self, sample: Sample, source: str, path: Path) -> None:
    """Adds a video, an image or a folder of images; one that is missing is passed over."""
    state = _size(path)
    if state is not None:
      self._files.setdefault(source, {}).setdefault(state, []).append((sample, path))

  def copies(self) -> list[Copies]:
    """Every recording that occurs more than once."""
    for source, by_size in self._files.items():
      for entries in by_size.values():
        for read in (_edges, _content):
          if len(entries) < 2:
            break
          alike = collections.defaultdict(list)
          for sample, path in entries:
            if (digest := read(path)) is not None:
              alike[digest].append((sample, path))
          same = [group for group in alike.values() if len(group) > 1]
          entries = list(itertools.chain(*same))
        else:
          for group in same:
            for sample, _ in group[1:]:
              self._join(source, group[0][0], sample)
    self._files.clear()
    return [
      Copies(source=source, samples=tuple(s.name for s in group))
      for (source, _), group in self._groups.items()
    ]

  def _join(self, source: str, first: Sample, second: Sample) -> None:
    name = self._first.setdefault((source, first.name), first.name)
    self._first[source, second.name] = name
    group = self._groups.setdefault((source, name), [first])
    if second.name not in {s.name for s in group}:
      group.append(second)

  def _same(self, known: _Known, other: _Known, source: str, channels: np.ndarray) -> bool:
    """Whether two signals with a stretch in common are equal where they overlap."""
    try:
      theirs = _finite(load_channels(other.sample, source, checked=False)[0])
    except InputError:
      return False
    ours = _finite(channels)
    for h in known.places.keys() & other.places.keys():
      shift = known.places[h] - other.places[h]
      a, b = ours[max(shift, 0) :], theirs[max(-shift, 0) :]
      length = min(len(a), len(b))
      if length < _OVERLAP * min(len(ours), len(theirs)):
        continue
      if np.mean(a[:length] == b[:length]) >= _EQUAL:
        return True
    return False


def findings(
  copies: Iterable[Copies], samples: Sequence[Sample], *, beside: Sequence[Finding] = ()
) -> Iterator[Finding]:
  """Copies as findings, one for each pair of people (or of a person's splits).

  Args:
    copies: from `CopyFinder`.
    samples: of the study.
    beside: other findings. Of samples that are unusable for another reason, copies among
      the same person's samples are not reported too.
  """
  by_name = {sample.name: sample for sample in samples}
  order = {name: number for number, name in enumerate(by_name)}
  faulty = {name for finding in beside if finding.unusable for name in finding.samples}
  pairs = collections.defaultdict(list)
  for each in copies:
    first, *others = (by_name[name] for name in sorted(each.samples, key=order.__getitem__))
    for other in others:
      same = (first.subject, first.split) == (other.subject, other.split)
      if not (same and faulty & {first.name, other.name}):
        key = (first.subject, first.split, other.subject, other.split)
        pairs[key].append((each.source, first, other))
  for (one, _, another, _), found in pairs.items():
    source, first, other = found[0]
    sources = dict.fromkeys(source for source, _, _ in found)
    count = len({(a.name, b.name) for _, a, b in found})
    people = f'of {one}' if one == another else f'of {one} and of {another}'
    more = f'; {count} such pairs {people}' if count > 1 else ''
    yield Finding(
      where=str(other.data[source].path),
      what=f'{other.name} is the same recording as {first.name} ({named(list(sources))}){more}',
      kind='duplicate',
      samples=tuple(dict.fromkeys(s.name for _, *pair in found for s in pair)),
      copies=tuple(Copies(source=s, samples=(a.name, b.name)) for s, a, b in found),
    )


def _finite(channels: np.ndarray) -> np.ndarray:
  """The first channel's finite values as float32, which formats of text keep."""
  values = channels[0]
  return values[np.isfinite(values)].astype(np.float32) + np.float32(0)


def _stretches(values: np.ndarray) -> dict[int, int]:
  """The smallest hashes of a signal's stretches, and where these begin; {} without any."""
  if not len(values):
    return {}
  starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
  if len(starts) < _RUNS:
    return {}
  lengths = np.diff(np.append(starts, len(values))).astype(np.uint64)
  bits = values[starts].view(np.uint32).astype(np.uint64)
  tokens = _mixed(bits * np.uint64(2**32 + 15) + lengths)
  hashes = np.zeros(len(tokens) - _RUNS + 1, np.uint64)
  for number, weight in enumerate(_WEIGHTS):
    hashes += tokens[number : number + len(hashes)] * weight
  hashes = _mixed(hashes)
  smallest = np.argpartition(hashes, min(_KEPT, len(hashes) - 1))[:_KEPT]
  return {int(hashes[n]): int(starts[n]) for n in smallest}


def _mixed(numbers: np.ndarray) -> np.ndarray:
  """uint64 numbers, every bit of which depends on all bits of the given ones."""
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
  return numbers ^ (numbers >> np.uint64(31))


def _paths(path: Path) -> list[Path]:
  return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> tuple | None:
  try:
    sizes = tuple(p.stat().st_size for p in _paths(path))
  except OSError:
    return None
  return sizes if any(sizes) else None


def _edges(path: Path) -> str | None:
  return _digest(path, _EDGE)


def _content(path: Path) -> str | None:
  return _digest(path, None)


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
