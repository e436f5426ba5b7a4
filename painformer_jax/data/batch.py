"""Encoded images to uint8 arrays: decoding, squashing to a square, checking."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def decode_rgb(encoded: bytes, *, image_size: int | None = None) -> np.ndarray:
  """Decodes a PNG or JPEG; grey becomes three equal channels.

  Args:
    encoded: the file's bytes.
    image_size: squash to this square (pixels); None keeps the stored size.

  Returns:
    [height, width, 3] uint8, RGB, C-contiguous.

  Raises:
    ValueError: the bytes are not an image that OpenCV can decode.
  """
  try:
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
  except cv2.error:
    bgr = None
  if bgr is None:
    raise ValueError(f'not a readable image ({len(encoded)} bytes)')
  rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
  return rgb if image_size is None else squash(rgb, image_size)


def squash(image: np.ndarray, image_size: int) -> np.ndarray:
  """Resizes to a square without cropping, as the PainFormer release does.

  Args:
    image: [height, width, 3] uint8.
    image_size: side of the square, pixels.

  Returns:
    [image_size, image_size, 3] uint8; the image itself where it has that size.
  """
  height, width = image.shape[:2]
  if (height, width) == (image_size, image_size):
    return image
  # INTER_AREA averages what a pixel covers, so that shrinking does not alias;
  # enlarging with it would repeat pixels.
  shrinks = height >= image_size and width >= image_size
  return cv2.resize(
      image, (image_size, image_size),
      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def decode_strictly(encoded: bytes) -> np.ndarray:
  """Decodes any still image Pillow knows, turned upright as its EXIF says.

  Slower than `decode_rgb`, for the moment an image enters the project: a
  truncated file is an error here and not, as in some OpenCV releases, an image
  whose lower half is grey. 16-bit images keep their upper 8 bits; transparency
  is dropped.

  Returns:
    [height, width, 3] uint8, RGB.

  Raises:
    ValueError: what is wrong with the file, in a few words.
  """
  try:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode == 'I' or image.mode.startswith('I;16'):
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert('RGB'))
  except Exception as error:
    # Pillow's decoders raise nearly anything on mangled files: OSError,
    # SyntaxError, struct.error, EOFError, zlib.error, ...
    # Its "cannot identify image file <_io.BytesIO ...>" would tell nobody more.
    reason = '' if isinstance(error, UnidentifiedImageError) else f': {error}'
    raise ValueError(
        f'not a readable image ({len(encoded)} bytes){reason}') from error
