"""Batches of images resized by `core.pictures.resize_to_square`, also inside a jitted function.

Pillow resizes in whole numbers: weights of 22 bits, results rounded to levels after each axis.
The same is done here for arrays of JAX, so that all ways to an embedding agree to the last bit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.pictures import resize_to_square

_BITS = 22
# Weights are multiplied in parts of 8 bits. Products and their sums are then exact in float32,
# on devices that round the factors to bfloat16 as well.
_PART = 8
# Beyond so many input pixels for one of the output, the sums would not be.
_MOST_TAPS = 256


def resize_images(images: np.ndarray | jax.Array, image_size: int) -> np.ndarray | jax.Array:
  """Resizes to squares: bilinear, antialiased, the width first, without cropping.

  Args:
    images: [batch, height, width, 3] uint8. NumPy arrays are resized by Pillow, arrays of JAX
      where they are.
    image_size: side of the result, pixels.

  Returns:
    [batch, image_size, image_size, 3] uint8 of the same kind.

  Raises:
    ValueError: an array of JAX is more than a hundred times as long as the result.
  """
  if images.shape[1:3] == (image_size, image_size):
    return images
  if isinstance(images, np.ndarray):
    resized = np.empty((len(images), image_size, image_size, images.shape[3]), np.uint8)
    for number, image in enumerate(images):
      resized[number] = resize_to_square(image, image_size)
    return resized
  for axis in (2, 1):
    images = _resize_axis(images, image_size, axis)
  return images


def _resize_axis(images: jax.Array, size: int, axis: int) -> jax.Array:
  length = images.shape[axis]
  if length == size:
    return images
  x = jnp.moveaxis(images, axis, -1).astype(jnp.float32)
  total = jnp.asarray(1 << (_BITS - 1), jnp.int32)
  for shift, part in _weights(length, size):
    summed = jnp.matmul(x, part, preferred_element_type=jnp.float32)
    total += summed.astype(jnp.int32) << shift
  levels = jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)
  return jnp.moveaxis(levels, -1, axis)


@functools.lru_cache(maxsize=64)
def _weights(length: int, size: int) -> tuple[tuple[int, np.ndarray], ...]:
  """Pillow's weights from `length` pixels to `size`, float32 [length, size], by bits.

  Step by step as Pillow's C code, in float64: a sum in another order rounds differently.
  """
  scale = length / size
  reach = max(scale, 1.0)
  if 2 * reach + 1 > _MOST_TAPS:
    raise ValueError(f'{length} pixels cannot be resized to {size} in a jitted function')
  weights = np.zeros((length, size), np.int32)
  for column in range(size):
    centre = (column + 0.5) * scale
    first = max(int(centre - reach + 0.5), 0)
    last = min(int(centre + reach + 0.5), length)
    taps = [
      max(1.0 - abs((pixel - centre + 0.5) * (1.0 / reach)), 0.0) for pixel in range(first, last)
    ]
    total = 0.0
    for tap in taps:
      total += tap
    for pixel, tap in zip(range(first, last), taps):
      weights[pixel, column] = int(0.5 + tap / total * (1 << _BITS))
  parts = (weights >> shift & (1 << _PART) - 1 for shift in (0, _PART, 2 * _PART))
  return tuple(
    (shift, part.astype(np.float32)) for shift, part in zip((0, _PART, 2 * _PART), parts)
  )
