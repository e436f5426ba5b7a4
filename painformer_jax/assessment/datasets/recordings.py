"""What a dataset reader gives: samples that say where their recordings are."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.core.number_table import NumberTable, read_numbers
from painformer_jax.modalities.sample_times import (
  TimeColumn,
  TimesError,
  rises,
  sampling_rate,
  unit_of,
)

VIDEO = 'video'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locator:
  """Where one modality of one sample is stored.

  Attributes:
    path: of the file.
    columns: of the channels, for a text table; none for a video.
    rate: of a table, rows per second; of a video, frames per second, 0 where the study
      fixes none; Hz.
    delimiter: between the cells of the table.
    start, stop: the table rows of the sample, counted from 0 after the header; None is
      the end of the file.
    rows: how many rows the study says that the sample has; 0 for any number.
    tolerance: by how many rows it may have more or less; a sample beyond is unusable. Of one
      within, all images are those of `rows` rows.
    padded: whether rows of NaN at the end of the columns are padding (the table's columns
      differ in length) and so are no part of the signal.
  """

  path: Path
  columns: tuple[str, ...] = ()
  rate: float = 0.0
  delimiter: str = ','
  start: int = 0
  stop: int | None = None
  rows: int = 0
  tolerance: int = 0
  padded: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """One stimulus, or one stretch of time without any.

  Attributes:
    subject: unique in the study.
    name: unique in the study.
    level: index into the study's levels; None where the label is withheld.
    data: modality -> where its recording is.
    split: 'train', 'validation' or 'test' where the study fixes it, else ''.
    folder: name of the split's folder.
    unusable: modality -> why it is left out although it can be read.
  """

  subject: str
  name: str
  level: int | None
  data: Mapping[str, Locator]
  split: str = ''
  folder: str = ''
  unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)


# What a finding may be about; `config.findings` names them.
FINDING_KINDS = {
  'list': 'a list of samples, or a column of a table, that contradicts itself',
  'count': 'more or fewer people, samples or segments than there should be',
  'missing': 'files, folders, columns or tables that are not there or are empty',
  'stray': 'files that the list of samples does not name',
  'damaged': 'files that cannot be read',
  'length': 'more or fewer rows or frames than the study has',
  'time': 'times that contradict the sampling rate or frame rate',
  'blank': 'values that are no number',
  'flat': 'a signal or a video in which nothing was recorded',
  'spike': 'single values of a signal far beyond all others',
  'clipped': 'a signal at the limits of its converter',
  'duplicate': 'the same recording twice',
  'leak': 'something beside the signal that gives the level away',
  'setting': 'a modality of the config that cannot be made',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
  """Recordings that are the same: (name of the sample, modality) of each."""

  recordings: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """Something missing or odd in a dataset folder.

  Attributes:
    where: the file, folder, line or subject; '' where `what` already says so.
    what: what is wrong with it.
    kind: one of `FINDING_KINDS`.
    unusable: whether a recording that is there is left out because of it.
    samples: whose recording it is about, where that is known.
    copies: of kind 'duplicate': which recordings are the same.
    sources: the modalities of `samples` that only a comparison with others shows to be
      unusable; none where reading them shows it.
  """

  where: str = ''
  what: str
  kind: str = 'list'
  unusable: bool = False
  samples: tuple[str, ...] = ()
  copies: tuple[Copies, ...] = ()
  sources: tuple[str, ...] = ()

  def __str__(self) -> str:
    return f'{self.where}: {self.what}' if self.where else self.what


class UnusableError(InputError):
  """A recording that can be read but would mislead; `finding` says why."""

  def __init__(self, finding: Finding):
    super().__init__(str(finding))
    self.finding = finding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """The samples of a dataset folder; no signal or video has been opened yet.

  Attributes:
    name: of the dataset, such as 'BioVid Part A'.
    root: the folder.
    samples: in an order that is always the same.
    levels: names of the levels that `Sample.level` is an index of.
    findings: problems that listing the folder has shown.
    synthetic: whether nobody was recorded.
  """

  name: str
  root: Path
  samples: tuple[Sample, ...]
  levels: tuple[str, ...]
  findings: tuple[Finding, ...] = ()
  synthetic: bool = False

  @property
  def subjects(self) -> tuple[str, ...]:
    """Each subject once, in the order of the samples."""
    return tuple(dict.fromkeys(s.subject for s in self.samples))

  @property
  def modalities(self) -> tuple[str, ...]:
    """Every modality that any sample has."""
    return tuple(dict.fromkeys(m for s in self.samples for m in s.data))

  @property
  def splits(self) -> dict[str, tuple[str, ...]]:
    """Split -> its subjects; empty where the study fixes none."""
    return {
      split: tuple(dict.fromkeys(s.subject for s in self.samples if s.split == split))
      for split in dict.fromkeys(s.split for s in self.samples)
      if split
    }

  def channels_of(self, modality: str) -> tuple[str, ...]:
    """Names of a modality's channels, as its first sample has them; () for a video.

    Raises:
      InputError: no sample has the modality.
    """
    for sample in self.samples:
      if modality in sample.data:
        columns = sample.data[modality].columns
        return columns if len(columns) != 1 else (modality,)
    raise InputError(
      f'no sample of {self.name} has {modality}; there are {", ".join(self.modalities)}'
    )

  def subject_array(self) -> np.ndarray:
    """str [samples]."""
    return np.array([s.subject for s in self.samples], dtype=str)

  def level_array(self) -> np.ndarray:
    """int64 [samples], -1 where the label is withheld."""
    return np.array([-1 if s.level is None else s.level for s in self.samples], np.int64)

  def split_array(self) -> np.ndarray:
    """str [samples]."""
    return np.array([s.split for s in self.samples], dtype=str)


def load_channels(
  sample: Sample, modality: str, *, checked: bool = True
) -> tuple[np.ndarray, float]:
  """All channels of one modality of one sample, such as fNIRS.

  Args:
    sample: of the study.
    modality: one with columns.
    checked: whether a table that would mislead is an error.

  Returns:
    float64 [channels, n] and the rate in Hz.

  Raises:
    InputError: the sample lacks the modality or it is unusable; the file is missing or
      broken.
    UnusableError: it has too many or too few rows, or its times contradict the rate.
  """
  place = _locate(sample, modality)
  if not place.columns:
    raise InputError(f'{modality} of {sample.name} is no table of signals')
  table = read_table(place)
  picked = [table.index(c) for c in place.columns]
  values = np.stack([table.column(n, place.start, place.stop) for n in picked])
  if place.padded:
    filled = np.flatnonzero(~np.isnan(values).all(axis=0))
    values = values[:, : filled[-1] + 1 if filled.size else 0]
  if not values.shape[1]:
    raise InputError(f'{place.path} has no value of {sample.name}')
  for finding in table_faults(table, place, rows=values.shape[1]) if checked else ():
    if finding.unusable:
      raise UnusableError(finding)
  return values, place.rate


def table_faults(table: NumberTable, place: Locator, *, rows: int) -> tuple[Finding, ...]:
  """What is odd about a table's number of rows and times, or makes it unusable.

  Args:
    table: at `place`.
    place: with the rows and the rate that it should have.
    rows: that it has, without padding.
  """
  found = []
  lacking = abs(rows - place.rows) if place.rows else 0
  # A row more or less is how a window is cut; where columns are padded, lengths differ.
  if lacking > (place.tolerance if place.padded else 1):
    what = f'{rows} row{"" if rows == 1 else "s"}, not {place.rows}'
    unusable = lacking > place.tolerance
    found.append(Finding(where=str(place.path), what=what, kind='length', unusable=unusable))
  taken = {name.casefold() for name in place.columns}
  for number, name in enumerate(
    table.names if place.rate > 0 and not any(f.unusable for f in found) else ()
  ):
    if name.casefold() not in taken and unit_of(name) is not None:
      fault = _time_fault(table, number, place)
      if fault:
        found.append(Finding(where=str(place.path), what=fault, kind='time', unusable=True))
  return tuple(found)


def _time_fault(table: NumberTable, number: int, place: Locator) -> str:
  """In what a column of times contradicts the rate; '' where it agrees."""
  name = table.names[number]
  try:
    times = table.column(number, place.start, place.stop)
  except InputError as error:
    return str(error).partition(': ')[2]
  if place.padded:
    times = times[np.isfinite(times)]
  if len(times) < 2 or (np.diff(times) == 1).all():
    return ''  # Row numbers.
  if len(name) == 1 and not rises(times):
    return ''  # A signal may be called t or s.
  column = TimeColumn(name=name, times=times, unit=unit_of(name) or 0.0)

  def where(column: TimeColumn, row: int) -> str:
    return f'{column.name}, row {place.start + row + 1}'

  try:
    sampling_rate([column], stated=place.rate, modality='', where=where)
  except TimesError as error:
    return str(error)
  return ''


def video_path(sample: Sample, source: str = VIDEO) -> Path:
  """The sample's video, or folder of images, which exists.

  Raises:
    InputError: it has none, it is missing, or it is unusable.
  """
  place = _locate(sample, source)
  if not place.path.exists():
    raise InputError(f'there is no {source} {place.path}')
  return place.path


def _locate(sample: Sample, modality: str) -> Locator:
  if modality not in sample.data:
    raise InputError(
      f'{sample.name} has no {modality}; it has {", ".join(sample.data) or "nothing"}'
    )
  if modality in sample.unusable:
    raise InputError(sample.unusable[modality])
  return sample.data[modality]


# Modalities of one sample, and samples of one subject, often share a file.
_tables = FileCache(read_numbers, kept=8)
_DELIMITERS = {'\t': 'tabs', ',': 'commas', ';': 'semicolons'}


def read_table(place: Locator) -> NumberTable:
  """The table, below a line of names, that a sample lies in.

  One that is separated by something else than it should be is read all the same, if that is
  clear.

  Raises:
    InputError: the file is missing, no text or without rows, or what separates its cells is
      not clear.
  """
  table = _tables(place.path, delimiter=place.delimiter)
  if len(table.names) == 1 and any(mark in table.names[0] for mark in ',;\t'):
    table = _tables(place.path, delimiter=None)
    if len(table.names) == 1:
      raise InputError(f'{place.path}: separate its columns by {_DELIMITERS[place.delimiter]}')
  return table


def named(items: Sequence[object], *, limit: int = 3) -> str:
  """The first few of a list, and how many more there are."""
  more = f' and {len(items) - limit:,} more' if len(items) > limit else ''
  return ', '.join(map(str, items[:limit])) + more
