"""Whether the colours of a frame are those of a palette, or of light.

A palette is a curve through the space of colours: it has one colour for each value. Light that is
tinted, dim or before a green screen still spreads beside any curve. Palettes of OpenCV, which
are also matplotlib's, are known by their colours; others are those whose colour follows from
the brightness, and is not merely a tint.
"""

import functools

import cv2
import numpy as np

# Pixels are counted by colour in cells of so many levels a side. One colour counts for at most
# this share of the pixels, as a wall of one colour says nothing about the rest; and a cell of
# fewer pixels than this is the blur of an edge.
_CELL, _MOST, _FEWEST = 8, 0.01, 3
_CELLS = 400  # The most frequent ones are looked at.
# Nearly black and nearly white are in many palettes and in all photographs. At least this share of
# the colours must be others.
_BLACK, _WHITE, _OTHERS = 48, 232, 0.1
# A colour is of a palette if it is so near, in levels, or, where it is dark, by this share of its
# brightest channel. A frame is if this share of its colours is.
_NEAR, _NEAR_DARK, _SHARE = 14.0, 0.12, 0.8
# Otherwise: this share of the variance of colour, once a tint is taken off, does not follow from
# the brightness, at most; the variance in levels² is as large as this, at least. Of
# photographs the least share is 0.06.
_LEFT, _LARGE = 0.05, 60.0
_BIN = 12  # Levels of brightness that are looked at together.


def is_coloured(pixels: np.ndarray) -> bool:
  """Whether a palette seems to have coloured a frame.

  Args:
    pixels: uint8 [height, width, 3] RGB, single pixels of a frame.
  """
  flat = pixels.reshape(-1, 3)
  cells, place, counts = np.unique(flat // _CELL, axis=0, return_inverse=True, return_counts=True)
  sums = np.zeros((len(cells), 3))
  np.add.at(sums, place.ravel(), flat)
  colours = (sums / counts[:, None]).astype(np.float32)
  weights = np.where(counts < _FEWEST, 0, np.minimum(counts, _MOST * len(flat)))
  if not weights.sum():
    return False
  return _known(colours, weights) or _follows(colours, weights)


def _known(colours: np.ndarray, weights: np.ndarray) -> bool:
  """Whether nearly all colours are of one palette of OpenCV.

  Args:
    colours: float32 [n, 3] RGB.
    weights: [n].
  """
  others = weights * ((colours.max(1) >= _BLACK) & (colours.min(1) <= _WHITE))
  if others.sum() < _OTHERS * weights.sum():
    return False
  chosen = np.argsort(-others)[:_CELLS]
  colours, others = colours[chosen], others[chosen]
  near = np.minimum(_NEAR, _NEAR_DARK * colours.max(1))
  shares = [
    others[np.square(colours[:, None] - table).sum(-1).min(1) <= near**2].sum()
    for table in _tables()
  ]
  return bool(max(shares) >= _SHARE * others.sum())


def _follows(colours: np.ndarray, weights: np.ndarray) -> bool:
  """Whether the two differences of colour (Cb, Cr) follow from the brightness.

  This must hold without the brightness at which colour stands out most, too: a green screen
  behind things under red light is no palette.
  """
  light, *differences = cv2.cvtColor(colours[None] / 255, cv2.COLOR_RGB2YCrCb)[0].T * 255.0
  bins = (light / _BIN).astype(int)
  for _ in range(2):
    if not weights.sum():
      return False
    weights = weights / weights.sum()
    held = np.maximum(np.bincount(bins, weights), 1e-12)
    left, total = 0.0, np.zeros(len(held))
    for each in differences:
      each = each - 127.5
      tint = (weights * each * light).sum() / max((weights * light**2).sum(), 1e-9)
      rest = each - tint * light
      mean = np.bincount(bins, weights * rest) / held
      left += float((weights * (rest - mean[bins]) ** 2).sum())
      total += np.bincount(bins, weights * rest**2)
    if total.sum() < _LARGE or left > _LEFT * total.sum():
      return False
    weights = weights * (np.abs(bins - total.argmax()) > 1)
  return True


@functools.cache
def _tables() -> list[np.ndarray]:
  """Colours of OpenCV's palettes, each float32 [n, 3] RGB."""
  levels = np.arange(0, 256, 3, dtype=np.uint8)[:, None]
  palettes = {v for name, v in vars(cv2).items() if name.startswith('COLORMAP_')}
  return [
    cv2.applyColorMap(levels, palette)[:, 0, ::-1].astype(np.float32)
    for palette in sorted(palettes)
  ]
