"""Contact sheets: images with captions, to see what the model sees."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from painformer_jax.checkpoints.atomic import check_file_target, write_atomically
from painformer_jax.errors import InputError

SUFFIXES = ('.png', '.jpg', '.jpeg')

# Layout, pixels.
_MARGIN, _GAP, _HEADING, _LINE_HEIGHT = 16, 10, 40, 15
_PAPER, _INK, _FAINT, _EDGE = (250, 250, 248), (30, 30, 34), (110, 110, 118), (205, 205, 208)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
  """One image of a sheet, and two lines below it.

  Attributes:
    image: uint8 [h, w, 3] RGB.
    title, caption: text; what does not fit is cut off.
  """

  image: np.ndarray
  title: str
  caption: str = ''


def check_path(path: str | os.PathLike) -> None:
  """Refuses a path that `write_sheet` would refuse.

  Raises:
    InputError: another suffix than `SUFFIXES`, or a folder that is not there.
  """
  if pathlib.Path(path).suffix.lower() not in SUFFIXES:
    raise InputError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
  check_file_target(path)


def draw_sheet(
    tiles: Sequence[Tile], *, heading: str, columns: int = 8, side: int = 160,
) -> np.ndarray:
  """Draws tiles in rows, from left to right.

  Args:
    tiles: at least one.
    heading: of the sheet.
    columns: tiles in a row.
    side: of a tile's image, pixels.

  Returns:
    uint8 [height, width, 3] RGB.

  Raises:
    InputError: no tile, or a number below 1.
  """
  if not tiles or columns < 1 or side < 16:
    raise InputError(f'no sheet of {len(tiles)} images in {columns} columns, {side} pixels wide')
  columns = min(columns, len(tiles))
  rows = -(-len(tiles) // columns)
  pitch = side + 2 * _LINE_HEIGHT + _GAP
  width = max(2 * _MARGIN + columns * (side + _GAP) - _GAP, 420)
  page = np.full((_HEADING + rows * pitch + _MARGIN, width, 3), _PAPER, np.uint8)
  _write(page, heading, (_MARGIN, 26), room=width - 2 * _MARGIN, size=0.5, colour=_INK)
  for number, tile in enumerate(tiles):
    left = _MARGIN + number % columns * (side + _GAP)
    top = _HEADING + number // columns * pitch
    shrink = tile.image.shape[0] > side
    page[top:top + side, left:left + side] = cv2.resize(
        tile.image, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_NEAREST)
    cv2.rectangle(page, (left - 1, top - 1), (left + side, top + side), _EDGE, 1)
    for line, (text, colour) in enumerate(((tile.title, _INK), (tile.caption, _FAINT)), 1):
      _write(page, text, (left, top + side + line * _LINE_HEIGHT - 2), room=side, size=0.36,
             colour=colour)
  return page


def write_sheet(path: str | os.PathLike, tiles: Sequence[Tile], **options) -> None:
  """Writes a sheet; the options are those of `draw_sheet`.

  Raises:
    InputError: as `check_path` and `draw_sheet` say, or the disk is full.
  """
  check_path(path)
  page = draw_sheet(tiles, **options)
  suffix = pathlib.Path(path).suffix.lower()
  # JPEG files are at most 65535 pixels high.
  if suffix != '.png' and max(page.shape) > 65_535:
    raise InputError(f'{path}: the sheet is {page.shape[0]} pixels high, too many for JPEG: '
                     'take .png, or fewer images')
  encoded = cv2.imencode(suffix, cv2.cvtColor(page, cv2.COLOR_RGB2BGR))[1].tobytes()
  write_atomically(path, lambda file: file.write(encoded))


def _write(page, text, place, *, room, size, colour) -> None:
  """Writes one line, cut off where it is too long."""
  # OpenCV's fonts have ASCII alone.
  text = text.encode('ascii', 'replace').decode()

  def extent(text):
    return cv2.getTextSize(text, _FONT, size, 1)[0][0]

  if extent(text) > room:
    while text and extent(text + '...') > room:
      text = text[:-1]
    text += '...'
  cv2.putText(page, text, place, _FONT, size, colour, 1, cv2.LINE_AA)
