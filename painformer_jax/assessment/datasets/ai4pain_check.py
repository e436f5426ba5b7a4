"""What is missing or odd in an AI4Pain folder."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from painformer_jax.assessment.datasets import signal_check
from painformer_jax.assessment.datasets.ai4pain import SATURATION
from painformer_jax.assessment.datasets.copies import CopyFinder
from painformer_jax.assessment.datasets.copies import findings as copies_of
from painformer_jax.assessment.datasets.recordings import (
  Finding,
  Locator,
  Study,
  UnusableError,
  load_channels,
  named,
  read_table,
)
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.quality import QualityRules, is_short


def check(
  study: Study,
  *,
  whole: bool,
  subjects: Mapping[str, int] | None = None,
  segments: Mapping[str, int] | None = None,
  rules: Mapping[str, QualityRules] = MappingProxyType({}),
) -> list[Finding]:
  """Lists everything missing or odd in a study, before any work starts.

  Args:
    study: from `ai4pain_2024.open_study` or `ai4pain_segments.open_study`.
    whole: whether to read every table: are its columns there, do its times fit the rate,
      are values missing, flat or clipped, is a recording there twice, do lengths give the
      level away? Otherwise only whether every file is there and not empty.
    subjects: split -> how many there should be, see `ai4pain.expected_subjects`; None for
      any number.
    segments: condition -> how many each subject should have, such as
      `ai4pain_segments.SEGMENTS[2025]`; None for any number. Segments of a test split
      whose labels are withheld are not counted.
    rules: modality -> what makes a signal unusable; the defaults where there are none.

  Returns:
    Findings, those of listing the folder first; none if all is well.
  """
  findings = list(study.findings)
  for split, expected in (subjects or {}).items():
    found = len(study.splits.get(split, ()))
    if found != expected:
      what = f'{found} subjects, not {expected}'
      findings.append(Finding(where=split, what=what, kind='count'))
  if segments:
    findings += _segment_findings(study, segments)
  where = defaultdict(set)
  for sample in study.samples:
    where[sample.subject].add(sample.split)
  findings += [
    Finding(
      where=subject,
      what=f'is in {" and ".join(sorted(splits))}; a subject may be in one split only',
      kind='duplicate',
    )
    for subject, splits in where.items()
    if len(splits) > 1
  ]
  sound, seen = set(), set()
  for place in (place for sample in study.samples for place in sample.data.values()):
    if place.path not in seen:
      seen.add(place.path)
      problem = _file_finding(place, whole)
      if problem:
        findings.append(problem)
      else:
        sound.add(place.path)
  if whole:
    copies = CopyFinder()
    findings += _signal_findings(study, sound, rules=rules, copies=copies)
    findings += copies_of(copies.copies(), study.samples, beside=findings)
  return findings


def _segment_findings(study: Study, expected: Mapping[str, int]) -> Iterator[Finding]:
  """Subjects without the expected number of segments, and which segments they lack."""
  numbers = defaultdict(lambda: defaultdict(set))  # (split, subject) -> condition -> numbers
  for sample in study.samples:
    segment = sample.name.rpartition('/')[2].removeprefix(f'{sample.subject}_')
    condition, _, number = segment.rpartition('_')
    numbers[sample.split, sample.subject][condition].add(number)
  tested = {
    condition for (split, _), own in numbers.items() if split == 'test' for condition in own
  }
  for (split, subject), own in numbers.items():
    if split == 'test' and not expected.keys() <= tested:
      continue  # Its labels are withheld.
    where = f'{split}, {subject}'
    lacking = [
      name
      for condition, count in expected.items()
      for name in _lacking(condition, own[condition], count)
    ]
    if lacking:
      yield Finding(where=where, what=f'lacks {", ".join(lacking)}', kind='count')
    for condition, count in expected.items():
      if len(own[condition]) > count:
        what = f'{len(own[condition])} segments {condition}, not {count}'
        yield Finding(where=where, what=what, kind='count')


def _lacking(condition: str, numbers: set[str], count: int) -> list[str]:
  """Names of the segments of a condition that a subject lacks."""
  wanted = [str(k) for k in range(1, count + 1)]
  there = {number.lstrip('0') for number in numbers}
  if there <= set(wanted):
    return [f'{condition}_{k}' for k in wanted if k not in there]
  # Numbered in another way, such as through all conditions: only the count can be told.
  return [f'{count - len(there)} of {count} {condition}'] if len(there) < count else []


def _file_finding(place: Locator, whole: bool) -> Finding | None:
  """What is wrong with a file as such."""
  if not place.path.is_file():  # Or a link to nothing.
    return Finding(where=str(place.path), what='no such file', kind='missing')
  if not place.path.stat().st_size:
    return Finding(where=str(place.path), what='the file is empty', kind='missing')
  if whole and place.columns:
    try:
      table = read_table(place)
    except InputError as error:
      return Finding(what=str(error), kind='damaged')
    names = {name.casefold() for name in table.names}
    missing = [c for c in place.columns if c.casefold() not in names]
    if missing:
      what = f'no column {named(missing)}; it has {named(table.names)}'
      return Finding(where=str(place.path), what=what, kind='missing')
  return None


def _signal_findings(
  study: Study, sound: set[Path], *, rules: Mapping[str, QualityRules], copies: CopyFinder
) -> Iterator[Finding]:
  """What is wrong with the signals in sound files; file by file, so that each is read once."""
  lengths = defaultdict(lambda: defaultdict(Counter))
  entries = sorted(
    (
      (place.path, sample.name, modality, sample)
      for sample in study.samples
      for modality, place in sample.data.items()
      if place.columns and place.path in sound
    ),
    key=lambda entry: entry[:3],
  )
  for path, _, modality, sample in entries:
    try:
      channels, _ = load_channels(sample, modality)
    except UnusableError as error:
      columns = ', '.join(sample.data[modality].columns)
      what = f'{columns}: {error.finding.what}' if sample.data[modality].padded else ''
      yield dataclasses.replace(
        error.finding, what=what or error.finding.what, samples=(sample.name,)
      )
      continue
    except InputError as error:
      yield Finding(what=str(error), kind='damaged')
      continue
    lengths[modality][sample.level][channels.shape[1]] += 1
    place = sample.data[modality]
    table = read_table(place)
    copies.add_table(sample, modality, table, table.index(place.columns[0]))
    copies.add_signal(sample, modality, channels)
    if place.rows and is_short(channels.shape[1], place.rows):
      what = f'{", ".join(place.columns)}: {channels.shape[1]} rows, not {place.rows}'
      yield Finding(where=str(path), what=what, kind='length', samples=(sample.name,))
    own = rules.get(modality)
    if own is None:
      own = QualityRules(flat_between=SATURATION if modality == 'spo2' else ())
    for column, values in zip(sample.data[modality].columns, channels):
      for finding in signal_check.troubles(values, own, where=str(path), name=column):
        yield dataclasses.replace(finding, samples=(sample.name,))
  for modality, by_level in lengths.items():
    labelled = {level: set(c) for level, c in by_level.items() if level is not None}
    for level, own in labelled.items():
      others = set().union(*(found for other, found in labelled.items() if other != level))
      if others and not own & others:
        yield Finding(
          where=modality,
          what=(
            f'the length of a segment gives away the level {study.levels[level]!r}: '
            f'{named(sorted(own))} samples, elsewhere {named(sorted(others))}'
          ),
          kind='leak',
        )
