"""Drawing of contact sheets: paper, captions, tiles, and the file they end in."""

import io
import os
import pathlib
from collections.abc import Iterable
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.targets import NAME, FileKind, check_file_target

PAPER, INK, FAINT, LINE = (250, 250, 248), (30, 30, 34), (115, 115, 122), (205, 205, 208)
PLAIN, HEAVY = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
# JPEG files are at most so many pixels high.
_JPEG_HEIGHT = 65_535


def _is_own(file: BinaryIO) -> bool:
  with Image.open(file, formats=('PNG', 'JPEG')) as image:
    return NAME in (image.info.get('Software'), image.info.get('comment', b'').decode())


KIND = FileKind(suffixes=('.png', '.jpg', '.jpeg'), is_own=_is_own)


def blank(height: int, width: int) -> np.ndarray:
  """Empty paper: uint8 [height, width, 3] RGB."""
  return np.full((height, width, 3), PAPER, np.uint8)


def write(
  page: np.ndarray,
  text: str,
  place: tuple[int, int],
  *,
  room: int,
  size: float,
  colour: tuple[int, int, int] = INK,
  font: int = PLAIN,
) -> int:
  """Writes one line, cut off where it is longer than `room` pixels.

  Args:
    page: uint8 [height, width, 3] RGB, drawn on.
    text: the line; what is not ASCII, which is all that OpenCV's fonts have, becomes '?'.
    place: left end and base line of the text, pixels.
    room: pixels.
    size: of the letters; 1 is about 22 pixels high.
    colour: RGB.
    font: PLAIN or HEAVY.

  Returns:
    Where the text ends, in pixels from the left.
  """
  text = text.encode('ascii', 'replace').decode()

  def extent(text):
    return cv2.getTextSize(text, font, size, 1)[0][0]

  if extent(text) > room:
    while text and extent(text + '...') > room:
      text = text[:-1]
    text = text and text + '...'
  cv2.putText(page, text, place, font, size, colour, 1, cv2.LINE_AA)
  return place[0] + extent(text)


def draw_tile(page: np.ndarray, image: np.ndarray, *, left: int, top: int, side: int) -> None:
  """Draws an image, uint8 [h, w, 3] RGB, as a square of `side` pixels with a line around."""
  shrink = image.shape[0] > side
  cv2.rectangle(page, (left - 1, top - 1), (left + side, top + side), LINE, 1)
  page[top : top + side, left : left + side] = cv2.resize(
    image, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
  )


def check_path(path: str | os.PathLike, *, inputs: Iterable[str | os.PathLike] = ()) -> None:
  """Refuses a path that `save` would refuse.

  Args:
    path: of the file to write.
    inputs: files that are read; none may be the path.

  Raises:
    InputError: another suffix than those of `KIND`, a folder that is not there, a picture that
      `save` did not write.
  """
  check_file_target(path, KIND, inputs=inputs)


def save(path: str | os.PathLike, page: np.ndarray) -> None:
  """Writes a page, uint8 [height, width, 3] RGB, as .png or .jpg.

  Raises:
    InputError: as `check_path` says; the page is too high for JPEG; the disk is full.
  """
  check_path(path)
  suffix = pathlib.Path(path).suffix.lower()
  if suffix != '.png' and page.shape[0] > _JPEG_HEIGHT:
    raise InputError(
      f'{path}: the sheet is {page.shape[0]} pixels high, too many for JPEG: '
      'take .png, fewer images or smaller ones'
    )
  encoded = io.BytesIO()
  if suffix == '.png':
    software = PngImagePlugin.PngInfo()
    software.add_text('Software', NAME)
    Image.fromarray(page).save(encoded, 'png', pnginfo=software)
  else:
    Image.fromarray(page).save(encoded, 'jpeg', quality=95, comment=NAME)
  write_atomically(path, lambda file: file.write(encoded.getbuffer()))
