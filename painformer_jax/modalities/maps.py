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
from painformer_jax.modalities.colormap import colour, stretch

PALETTE = {'thermal': 'inferno', 'depth': 'viridis'}

Kind = Literal['grey', 'palette', 'colour']

# Levels by which the channels of a grey frame may differ: encoders store colour apart from
# brightness, and both are rounded. A logo or a cross in colour may cover the rest.
_GREY, _GREY_SHARE = 8, 95
# Below this contrast, in levels, a frame says nothing about its file.
_CONTRAST = 16
# The two colour differences (Cb, Cr) of a palette follow from the brightness: what is left
# of their variance is this share at most, and the variance itself is large. Palettes that
# have several colours of one brightness, such as rainbows, have a very large one.
_LEFT, _LARGE, _VERY_LARGE = 0.1, 250.0, 2500.0


def kind_of(frames: Iterable[np.ndarray]) -> Kind:
  """What the frames of one file are; decided once for all of them.

  Args:
    frames: some of the file's; uint8 [height, width, 3] RGB, or [height, width] of any
      type for those that are stored with a single channel.

  Returns:
    'grey' if they hold one value a pixel, though it be stored in three channels that
    differ by a few levels; 'palette' if they seem to be coloured by a palette; 'colour' for
    what a camera for visible light sees. The majority counts, of those with any contrast;
    'grey' where there are none.
  """
  kinds = [kind for frame in frames if (kind := _kind_of_one(frame))]
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


def _kind_of_one(frame: np.ndarray) -> Kind | None:
  """None for a frame without contrast."""
  if frame.ndim == 2:
    return 'grey'
  # Single pixels, since a mean of several has a colour that none of them has.
  rows, columns = (np.linspace(0, n - 1, min(n, 160)).astype(int) for n in frame.shape[:2])
  pixels = np.ascontiguousarray(frame[rows[:, None], columns])
  if np.ptp(np.percentile(pixels, (1, 99))) < _CONTRAST:
    return None
  if np.percentile(np.ptp(pixels, axis=-1), _GREY_SHARE) <= _GREY:
    return 'grey'
  brightness, *differences = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb).reshape(-1, 3).T
  total = sum(float(d.var()) for d in differences)
  bins = brightness // 8
  counts = np.bincount(bins)
  left = 0.0
  for each in differences:
    mean = np.bincount(bins, each) / np.maximum(counts, 1)
    left += float(((each - mean[bins]) ** 2).mean())
  by_palette = (left <= _LEFT * total and total >= _LARGE) or total >= _VERY_LARGE
  return 'palette' if by_palette else 'colour'
