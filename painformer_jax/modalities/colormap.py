"""Colouring of single-channel maps."""

import cv2
import numpy as np

from painformer_jax.core.errors import InputError

PALETTES = {'viridis': cv2.COLORMAP_VIRIDIS, 'inferno': cv2.COLORMAP_INFERNO}


def viridis(levels: np.ndarray) -> np.ndarray:
  """Colours levels with viridis, as OpenCV tabulates it.

  OpenCV's 256 entries are within 1/255 of matplotlib's in every channel.

  Args:
    levels: uint8 [h, w].

  Returns:
    uint8 [h, w, 3], RGB.
  """
  return colour(levels, palette='viridis')


def colour(levels: np.ndarray, *, palette: str) -> np.ndarray:
  """Colours levels with a palette of `PALETTES`.

  Args:
    levels: uint8 [h, w].

  Returns:
    uint8 [h, w, 3], RGB.

  Raises:
    InputError: no such palette.
  """
  if palette not in PALETTES:
    raise InputError(f'palettes are {", ".join(PALETTES)}, not {palette!r}')
  bgr = cv2.applyColorMap(levels, PALETTES[palette])
  return np.ascontiguousarray(bgr[..., ::-1])


def stretch(values: np.ndarray, *, valid: np.ndarray | None = None) -> np.ndarray:
  """A map's own least and greatest value become levels 0 and 255.

  Args:
    values: real [h, w].
    valid: bool [h, w], where the map holds a measurement; None for everywhere.
      What is not valid or not finite becomes 0.

  Returns:
    uint8 [h, w]; all 0 for a map of one value.

  Raises:
    InputError: not one valid, finite value.
  """
  values = np.asarray(values, np.float64)
  good = np.isfinite(values)
  if valid is not None:
    good &= valid
  if not good.any():
    raise InputError('the map has not one valid value')
  low, high = values[good].min(), values[good].max()
  levels = (np.where(good, values, low) - low) * (255 / ((high - low) or 1))
  return np.rint(levels).astype(np.uint8)
