"""Contact sheets: images with captions, to see what the model sees."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import canvas

# Layout, pixels.
_MARGIN, _GAP, _HEADING, _LINE_HEIGHT = 16, 10, 40, 15


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


def draw_sheet(
  tiles: Sequence[Tile], *, heading: str, columns: int = 8, side: int = 160
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
  page = canvas.blank(_HEADING + rows * pitch + _MARGIN, width)
  canvas.write(page, heading, (_MARGIN, 26), room=width - 2 * _MARGIN, size=0.5)
  for number, tile in enumerate(tiles):
    left = _MARGIN + number % columns * (side + _GAP)
    top = _HEADING + number // columns * pitch
    canvas.draw_tile(page, tile.image, left=left, top=top, side=side)
    lines = ((tile.title, canvas.INK), (tile.caption, canvas.FAINT))
    for line, (text, colour) in enumerate(lines, 1):
      canvas.write(
        page,
        text,
        (left, top + side + line * _LINE_HEIGHT - 2),
        room=side,
        size=0.36,
        colour=colour,
      )
  return page


def write_sheet(path: str | os.PathLike, tiles: Sequence[Tile], **options) -> None:
  """Writes a sheet; the options are those of `draw_sheet`.

  Raises:
    InputError: as `draw_sheet` and `canvas.save` say.
  """
  canvas.check_path(path)
  canvas.save(path, draw_sheet(tiles, **options))
