"""What a dataset reader gives: samples that say where their recordings are."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.core.number_table import NumberTable, read_numbers

VIDEO = 'video'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locator:
  """Where one modality of one sample is stored.

  Attributes:
    path: of the file.
    columns: of the channels, for a text table; none for a video.
    rate: of a table, rows per second, Hz.
    delimiter: between the cells of the table.
    start, stop: the table rows of the sample, counted from 0 after the header; None is
      the end of the file.
    padded: whether rows of NaN at the end of the columns are padding (the table's columns
      differ in length) and so are no part of the signal.
  """

  path: Path
  columns: tuple[str, ...] = ()
  rate: float = 0.0
  delimiter: str = ','
  start: int = 0
  stop: int | None = None
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
  """

  subject: str
  name: str
  level: int | None
  data: Mapping[str, Locator]
  split: str = ''
  folder: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """Something missing or odd in a dataset folder.

  Attributes:
    where: the file, folder, line or subject; '' where `what` already says so.
    what: what is wrong with it.
  """

  where: str = ''
  what: str

  def __str__(self) -> str:
    return f'{self.where}: {self.what}' if self.where else self.what


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """The samples of a dataset folder; no signal or video has been opened yet.

  Attributes:
    name: of the dataset, such as 'BioVid Part A'.
    root: the folder.
    samples: in an order that is always the same.
    levels: names of the levels that `Sample.level` is an index of.
    findings: problems that listing the folder has shown.
  """

  name: str
  root: Path
  samples: tuple[Sample, ...]
  levels: tuple[str, ...]
  findings: tuple[Finding, ...] = ()

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


def load_channels(sample: Sample, modality: str) -> tuple[np.ndarray, float]:
  """All channels of one modality of one sample, such as fNIRS.

  Returns:
    float64 [channels, n] and the rate in Hz.

  Raises:
    InputError: the sample lacks the modality, or the file is missing or broken.
  """
  place = _locate(sample, modality)
  if not place.columns:
    raise InputError(f'{modality} of {sample.name} is no table of signals')
  table = read_table(place)
  missing = [c for c in place.columns if c not in table.names]
  if missing:
    raise InputError(
      f'{place.path} has no column {missing[0]!r}; it has {", ".join(table.names[:8])}'
    )
  picked = [table.names.index(c) for c in place.columns]
  values = table.array[place.start : place.stop, picked].T.copy()
  if place.padded:
    filled = np.flatnonzero(~np.isnan(values).all(axis=0))
    values = values[:, : filled[-1] + 1 if filled.size else 0]
  if not values.shape[1]:
    raise InputError(f'{place.path} has no value of {sample.name}')
  return values, place.rate


def video_path(sample: Sample, source: str = VIDEO) -> Path:
  """The sample's video, or folder of images, which exists.

  Raises:
    InputError: it has none, or it is missing.
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
  return sample.data[modality]


# Modalities of one sample, and samples of one subject, often share a file.
_tables = FileCache(functools.partial(read_numbers, only_numbers=True), kept=8)


def read_table(place: Locator) -> NumberTable:
  """The table of numbers, below a line of names, that a sample lies in.

  Raises:
    InputError: the file is missing, no text, without rows, or a cell in it is no
      number.
  """
  return _tables(place.path, delimiter=place.delimiter)


def named(items: Sequence[object], *, limit: int = 3) -> str:
  """The first few of a list, and how many more there are."""
  more = f' and {len(items) - limit:,} more' if len(items) > limit else ''
  return ', '.join(map(str, items[:limit])) + more
