"""Image files: their formats and pages; what is made of them is of `core.pictures`."""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Container, Iterator
from typing import BinaryIO, Generic, TypeVar

from PIL import Image

from painformer_jax.core.errors import InputError, import_extra

T = TypeVar('T')

HEIC_EXTRA = 'heic'
# Read by pillow-heif.
HEIC_SUFFIXES = frozenset({'.heic', '.heics', '.heif', '.heifs', '.hif'})
SUFFIXES = HEIC_SUFFIXES | frozenset(
  f'.{name}'
  for name in (
    'apng avif avifs bmp dcx dds dib flc fli gif icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg '
    'jpx mpo msp pbm pcx pfm pgm png pnm ppm psd qoi ras sgi tga tif tiff webp xbm xpm'
  ).split()
)

# Formats of Pillow whose further images are pages or moments. Those of others are previews,
# layers or sizes of the first one.
_PAGED = frozenset({'TIFF', 'GIF', 'PNG', 'WEBP', 'AVIF', 'HEIF', 'FLI', 'DCX'})
_TIMED = frozenset({'GIF', 'PNG', 'WEBP', 'AVIF', 'FLI'})
_HEIC_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
  """One page of an image file.

  Attributes:
    number: counted from 0; -1 for the page of a file that has one.
    time: seconds from the start of an animation; nan where the file does not say.
    content: what was made of it.
  """

  number: int
  time: float
  content: T


def open_image(source: str | os.PathLike | BinaryIO) -> Image.Image:
  """Opens an image, of any format that Pillow or pillow-heif reads, by its content.

  Args:
    source: a path, or an open file at its start, which `Image.close` leaves open.

  Raises:
    InputError: a package for its format is missing.
    Exception: of nearly any kind, by Pillow: it cannot be opened.
  """
  if isinstance(source, str | os.PathLike):
    with open(source, 'rb') as file:
      start = file.read(12)
  else:
    start = source.read(12)
    source.seek(0)
  # Phones and mail programs change the suffix.
  if start[4:8] == b'ftyp' and start[8:] in _HEIC_BRANDS:
    import_extra('pillow_heif', extra=HEIC_EXTRA).register_heif_opener()
  return Image.open(source)


def read(path: str | os.PathLike, use: Callable[[Image.Image], T]) -> T:
  """What `use` makes of an image file, while it is open at its first page.

  Raises:
    InputError: it cannot be decoded, or a package for its format is missing.
  """
  try:
    with open_image(path) as image:
      return use(image)
  except InputError:
    raise
  # Decoders raise errors of many kinds for damaged files.
  except Exception as error:
    raise _unreadable(path, error) from error


def pages(
  path: str | os.PathLike,
  use: Callable[[Image.Image], T],
  *,
  every: int = 1,
  numbers: Container[int] | None = None,
) -> Iterator[Page[T]]:
  """The pages of an image file: of a TIFF stack, of an animation; of most files one.

  Args:
    use: makes what is yielded of a page, while it is open.
    every: yields pages 0, every, 2 * every, …; for a file of several.
    numbers: of the pages to yield, in place of `every`.

  Raises:
    InputError: no page can be decoded; or, after the pages there are, some could not be.
  """
  if (count := count_pages(path)) <= 1:
    yield Page(number=-1, time=math.nan, content=read(path, use))
    return
  shown, lost, reason = 0, 0, None
  with open_image(path) as image:
    timed, elapsed = image.format in _TIMED, 0.0
    for number, place in enumerate(_places(image)):
      try:
        image.seek(place)
        if timed:
          image.load()  # The time that a page is shown is known then.
        if number % every == 0 if numbers is None else number in numbers:
          content = use(image)
        else:
          content = None
      except Exception as error:
        reason = reason or error
        if timed:  # Each page is drawn on the one before it.
          lost = count - number
          break
        lost += 1
        continue
      shown += 1
      if content is not None:
        known = timed and (number == 0 or elapsed > 0)
        yield Page(number=number, time=elapsed if known else math.nan, content=content)
      elapsed += _milliseconds(image) / 1000
  if not shown:
    raise _unreadable(path, reason)
  if lost:
    raise InputError(
      f'{path} is damaged: {lost} of its {count} pages could not be decoded and are left out'
    )


def count_pages(path: str | os.PathLike) -> int:
  """The number of pages of an image file; 0 if it is none or cannot be read."""
  try:
    with open_image(path) as image:
      return len(_places(image))
  except Exception:
    return 0


def suffixes_without_package() -> frozenset[str]:
  """Those of `SUFFIXES` that need a package which is not installed."""
  return frozenset() if importlib.util.find_spec('pillow_heif') else HEIC_SUFFIXES


def is_image(path: str | os.PathLike) -> bool:
  """Whether a file is an image by its content."""
  try:
    with open_image(path) as image:
      return image.format != 'MPEG'  # A video, of which Pillow knows the name alone.
  except InputError:
    return True  # It needs a package that is missing.
  except Exception:
    return False


def _places(image: Image.Image) -> list[int]:
  """Where the pages of an open image are, for its `seek`."""
  if image.format not in _PAGED:
    return [0]
  found = range(getattr(image, 'n_frames', 1))
  if image.format == 'TIFF':
    # Thumbnails, reduced copies and masks are no pages of their own (tag NewSubfileType).
    return [place for place in found if not _subfile_type(image, place) & 0b101] or [0]
  # The first picture of an APNG may be for programs that show no animation.
  return list(found[1:] if getattr(image, 'default_image', False) else found)


def _subfile_type(image: Image.Image, place: int) -> int:
  image.seek(place)
  value = getattr(image, 'tag_v2', {}).get(254, 0)
  return value if isinstance(value, int) else 0


def _milliseconds(image: Image.Image) -> float:
  value = image.info.get('duration', 0)
  return value if isinstance(value, int | float) and 0 < value < math.inf else 0.0


def _unreadable(path: str | os.PathLike, error: Exception | None) -> InputError:
  return InputError(f'{path} is not a readable image ({error})')
