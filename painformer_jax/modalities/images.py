"""Still images from files."""

import os

import numpy as np
from PIL import Image, ImageOps

from painformer_jax.errors import InputError

SUFFIXES = frozenset(
    {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.pgm', '.ppm'})


def read_image(path: str | os.PathLike, *, image_size: int) -> np.ndarray:
  """One image file, as the release reads it.

  Args:
    path: of any format that Pillow decodes; turned upright by its EXIF tag,
      grey and palette images become RGB, transparency is dropped, 16-bit
      images are scaled to 8 bits.
    image_size: side of the result; the image is squashed, not cropped.

  Returns:
    [image_size, image_size, 3] uint8 RGB.

  Raises:
    InputError: it cannot be decoded.
  """
  try:
    with Image.open(path) as image:
      image = ImageOps.exif_transpose(image)
      if image.mode.startswith('I') or image.mode == 'F':
        image = _to_8_bits(image)
      return squash(image.convert('RGB'), image_size)
  # Decoders raise errors of many kinds for damaged files.
  except Exception as error:
    raise InputError(f'{path} is not a readable image ({error})') from error


def squash(image: Image.Image | np.ndarray, image_size: int) -> np.ndarray:
  """Resizes to a square as torchvision's Resize does: bilinear, antialiased.

  Args:
    image: Pillow image or [height, width, 3] uint8.
    image_size: side of the square.

  Returns:
    [image_size, image_size, 3] uint8.
  """
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  if image.size != (image_size, image_size):
    image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
  return np.asarray(image)


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Scales 16-bit levels to 0..255; wider ones by their own range."""
  values = np.asarray(image).astype(np.float64)
  low, high = (0, 65535) if values.max() <= 65535 and values.min() >= 0 else (
      values.min(), values.max())
  scaled = (values - low) / max(high - low, 1e-12) * 255
  return Image.fromarray(np.round(scaled).astype(np.uint8))
