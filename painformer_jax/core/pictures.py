"""Pictures to 8-bit RGB, and to the square that the network sees, by one rule."""

import numpy as np
from PIL import Image, ImageOps


def to_rgb(image: Image.Image) -> Image.Image:
  """Rotates an image as its EXIF tag says and converts it to 8-bit RGB.

  Grey and palette images become RGB, transparency is dropped. 16-bit grey (modes
  'I;16...') is scaled from 0..65535. 32-bit integers and floats (modes 'I' and
  'F', such as depth maps; Pillow reads 16-bit PGM as 'I') have no set range:
  their own least and greatest finite value become 0 and 255, what is not finite
  becomes 0, and an image of one value is black.

  Raises:
    ValueError: no pixel is finite; or what Pillow's decoders raise for damaged files.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I;16'):
    image = _to_8_bits(np.asarray(image), low=0, high=65535)
  elif image.mode in ('I', 'F'):
    values = np.asarray(image).astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
      raise ValueError('no pixel is finite')
    low, high = values[finite].min(), values[finite].max()
    image = _to_8_bits(np.where(finite, values, low), low=low, high=high)
  return image.convert('RGB')


def resize_to_square(image: Image.Image | np.ndarray, image_size: int) -> np.ndarray:
  """Resizes to a square as torchvision's Resize does on Pillow 12: bilinear, antialiased.

  Nothing is cropped. Training, reports and embedding all resize by this, with the same
  result on any Pillow.

  Args:
    image: Pillow image, or [height, width, 3] or [height, width] uint8.
    image_size: side of the square, pixels.

  Returns:
    [image_size, image_size, 3] uint8, or without the last axis where `image` is
    grey; an array that has the size already is returned as it is.
  """
  if isinstance(image, np.ndarray):
    if image.shape[:2] == (image_size, image_size):
      return image
    image = Image.fromarray(image)
  # The width first, as the release's Pillow does; Pillow 13 may begin with the height, and
  # rounding to whole levels between the two makes a difference.
  image = image.resize((image_size, image.height), Image.Resampling.BILINEAR)
  return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR))


def _to_8_bits(values: np.ndarray, *, low: float, high: float) -> Image.Image:
  scaled = (values.astype(np.float64) - low) * (255 / (high - low or 1))
  return Image.fromarray(np.round(scaled).astype(np.uint8))
