"""What every modality gives to `embed_files`: images, and where each comes from."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from painformer_jax.core.progress import Log


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocatedImage:
  """One image to embed, and where it comes from.

  Attributes:
    image: uint8 [size, size, 3] RGB.
    source: the file, as it was named.
    location: column of the reader -> where in the file, such as 'frame' -> 12.
    caption: the location in words.
  """

  image: np.ndarray
  source: str
  location: Mapping[str, object]
  caption: str = ''


class Reader(Protocol):
  """Reads the files of one modality.

  Attributes:
    modality: its name.
    columns: the keys of every `LocatedImage.location` -> dtype of the values; `str` for
      text.
    suffixes: of the files that are taken from folders.
    settings: everything that shapes the images, as JSON.
    stand_in: what the images are made of in place of the modality; '' for none.
  """

  modality: str
  columns: Mapping[str, type]
  suffixes: frozenset[str]
  settings: str
  stand_in: str

  def total(self, files: Sequence[str]) -> int:
    """About how many images the files will give."""

  def images(self, name: str, *, image_size: int, log: Log) -> Iterator[LocatedImage]:
    """The images of one file.

    Args:
      name: of the file.
      image_size: side of the images, pixels.
      log: takes a line about what was left out of the file.

    Raises:
      InputError: names the file and what is wrong with it; perhaps after some images.
    """

  def remarks(self) -> str:
    """What was left out of all files so far, in words; '' for nothing."""
