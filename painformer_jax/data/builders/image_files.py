"""Shared by the readers of image datasets: lists files, holds out a test split, reads images."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.folders import list_folder
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.core.progress import Log
from painformer_jax.data.decode import decode_strictly
from painformer_jax.data.task_source import Item
from painformer_jax.modalities import images

SUFFIXES = tuple(sorted(images.SUFFIXES))
# For files that a list names one by one: any suffix will do.
ANY_SUFFIX = ('',)
JPEG_QUALITY = 95
# Share of the images of a list that may be missing, and are then left out; one may always be.
MAX_MISSING = 0.01
# How many names a message lists before it says how many more there are.
NAMED = 3

Report = Log


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CropBox:
  """A rectangle in an image, in pixels from its upper left corner."""

  x: float
  y: float
  width: float
  height: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredAs:
  """The size and encoding in which images are stored.

  Attributes:
    image_size: side of the square that images are resized to, without keeping their
      aspect ratio, pixels.
    short_side: instead, images keep their aspect ratio and are shrunk until the
      shorter side has this many pixels; smaller ones stay as they are. 0 for the square.
    encoding: 'jpeg' (quality 95) or 'png' (exact, larger).
  """

  image_size: int = 224
  short_side: int = 0
  encoding: str = 'jpeg'

  def __post_init__(self):
    if self.encoding not in _ENCODERS:
      raise InputError(f"no encoding '{self.encoding}', only {' and '.join(_ENCODERS)}")
    if self.image_size < 1 or self.short_side < 0:
      raise InputError(
        f'image size {self.image_size} and short side {self.short_side} must be '
        'positive (a short side of 0 means that the image size counts)'
      )

  def __str__(self) -> str:
    size = (
      f'shrunk to {self.short_side} pixels on the shorter side'
      if self.short_side
      # Stored with every prepared task, and compared: the words stay.
      else f'squashed to {self.image_size} x {self.image_size} pixels'
    )
    kind = f'JPEG of quality {JPEG_QUALITY}' if self.encoding == 'jpeg' else 'PNG'
    return f'{size}, stored as {kind}'

  def encode(self, rgb: np.ndarray) -> bytes:
    """Sizes and encodes an image, uint8 [height, width, 3], RGB.

    Raises:
      ValueError: it is longer than the encoding allows.
    """
    if self.short_side:
      rgb = _shrink(rgb, self.short_side)
    else:
      rgb = resize_to_square(rgb, self.image_size)
    suffix, options = _ENCODERS[self.encoding]
    try:
      done, encoded = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    except cv2.error:
      done = False
    if not done:
      raise ValueError(
        f'an image of {rgb.shape[1]} x {rgb.shape[0]} pixels cannot be stored as {self.encoding}'
      )
    return encoded.tobytes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReader:
  """Reads `root`/<key> of an item; where the item's detail is a `CropBox`, only that box.

  A box is cut off at the edges of the image; if nothing remains, the whole image is
  used.

  Attributes:
    root: the folder that keys are relative to.
    stored: size and encoding of the result.
  """

  root: str
  stored: StoredAs

  def __call__(self, item: Item) -> bytes:
    """Returns the encoded image.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no image, or a damaged one.
    """
    with open(os.path.join(self.root, item.key), 'rb') as file:
      image = decode_strictly(file.read())
    if item.detail is not None:
      image = _cut(image, item.detail)
    return self.stored.encode(image)


def list_files(
  folder: str | Path, *, suffixes: Sequence[str] = SUFFIXES, left_out: Counter[str] | None = None
) -> list[str]:
  """Files at any depth below a folder, as sorted paths relative to it.

  Suffixes count in any case. Hidden files and folders are left out; a linked folder is
  entered once.

  Args:
    left_out: takes kind -> how many files were left out, see `core.folders`.

  Raises:
    OSError: a folder cannot be read.
    InputError: a name is not UTF-8.
  """
  listing = list_folder(folder, suffixes=suffixes)
  counts = listing.left_out
  for error in listing.errors:
    if os.path.isdir(error.filename):
      raise error
    counts['that cannot be read'] += 1
  if left_out is not None:
    left_out.update(counts)
  for path in listing.files:
    if not path.isascii():
      _check_name(path, str(folder))
  return listing.files


def list_folders(folder: str | Path) -> list[str]:
  """Names of the folders in a folder, sorted, without hidden ones."""
  with os.scandir(folder) as entries:
    return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith('.'))


def find_child(folder: str | Path, *names: str) -> Path | None:
  """The file or folder of one of these names in a folder, in any case.

  Earlier names come first, and of one name the exact spelling.
  """
  folder = Path(folder)
  if not folder.is_dir():
    return None
  there = sorted(os.listdir(folder))
  for name in names:
    if name in there:
      return folder / name
    for other in there:
      if other.casefold() == name.casefold():
        return folder / other
  return None


class FileIndex:
  """The files below a folder, found by their path in any case."""

  def __init__(self, folder: str | Path, *, suffixes: Sequence[str] = SUFFIXES):
    """Lists the folder, see `list_files`."""
    self._paths = list_files(folder, suffixes=suffixes)
    self._by_folded = {path.casefold(): path for path in self._paths}
    # The exact spelling wins where two differ in case alone.
    self._exact = frozenset(self._paths)

  def __len__(self) -> int:
    return len(self._paths)

  def __iter__(self) -> Iterator[str]:
    return iter(self._paths)

  def find(self, path: str) -> str | None:
    """The path as it is spelt on disk, or None."""
    path = os.path.normpath(path.replace('\\', '/'))
    return path if path in self._exact else self._by_folded.get(path.casefold())


@dataclasses.dataclass(kw_only=True)
class Missing:
  """Counts files that a list names and that do not exist.

  Attributes:
    what: name of the list, for messages.
    folder: where the files should be.
    limit: share of the listed files that may be missing; one may always be.
  """

  what: str
  folder: str | Path
  limit: float = MAX_MISSING
  count: int = 0
  first: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if not 0 <= self.limit <= 1:
      raise InputError(f'the share that may be missing, {self.limit}, is not from 0 to 1')

  def add(self, name: str) -> None:
    self.count += 1
    if len(self.first) < NAMED:
      self.first.append(name)

  def close(self, rows: int, report: Report) -> None:
    """Reports what is missing of `rows` files; InputError where it is too much."""
    if not self.count:
      return
    line = (
      f'{self.count:,} of {counted(rows, "file")} that {self.what} names are '
      f'missing: {named(self.first, self.count)}'
    )
    if self.count > max(1, self.limit * rows):
      raise InputError(
        f'{line}; complete {self.folder}, or allow more (--max-missing, now {self.limit:g})'
      )
    report(f'left out: {line}')


def named(names: Sequence[str], count: int | None = None) -> str:
  """The first few names, and how many more there are."""
  count = len(names) if count is None else count
  shown = ', '.join(str(n) for n in names[:NAMED])
  return f'{shown} and {count - NAMED:,} more' if count > NAMED else shown


def hold_out(units: Iterable[str], *, fraction: float, seed: int) -> frozenset[str]:
  """Picks `fraction` of the units by a hash of the seed and each unit's name.

  At least one where there are two or more, never all. Which are picked depends
  on neither their order nor the machine.
  """
  units = sorted(
    set(units), key=lambda unit: hashlib.blake2b(f'{seed}/{unit}'.encode(), digest_size=8).digest()
  )
  count = min(max(1, round(fraction * len(units))), len(units) - 1)
  return frozenset(units[: max(0, count)])


def check_fraction(fraction: float) -> None:
  """Raises InputError for a share to hold out that is not in (0, 1)."""
  if not 0 < fraction < 1:
    raise InputError(f'the test fraction {fraction} is not between 0 and 1')


def split_by(
  items: Sequence[Item], unit: Callable[[Item], str], *, fraction: float, seed: int
) -> dict[str, list[Item]]:
  """Holds out units of each class; a unit's items stay together.

  Args:
    items: in the order in which they are stored.
    unit: what is held out as a whole: the item's key, or a recording, or a person.
    fraction: share of each class's units.
    seed: of the choice.

  Returns:
    'train' and 'test', in the order of `items`.
  """
  units = {}
  for item in items:
    units.setdefault(item.label, set()).add(unit(item))
  held = {label: hold_out(of, fraction=fraction, seed=seed) for label, of in units.items()}
  splits = {'train': [], 'test': []}
  for item in items:
    splits['test' if unit(item) in held[item.label] else 'train'].append(item)
  return splits


def key_of(item: Item) -> str:
  """An item's key: the unit of a hold-out by image."""
  return item.key


def require_folder(source: str | Path) -> Path:
  """`source` as a path; InputError where it is no folder."""
  source = Path(source)
  if not source.is_dir():
    raise InputError(f'there is no folder {source}')
  return source


def unreadable(source: str | Path, error: OSError) -> InputError:
  """The error for a dataset that cannot be listed."""
  return InputError(f'{error.filename or source} cannot be read: {error.strerror or error}')


def _check_name(path: str, root: str) -> None:
  """Raises InputError for names that are not UTF-8, in which records store them."""
  try:
    path.encode()
  except UnicodeEncodeError as error:
    # Python represents bytes that are not UTF-8 as lone surrogates.
    name = os.fsencode(os.path.join(root, path))
    raise InputError(f'the name {name!r} is not UTF-8; rename it') from error


def _cut(image: np.ndarray, box: CropBox) -> np.ndarray:
  height, width = image.shape[:2]
  left, top = max(0, round(box.x)), max(0, round(box.y))
  right = min(width, round(box.x + box.width))
  bottom = min(height, round(box.y + box.height))
  if right <= left or bottom <= top:
    return image
  return np.ascontiguousarray(image[top:bottom, left:right])


def _shrink(rgb: np.ndarray, short_side: int) -> np.ndarray:
  height, width = rgb.shape[:2]
  if min(height, width) <= short_side:
    return rgb
  scale = short_side / min(height, width)
  size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
  return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


_ENCODERS = {
  'jpeg': ('.jpg', [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]),
  # OpenCV's default of 1 makes images of signals two to three times as large.
  'png': ('.png', [cv2.IMWRITE_PNG_COMPRESSION, 3]),
}
