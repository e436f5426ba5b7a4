"""Thermal and depth frames that the user already has.

The paper's thermal and depth frames are coloured. Frames in colour are taken as they are.
Single-channel frames (thermographs, depth maps; 8 or 16 bits or floats) hold measurements
whose range depends on the camera: each is scaled between its own extremes and coloured.
This scaling and the palette of thermal frames are reconstructed; the palette of depth
frames, viridis, is the paper's.
"""

import os

import numpy as np
from PIL import Image, ImageOps

from painformer_jax.modalities import images
from painformer_jax.modalities.colormap import colour, stretch

PALETTE = {'thermal': 'inferno', 'depth': 'viridis'}


def read_map(path: str | os.PathLike, *, modality: str) -> np.ndarray:
  """A thermal or depth image file, coloured.

  Args:
    path: of any format that Pillow decodes.
    modality: 'thermal' or 'depth'.

  Returns:
    uint8 [height, width, 3] RGB.

  Raises:
    InputError: it cannot be decoded, or has no valid pixel.
  """
  return images.read(path, lambda image: _coloured(image, modality))


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


def colour_frame(image: np.ndarray, *, modality: str) -> np.ndarray:
  """Colours a decoded video frame that is grey; others come back as they are.

  Args:
    image: uint8 [height, width, 3] RGB.
  """
  grey = image[..., 0]
  if (image == grey[..., None]).all() and grey.any():
    return colour_map(grey, modality=modality)
  return image


def _coloured(image: Image.Image, modality: str) -> np.ndarray:
  if image.mode in ('L', 'F', 'I') or image.mode.startswith('I;16'):
    return colour_map(np.asarray(ImageOps.exif_transpose(image)), modality=modality)
  return colour_frame(np.asarray(images.to_rgb(image)), modality=modality)
