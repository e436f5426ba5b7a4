"""The AI4Pain challenges: 2024 (video, fNIRS), 2025 and 2026 (finger and chest).

  2024   {Train,Validation,Test}/video/<subject>/*.mp4; fNIRS as its user says
  2025   {train,validation,test}/{Bvp,Eda,Resp,SpO2}/<id>.csv, 100 Hz, one column
         a segment, <id>_{Baseline,LOW,HIGH,REST}_<k>, shorter ones padded with NaN
  2026   the same, <id>_{Baseline,ARM,HAND}_<k>

Case varies in all of these names and is ignored. Splits are the organisers'. Test
labels may be withheld: such samples have no level. What 2024's fNIRS files and
clip names look like is not public, so both are described by the caller. That
baseline and rest are "no pain" is reconstructed, and an argument.
"""

import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from painformer_jax.assessment.datasets import signal_check
from painformer_jax.assessment.datasets.recordings import (
  VIDEO,
  Finding,
  Locator,
  Sample,
  Study,
  load_channels,
  named,
  read_table,
)
from painformer_jax.core.delimited import column_names, read_rows
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.quality import QualityRules

SPLITS = ('train', 'validation', 'test')
# Of every edition, as its organisers say. Test comes later than the others, or never.
PEOPLE = {'train': 41, 'validation': 12, 'test': 12}
RATE = 100.0
SIGNALS = ('bvp', 'eda', 'resp', 'spo2')
FNIRS = 'fnirs'
SATURATION = (50.0, 100.0)  # Percent that a sensor on a finger may show; of this project.

# Edition -> levels, and condition -> level.
_LEVELS = {
  2024: ('no pain', 'low pain', 'high pain'),
  2025: ('no pain', 'low pain', 'high pain'),
  2026: ('no pain', 'arm', 'hand'),
}
_CONDITIONS = {
  2025: {'baseline': 0, 'rest': 0, 'low': 1, 'high': 2},
  2026: {'baseline': 0, 'arm': 1, 'hand': 2},
}
# Edition -> condition -> segments a person has. Of 2025's baseline and rest it is not known.
SEGMENTS = {2025: {'low': 12, 'high': 12}, 2026: {'baseline': 12, 'arm': 12, 'hand': 12}}
WORDS_2024 = {'no': 0, 'nopain': 0, 'baseline': 0, 'rest': 0, 'low': 1, 'high': 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FnirsTables:
  """Where the fNIRS of 2024 lies, one table a clip, and what is in it.

  Attributes:
    path: under the dataset folder, with {split} (as the folder is spelt),
      {subject} and {sample} (the clip's name without .mp4).
    columns: of the channels, in the order they are to be used.
    rate: in Hz.
    delimiter: between cells.
  """

  path: str
  columns: tuple[str, ...]
  rate: float
  delimiter: str = ','

  def __post_init__(self):
    if not self.columns or not self.rate > 0:
      raise InputError(
        'fNIRS tables need the names of their columns and a positive '
        f'sampling rate, not {self.columns} and {self.rate}'
      )
    try:
      self.path.format(split='', subject='', sample='')
    except (KeyError, IndexError, ValueError) as error:
      raise InputError(
        f'the fNIRS path {self.path!r} may hold {{split}}, {{subject}} and {{sample}} only'
      ) from error


def open_2024(
  root: str | os.PathLike,
  *,
  fnirs: FnirsTables | None = None,
  words: Mapping[str, int] = WORDS_2024,
  labels: str | os.PathLike | None = None,
) -> Study:
  """Lists the 2024 challenge: one sample a clip.

  Args:
    root: holds Train/, Validation/ and perhaps Test/.
    fnirs: where each clip's fNIRS lies; None: video only.
    words: lower-case word of a clip's name -> level; names are cut at everything
      that is no letter.
    labels: a CSV with columns subject, sample, level (0, 1, 2) to be used instead
      of the names.

  Raises:
    InputError: no such folders, or no labelled clip.
  """
  root = Path(root)
  table = _read_labels(labels) if labels else None
  samples, findings = [], []
  for split, folder in _splits(root).items():
    videos = _child(folder, 'video')
    if videos is None:
      raise InputError(f'there is no folder {folder / "video"}')
    for person in _folders(videos):
      for path in sorted(p for p in person.iterdir() if p.suffix.lower() == '.mp4'):
        if table is not None:
          level = table.get((person.name, path.stem))
        else:
          level = _level_by_words(path.stem, words)
        if level is None and split != 'test':
          findings.append(
            Finding(
              where=str(path),
              what=(
                'the table of labels does not have it'
                if table is not None
                else 'its name does not tell its level; give a table of labels'
              ),
            )
          )
          continue
        data = {VIDEO: Locator(path=path)}
        if fnirs:
          data[FNIRS] = Locator(
            path=root / fnirs.path.format(split=folder.name, subject=person.name, sample=path.stem),
            columns=fnirs.columns,
            rate=fnirs.rate,
            delimiter=fnirs.delimiter,
          )
        samples.append(
          Sample(
            subject=person.name,
            name=f'{split}/{person.name}/{path.stem}',
            level=level,
            data=data,
            split=split,
            folder=folder.name,
          )
        )
  return _study(2024, root, samples, findings)


def open_2025(root: str | os.PathLike, **options) -> Study:
  """Lists the 2025 challenge (no, low, high pain); see `_open_segments`."""
  return _open_segments(root, 2025, **options)


def open_2026(root: str | os.PathLike, **options) -> Study:
  """Lists the 2026 challenge (no pain, arm, hand); see `_open_segments`."""
  return _open_segments(root, 2026, **options)


def _open_segments(
  root: str | os.PathLike,
  edition: int,
  *,
  modalities: Sequence[str] = SIGNALS,
  conditions: Mapping[str, int] | None = None,
  max_seconds: float | None = 10.0,
) -> Study:
  """One sample a segment, that is a column; only the lines of names are read.

  Args:
    root: holds train/, validation/ and perhaps test/.
    edition: 2025 or 2026.
    modalities: of `SIGNALS`.
    conditions: lower-case condition -> level, to leave some out or count them
      otherwise; None: all of the edition.
    max_seconds: no more than this is used, from a segment's start: baselines last
      about a minute, and their length would give the level away. None: all of it.

  Raises:
    InputError: no such folders, a table that is none, no labelled segment.
  """
  unknown = [m for m in modalities if m not in SIGNALS]
  if unknown or not modalities:
    raise InputError(
      f'AI4Pain {edition} has {", ".join(SIGNALS)}, not {", ".join(unknown) or "nothing"}'
    )
  root, known = Path(root), _CONDITIONS[edition]
  conditions = known if conditions is None else conditions
  stop = None if max_seconds is None else round(max_seconds * RATE)
  samples, findings = [], []
  for split, folder in _splits(root).items():
    segments = defaultdict(dict)  # (person, segment) -> modality -> place
    found = {}  # Modality -> people who have a table of it.
    for modality in modalities:
      tables = _child(folder, modality)
      if tables is None:
        findings.append(Finding(where=str(folder), what=f'no folder {modality}'))
        continue
      paths = sorted(p for p in tables.iterdir() if p.suffix.lower() == '.csv')
      found[modality] = {path.stem for path in paths}
      for path in paths:
        columns = _column_names(path)
        if not columns:
          findings.append(Finding(where=str(path), what='names no column'))
        for column in columns:
          segment = column.lower().removeprefix(f'{path.stem.lower()}_')
          if segment == column.lower():
            findings.append(
              Finding(where=str(path), what=(f'column {column!r} does not begin with {path.stem}_'))
            )
            continue
          places = segments[path.stem, segment]
          if modality in places:
            findings.append(Finding(where=str(path), what=f'two columns {column!r}'))
          places[modality] = Locator(
            path=path, columns=(column,), rate=RATE, stop=stop, padded=True
          )
    lacking = defaultdict(list)  # (person, modality) -> segments
    for (person, segment), data in segments.items():
      condition = segment.rpartition('_')[0]
      level = conditions.get(condition)
      if level is None and (split != 'test' or condition in known):
        if condition not in known:
          findings.append(
            Finding(
              where=f'{split}, {person}',
              what=(f'segment {segment!r} is none of {", ".join(known)}'),
            )
          )
        continue
      # A folder that is missing altogether is one finding, and so is a table.
      for modality in found.keys() - data.keys():
        lacking[person, modality].append(segment)
      samples.append(
        Sample(
          subject=person,
          name=f'{split}/{person}_{segment}',
          level=level,
          data=data,
          split=split,
          folder=folder.name,
        )
      )
    for (person, modality), names in sorted(lacking.items()):
      findings.append(
        Finding(
          where=f'{split}, {person}',
          what=(
            f'{modality} lacks {", ".join(names)}'
            if person in found[modality]
            else f'no table of {modality}'
          ),
        )
      )
  return _study(edition, root, samples, findings)


def expected_people(root: str | os.PathLike, *, protocol: str) -> dict[str, int]:
  """How many people each split should have.

  Args:
    root: of any edition.
    protocol: of `protocols.PROTOCOLS`; 'test' cannot do without the test split.

  Returns:
    `PEOPLE`, without 'test' where it is neither there nor needed.

  Raises:
    InputError: no such folders.
  """
  there = _splits(Path(root))
  return {split: count for split, count in PEOPLE.items() if split in there or split == protocol}


def check(
  study: Study,
  *,
  depth: Literal['files', 'signals'] = 'signals',
  people: Mapping[str, int] | None = None,
  segments: Mapping[str, int] | None = None,
) -> list[Finding]:
  """Everything missing or odd in the study, before any work starts.

  Args:
    study: from one of the openers.
    depth: 'files': every file is there and not empty. 'signals': also every table can
      be read and has its columns, and no sample is no number, flat or clipped, or of a
      length that gives its level away.
    people: split -> how many there should be, see `expected_people`; None: any.
    segments: condition -> how many each person should have, such as `SEGMENTS[2025]`;
      None: any. Those of a test split whose labels are withheld are not counted.

  Returns:
    Findings, those of listing first; none if all is well.
  """
  findings = list(study.findings)
  for split, expected in (people or {}).items():
    found = len(study.splits.get(split, ()))
    if found != expected:
      findings.append(Finding(where=split, what=f'{found} people, not {expected}'))
  if segments:
    findings += _segment_findings(study, segments)
  where = defaultdict(set)
  for sample in study.samples:
    where[sample.subject].add(sample.split)
  findings += [
    Finding(
      where=person, what=f'is in {" and ".join(sorted(splits))}; a person may be in one split only'
    )
    for person, splits in where.items()
    if len(splits) > 1
  ]
  good, seen = set(), {}
  for sample in study.samples:
    for modality, place in sample.data.items():
      if place.path not in seen:
        seen[place.path] = _file_problem(place, depth)
        if seen[place.path]:
          findings.append(Finding(where=str(place.path), what=seen[place.path]))
        else:
          good.add(place.path)
  if depth == 'signals':
    findings += _signal_findings(study, good)
  return findings


def _segment_findings(study: Study, expected: Mapping[str, int]) -> Iterator[Finding]:
  """People who do not have so many segments of each condition, and which they lack."""
  numbers = defaultdict(lambda: defaultdict(set))  # (split, person) -> condition -> numbers
  for sample in study.samples:
    segment = sample.name.rpartition('/')[2].removeprefix(f'{sample.subject}_')
    condition, _, number = segment.rpartition('_')
    numbers[sample.split, sample.subject][condition].add(number)
  tested = {
    condition for (split, _), own in numbers.items() if split == 'test' for condition in own
  }
  for (split, person), own in numbers.items():
    if split == 'test' and not expected.keys() <= tested:
      continue  # Its labels are withheld.
    lacking = [
      name
      for condition, count in expected.items()
      for name in _lacking(condition, own[condition], count)
    ]
    if lacking:
      yield Finding(where=f'{split}, {person}', what=f'lacks {", ".join(lacking)}')
    for condition, count in expected.items():
      if len(own[condition]) > count:
        yield Finding(
          where=f'{split}, {person}',
          what=(f'{len(own[condition])} segments {condition}, not {count}'),
        )


def _lacking(condition: str, numbers: set[str], count: int) -> list[str]:
  """Names of the segments that a person lacks of a condition."""
  wanted = [str(k) for k in range(1, count + 1)]
  there = {number.lstrip('0') for number in numbers}
  if there <= set(wanted):
    return [f'{condition}_{k}' for k in wanted if k not in there]
  # Counted in another way, such as through all conditions: it cannot be told which.
  return [f'{count - len(there)} of {count} {condition}'] if len(there) < count else []


def _file_problem(place: Locator, depth: str) -> str:
  """What is wrong with a file as such, or ''."""
  if not place.path.is_file():
    return 'no such file'
  if not place.path.stat().st_size:
    return 'the file is empty'
  if depth != 'files' and place.columns:
    try:
      table = read_table(place)
    except InputError as error:
      return str(error).removeprefix(f'{place.path}').lstrip(', ')
    missing = [c for c in place.columns if c not in table.names]
    if missing:
      return f'no column {named(missing)}; it has {named(table.names)}'
  return ''


def _signal_findings(study: Study, good: set[Path]) -> Iterator[Finding]:
  """File by file, so that each is read once."""
  lengths = defaultdict(lambda: defaultdict(Counter))
  entries = sorted(
    (
      (place.path, sample.name, modality, sample)
      for sample in study.samples
      for modality, place in sample.data.items()
      if place.columns and place.path in good
    ),
    key=lambda entry: entry[:3],
  )
  for path, name, modality, sample in entries:
    try:
      channels, _ = load_channels(sample, modality)
    except InputError as error:
      yield Finding(where=str(path), what=str(error).removeprefix(f'{path} '))
      continue
    lengths[modality][sample.level][channels.shape[1]] += 1
    rules = QualityRules(flat_between=SATURATION if modality == 'spo2' else ())
    for column, values in zip(sample.data[modality].columns, channels):
      for trouble in signal_check.troubles(values, rules):
        if modality != 'spo2' or not trouble.startswith('clipped'):  # A whole percentage.
          yield Finding(where=str(path), what=f'{column}: {trouble}')
  for modality, by_level in lengths.items():
    labelled = {level: set(c) for level, c in by_level.items() if level is not None}
    for level, own in labelled.items():
      others = set().union(*(c for l, c in labelled.items() if l != level))
      if others and not own & others:
        yield Finding(
          where=modality,
          what=(
            f'the length of a segment gives away the level {study.levels[level]!r}: '
            f'{named(sorted(own))} samples, elsewhere {named(sorted(others))}'
          ),
        )


def _study(edition: int, root: Path, samples: list[Sample], findings: list[Finding]) -> Study:
  if not any(s.level is not None for s in samples):
    raise InputError(
      f'{root} has no labelled sample of AI4Pain {edition}'
      + (f'; the first trouble: {findings[0]}' if findings else '')
    )
  return Study(
    name=f'AI4Pain {edition}',
    root=root,
    samples=tuple(samples),
    levels=_LEVELS[edition],
    findings=tuple(findings),
  )


def _splits(root: Path) -> dict[str, Path]:
  """Split -> its folder; test may be missing."""
  if not root.is_dir():
    raise InputError(f'there is no folder {root}')
  found = {split: folder for split in SPLITS if (folder := _child(root, split))}
  missing = [split for split in ('train', 'validation') if split not in found]
  if missing:
    raise InputError(f'{root} is no AI4Pain folder: there is no {missing[0]}/ in it')
  return found


def _folders(folder: Path) -> list[Path]:
  return sorted(p for p in folder.iterdir() if p.is_dir())


def _child(folder: Path, name: str) -> Path | None:
  """The folder in it of that name, whatever its case."""
  return next((p for p in _folders(folder) if p.name.lower() == name), None)


def _column_names(path: Path) -> tuple[str, ...]:
  """Names of a table's columns; an index without a name is left out."""
  return tuple(name for name in column_names(path, delimiter=',') if name)


def _level_by_words(name: str, words: Mapping[str, int]) -> int | None:
  found = {words[w] for w in re.split('[^a-z]+', name.lower()) if w in words}
  return found.pop() if len(found) == 1 else None


def _read_labels(path: str | os.PathLike) -> dict[tuple[str, str], int]:
  labels = {}
  for row in read_rows(path, required=('subject', 'sample', 'level')):
    if row['level'] not in ('0', '1', '2'):
      raise InputError(f'{row.where}: the level must be 0, 1 or 2')
    labels[row['subject'], row['sample']] = int(row['level'])
  return labels
