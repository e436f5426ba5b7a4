"""Thermal and depth frames that the user already has.

The paper's thermal and depth frames are coloured. Frames in colour are taken as they are.
Single-channel frames (thermographs, depth maps; 8 or 16 bits or floats) hold measurements
whose range depends on the camera: each is scaled between its own extremes and coloured.
This scaling and the palette of thermal frames are reconstructed; the palette of depth
frames, viridis, is the paper's.
"""

from collections.abc import Iterable
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from painformer_jax.core.pictures import to_rgb
from painformer_jax.modalities import palettes
from painformer_jax.modalities.colormap import colour, stretch

PALETTE = {'thermal': 'inferno', 'depth': 'viridis'}

Kind = Literal['grey', 'palette', 'colour']

# Levels by which the channels of a grey frame may differ: encoders store colour apart from
# brightness, and both are rounded. In a dark frame the colours of things differ by little more,
# so there it is less, down to the second value. A logo or a cross in colour may cover the rest.
_GREY, _GREY_DARK, _GREY_SHARE = 8.0, 3.0, 95
# Frames whose brightest pixels are below this are dark.
_DARK = 128
# Below this contrast, in levels, a frame says little about its file.
_CONTRAST = 16


def kind_of(frames: Iterable[np.ndarray]) -> Kind:
  """What the frames of one file are; decided once for all of them.

  Args:
    frames: some of the file's; uint8 [height, width, 3] RGB, or [height, width] of any
      type for those that are stored with a single channel.

  Returns:
    'grey' if they hold one value a pixel, though it be stored in three channels that
    differ by a few levels; 'palette' if they seem to be coloured by a palette; 'colour' for
    what a camera for visible light sees. The majority counts, of those with any contrast, or
    of all where there are none; 'grey' where there are no frames.
  """
  found = [_kind_of_one(frame) for frame in frames]
  kinds = [kind for kind, contrast in found if contrast] or [kind for kind, _ in found]
  return max(('grey', 'palette', 'colour'), key=kinds.count)


def draw(frame: np.ndarray, kind: Kind, *, modality: str) -> np.ndarray:
  """One frame of a file, in colour.

  Args:
    frame: as for `kind_of`; a grey one as `values` or `video.frames(grey=True)` give it.
    kind: of its file, from `kind_of`.
    modality: 'thermal' or 'depth'.

  Returns:
    uint8 [height, width, 3] RGB; a frame that is not grey comes back as it is.

  Raises:
    InputError: it is grey and has not one valid value.
  """
  if kind == 'grey' or frame.ndim == 2:
    return colour_map(_single(frame), modality=modality)
  return frame


def colour_map(values: np.ndarray, *, modality: str) -> np.ndarray:
  """Colours one map of measurements.

  Args:
    values: real [height, width]. In depth maps, 0 means that the camera saw
      nothing there; it is drawn in the darkest colour, as is what is not finite.
    modality: 'thermal' or 'depth'.

  Returns:
    uint8 [height, width, 3] RGB.

  Raises:
    InputError: not one valid value.
  """
  valid = values != 0 if modality == 'depth' else None
  return colour(stretch(values, valid=valid), palette=PALETTE[modality])


def values(image: Image.Image) -> np.ndarray:
  """A page of an image file, turned upright, with all the levels that it stores.

  Returns:
    [height, width] of any real type for a single channel, else uint8 [height, width, 3] RGB.
  """
  if image.mode in ('L', 'F', 'I') or image.mode.startswith('I;16'):
    return np.asarray(ImageOps.exif_transpose(image))
  return np.asarray(to_rgb(image))


def _single(frame: np.ndarray) -> np.ndarray:
  return frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _kind_of_one(frame: np.ndarray) -> tuple[Kind, bool]:
  """The kind of a frame, and whether it has any contrast."""
  if frame.ndim == 2:
    return 'grey', True
  # Single pixels, since a mean of several has a colour that none of them has.
  rows, columns = (np.linspace(0, n - 1, min(n, 160)).astype(int) for n in frame.shape[:2])
  pixels = np.ascontiguousarray(frame[rows[:, None], columns])
  low, high = np.percentile(pixels, (1, 99))
  apart = max(_GREY_DARK, _GREY * min(1.0, high / _DARK))
  if np.percentile(np.ptp(pixels, axis=-1), _GREY_SHARE) <= apart:
    return 'grey', bool(high - low >= _CONTRAST)
  kind: Kind = 'palette' if palettes.is_coloured(pixels) else 'colour'
  return kind, bool(high - low >= _CONTRAST)
