"""What every modality gives to `embed`: images, and what locates each."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One image to embed.

  Attributes:
    image: uint8 [size, size, 3].
    source: the file, as it was named.
    place: a value for each of its reader's columns.
    caption: the place in words, for people.
  """

  image: np.ndarray
  source: str
  place: Mapping[str, object]
  caption: str = ''


class Reader(Protocol):
  """Reads the files of one modality.

  Attributes:
    modality: its name.
    columns: beside `embedding` and `source`: name -> (shape, dtype), as
      `NpzWriter` takes them.
    suffixes: of the files that are taken from folders.
    settings: everything that shapes the images, as JSON.
    stand_in: what the images are made of in place of the modality; '' for none.
  """

  modality: str
  columns: Mapping[str, tuple[tuple[int, ...], type]]
  suffixes: frozenset[str]
  settings: str
  stand_in: str

  def total(self, files: Sequence[str]) -> int:
    """About how many rows the files will make."""

  def rows(self, name: str, *, image_size: int, log: Log) -> Iterator[Row]:
    """The rows of one file, and remarks on it.

    Raises:
      InputError: names the file and what is wrong with it, perhaps after some rows.
    """

  def remarks(self) -> str:
    """What was left out of all files so far, in words; '' for nothing."""
