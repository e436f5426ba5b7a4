"""Decodes stored images to uint8 arrays, quickly or strictly."""

import io

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from painformer_jax.core.pictures import resize_to_square, to_rgb
from painformer_jax.modalities import images


def decode_rgb(encoded: bytes, *, image_size: int | None = None) -> np.ndarray:
  """Decodes a PNG or JPEG; grey becomes three equal channels.

  Args:
    encoded: the file's bytes.
    image_size: side of the square to resize to, without keeping the aspect ratio,
      pixels; None keeps the stored size.

  Returns:
    [height, width, 3] uint8, RGB, C-contiguous.

  Raises:
    ValueError: the bytes are not an image that OpenCV can decode.
  """
  try:
    rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
  except cv2.error:
    rgb = None
  if rgb is None:
    raise ValueError(f'not a readable image ({len(encoded)} bytes)')
  return rgb if image_size is None else resize_to_square(rgb, image_size)


def decode_strictly(encoded: bytes) -> np.ndarray:
  """Decodes the first page of any image that `images` reads, to RGB as `core.pictures.to_rgb` says.

  Slower than `decode_rgb`; for images that are prepared or checked. A truncated file is an
  error here; some OpenCV releases give an image whose lower half is grey.

  Args:
    encoded: the file's bytes.

  Returns:
    [height, width, 3] uint8, RGB.

  Raises:
    ValueError: what is wrong with the file, in a few words.
  """
  try:
    return np.asarray(to_rgb(images.open_image(io.BytesIO(encoded))))
  except Exception as error:
    # Pillow's decoders raise nearly anything on mangled files: OSError,
    # SyntaxError, struct.error, EOFError, zlib.error, ...
    # "cannot identify image file <_io.BytesIO ...>" says no more than what is said here.
    reason = '' if isinstance(error, UnidentifiedImageError) else f': {error}'
    raise ValueError(f'not a readable image ({len(encoded)} bytes){reason}') from error
