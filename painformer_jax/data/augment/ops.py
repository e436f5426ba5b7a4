"""Operations on images: [height, width, 3] uint8 RGB in and out; only noise is random.

The operations of TrivialAugment, RandAugment and AugMix do what Pillow does when
torchvision calls it, by OpenCV and tables of 256 levels. Results are identical to
Pillow's, except for colour and sharpness, where fewer than 0.3 % of the values of a photo
are one level off (more, and by two levels, only for factors within 0.01 of 0 or 1).

Translation, shear and rotation take the nearest pixel (torchvision's default for these
policies), with Pillow's 16.16 fixed-point arithmetic. Pixels from outside the image have
the value `fill` in all channels; where `fill` is None, the edge is repeated.

No operation changes its input; one that has nothing to do may return its input.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy.special import ndtri

_LEVELS = np.arange(256, dtype=np.float32)

# Lengths in tables and recipes are pixels of an image of this side.
REFERENCE_SIDE = 224


# Geometry.


def flip(image: np.ndarray) -> np.ndarray:
  """Mirrors left and right."""
  return cv2.flip(image, 1)


def shear_x(image: np.ndarray, slope: float, *, fill: int | None = 0) -> np.ndarray:
  """Row y is taken from `slope` × y to the right: about the upper left corner."""
  return _affine(image, (1.0, slope, 0.0, 0.0, 1.0, 0.0), fill=fill)


def shear_y(image: np.ndarray, slope: float, *, fill: int | None = 0) -> np.ndarray:
  """Column x is taken from `slope` × x below: about the upper left corner."""
  return _affine(image, (1.0, 0.0, 0.0, slope, 1.0, 0.0), fill=fill)


def translate_x(image: np.ndarray, pixels: int, *, fill: int | None = 0) -> np.ndarray:
  """Moves to the right by whole pixels, fewer than the image has; to the left below 0."""
  width = image.shape[1]
  kept = image[:, max(0, -pixels) : width - max(0, pixels)]
  return _bordered(kept, left=max(0, pixels), right=max(0, -pixels), fill=fill)


def translate_y(image: np.ndarray, pixels: int, *, fill: int | None = 0) -> np.ndarray:
  """Moves down by whole pixels, fewer than the image has; up below 0."""
  height = image.shape[0]
  kept = image[max(0, -pixels) : height - max(0, pixels)]
  return _bordered(kept, top=max(0, pixels), bottom=max(0, -pixels), fill=fill)


def rotate(image: np.ndarray, degrees: float, *, fill: int | None = 0) -> np.ndarray:
  """Turns counter-clockwise about the centre; the size stays."""
  x, y = image.shape[1] / 2, image.shape[0] / 2
  cos, sin = (round(f(-math.radians(degrees)), 15) for f in (math.cos, math.sin))
  return _affine(
    image, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y), fill=fill
  )


def crop_resized(image: np.ndarray, *, top: int, left: int, height: int, width: int) -> np.ndarray:
  """Cuts a box out (pixels) and enlarges it to the image's size, bilinearly."""
  box = image[top : top + height, left : left + width]
  return cv2.resize(box, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def shift_scale(image: np.ndarray, *, shift: float, scale_x: float, scale_y: float) -> np.ndarray:
  """Moves right by `shift` (a share of the width) and scales about the centre.

  Bilinear; edge pixels are repeated where nothing else is there.
  """
  height, width = image.shape[:2]
  matrix = np.array(
    [
      [scale_x, 0, (width - 1) / 2 * (1 - scale_x) + shift * width],
      [0, scale_y, (height - 1) / 2 * (1 - scale_y)],
    ]
  )
  return cv2.warpAffine(
    image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )


# Levels. Pillow blends in single precision and truncates.


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Multiplies by `factor`: 0 is black, 1 changes nothing."""
  return cv2.LUT(image, _blend_table(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends with the mean grey: 0 is flat grey, 1 changes nothing."""
  mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
  return cv2.LUT(image, _blend_table(int(mean + 0.5), factor))


def colour(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends with its own grey: 0 is grey, 1 changes nothing, above is more colourful."""
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  return _blend(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends with itself smoothed (3×3): 0 is smooth, 1 changes nothing."""
  # Pillow's kernel weighs the centre five times: the sum of all nine, plus four times it.
  sums = cv2.boxFilter(image, cv2.CV_16U, (3, 3), normalize=False)
  smooth = cv2.addWeighted(sums, 1 / 13, image.astype(np.uint16), 4 / 13, 0).astype(np.uint8)
  # Pillow leaves the outermost pixels as they are.
  smooth[0], smooth[-1] = image[0], image[-1]
  smooth[:, 0], smooth[:, -1] = image[:, 0], image[:, -1]
  return _blend(smooth, image, factor)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
  """Keeps the highest bits of each level, 0 to 8; none is black."""
  return image & np.uint8(256 - 2 ** (8 - bits))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
  """Inverts the levels that are not below the threshold."""
  _, inverted = cv2.threshold(image, math.ceil(threshold) - 1, 255, cv2.THRESH_BINARY)
  return cv2.bitwise_xor(image, inverted)


def invert(image: np.ndarray) -> np.ndarray:
  """White for black."""
  return cv2.bitwise_not(image)


def autocontrast(image: np.ndarray) -> np.ndarray:
  """Stretches each channel's levels to 0..255."""
  # Along one axis at a time: NumPy takes many times longer over both at once.
  low, high = image.min(0).min(0).astype(float), image.max(0).max(0).astype(float)
  flat = high == low
  scale = 255.0 / np.where(flat, 255.0, high - low)
  offset = np.where(flat, 0.0, -low * scale)
  table = np.arange(256)[:, None] * scale + offset
  return cv2.LUT(image, _channel_tables(table))


def equalize(image: np.ndarray) -> np.ndarray:
  """Spreads each channel's levels so that all are about equally frequent."""
  counts = np.stack(
    [cv2.calcHist([image], [channel], None, [256], [0, 256])[:, 0] for channel in range(3)]
  )
  counts = counts.astype(np.int64)
  below = np.cumsum(counts, axis=1) - counts
  highest = 255 - np.argmax(counts[:, ::-1] > 0, axis=1)
  # The pixels below the highest level share the other 255 among them.
  step = (below[range(3), highest] // 255)[:, None]
  tables = np.where(step, (step // 2 + below) // np.maximum(step, 1), np.arange(256))
  return cv2.LUT(image, _channel_tables(tables.T))


# Degradation.


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Gaussian blur of `sigma` pixels."""
  return cv2.GaussianBlur(image, (0, 0), sigma)


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
  """Adds Gaussian noise of `sigma` grey levels, the same to all channels."""
  # Random bytes look up 256 quantiles of the normal distribution: several times quicker
  # than normal variates; the tails end at 2.9 sigma.
  levels = np.round(sigma * ndtri((np.arange(256) + 0.5) / 256))
  drawn = rng.integers(0, 256, image.shape[:2], np.uint8)
  # What is added and what is subtracted, as bytes: neither operation wraps around.
  more, less = (
    cv2.cvtColor(cv2.LUT(drawn, np.clip(part, 0, 255).astype(np.uint8)), cv2.COLOR_GRAY2RGB)
    for part in (levels, -levels)
  )
  return cv2.subtract(cv2.add(image, more), less)


def mask(image: np.ndarray, *, top: int, left: int, height: int, width: int) -> np.ndarray:
  """Fills a box (pixels) with the image's mean colour."""
  return mask_boxes(image, [(top, left)], height=height, width=width)


def mask_boxes(image: np.ndarray, corners, *, height: int, width: int) -> np.ndarray:
  """Fills boxes of one size (pixels), by their upper left corners (top, left),
  with the image's mean colour."""
  masked, mean = image.copy(), np.round(cv2.mean(image)[:3]).tolist()
  if height and width:
    for top, left in corners:
      # Ten times as quick as assignment to a slice; both corners are part of the box.
      cv2.rectangle(masked, (left, top), (left + width - 1, top + height - 1), mean, cv2.FILLED)
  return masked


# The table of operations for TrivialAugment, RandAugment, AugMix and recipes.


def _translated(function: Callable, axis: int) -> Callable:
  def apply(image, value, *, fill):
    # Whole pixels: torchvision truncates as well.
    side = image.shape[axis]
    pixels = int(value * side / REFERENCE_SIDE)
    return function(image, max(1 - side, min(side - 1, pixels)), fill=fill)

  return apply


# Take a value and a fill.
GEOMETRIC: dict[str, Callable] = {
  'shear_x': shear_x,
  'shear_y': shear_y,
  'translate_x': _translated(translate_x, 1),
  'translate_y': _translated(translate_y, 0),
  'rotate': rotate,
}

# Take a value.
STRENGTH: dict[str, Callable] = {
  'brightness': brightness,
  'colour': colour,
  'contrast': contrast,
  'sharpness': sharpness,
  'posterize': posterize,
  'solarize': solarize,
}

# Take nothing but the image.
PLAIN: dict[str, Callable] = {
  'identity': lambda image: image,
  'autocontrast': autocontrast,
  'equalize': equalize,
  'invert': invert,
}

NAMES = (*GEOMETRIC, *STRENGTH, *PLAIN)


def apply(name: str, image: np.ndarray, value: float, *, fill: int | None = 0) -> np.ndarray:
  """One operation of the table.

  Args:
    name: one of NAMES.
    image: [height, width, 3] uint8 RGB.
    value: a slope, degrees, a factor, bits or a threshold, as the operation takes it; for
      translations, pixels of an image of 224 × 224; unused by those of PLAIN.
    fill: see the module's docstring.
  """
  if name in GEOMETRIC:
    return GEOMETRIC[name](image, value, fill=fill)
  return PLAIN[name](image) if name in PLAIN else STRENGTH[name](image, value)


def _affine(image: np.ndarray, matrix, *, fill: int | None) -> np.ndarray:
  """Output pixel (x, y) is the input at (a x + b y + c, d x + e y + f), nearest.

  Coordinates count from pixel corners, as Pillow's do, in 1/65536 of a pixel, as
  Pillow's are for images below 32768 pixels.
  """
  a, b, c, d, e, f = matrix
  height, width = image.shape[:2]
  # Each int32 holds the source pixel, x in the lower half and y in the upper: on
  # little-endian machines, the only ones that JAX supports, that is the pair of int16 that
  # OpenCV takes. In place, because fresh memory costs more than the arithmetic.
  pairs = np.empty((height, width), np.int32)
  np.add(*_coordinates(c, a, b, height=height, width=width), out=pairs)
  pairs >>= 16
  pairs &= 0xFFFF
  x, y = _coordinates(f, d, e, height=height, width=width)
  places = x + y if d else y
  places &= ~0xFFFF
  pairs |= places
  return cv2.remap(
    image, pairs.view(np.int16).reshape(height, width, 2), None, cv2.INTER_NEAREST, **_border(fill)
  )


def _coordinates(
  start: float, by_x: float, by_y: float, *, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates of all pixel centres in 1/65536, as a row and a column to be added."""
  columns, rows = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]
  return columns * _fixed(by_x), rows * _fixed(by_y) + _fixed(start + by_x * 0.5 + by_y * 0.5)


def _fixed(value: float) -> int:
  return math.floor(value * 65536 + 0.5)


def _bordered(image, *, top=0, bottom=0, left=0, right=0, fill):
  border = _border(fill)
  return cv2.copyMakeBorder(
    image, top, bottom, left, right, border.pop('borderMode'), value=border.get('borderValue')
  )


def _border(fill: int | None) -> dict:
  if fill is None:
    return {'borderMode': cv2.BORDER_REPLICATE}
  return {'borderMode': cv2.BORDER_CONSTANT, 'borderValue': (fill,) * 3}


def _blend_table(base: int, factor: float) -> np.ndarray:
  """Where each level goes when blended with a level: [256] uint8."""
  base, factor = np.float32(base), np.float32(factor)
  return np.clip(base + factor * (_LEVELS - base), 0, 255).astype(np.uint8)


def _blend(base: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
  # OpenCV rounds, Pillow truncates: subtracting nearly a half makes rounding truncate.
  # Slightly less than a half, so that whole numbers stay as they are.
  return cv2.addWeighted(image, factor, base, 1 - factor, -0.4998)


def _channel_tables(tables: np.ndarray) -> np.ndarray:
  """[256, 3] levels, one column a channel, for cv2.LUT."""
  return np.clip(tables, 0, 255).astype(np.uint8).reshape(256, 1, 3)
