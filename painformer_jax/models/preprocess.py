"""Images to what the model takes, and words for what the model does not take."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from painformer_jax.core.errors import ArgumentError
from painformer_jax.core.pictures import resize_to_square, to_rgb
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.resizing import resize_images

_LEVELS = 'a uint8 array [batch, height, width, 3]'
_ONE = 'a uint8 array [height, width, 3]'
# What levels 0 and 255 become by the presets' statistics, over the channels, and some room.
_LOWEST, _HIGHEST = -2.6, 3.1
# Noise of unit variance, as in trials of the network, is not warned about.
_FAR = 8.0


def preprocess(
  images: Any,
  *,
  image_size: int = 224,
  mean: Sequence[float] | np.ndarray = PainFormerConfig.mean,
  std: Sequence[float] | np.ndarray = PainFormerConfig.std,
) -> jax.Array:
  """Resizes and normalises images as the release does before the model.

  `model.preprocess(images)` does so for the size of that model.

  Args:
    images: [batch, height, width, 3] uint8 RGB, of any height and width: an array of JAX or
      NumPy, or what converts to one, such as a tensor of PyTorch. Or a Pillow image, of any
      mode, which is turned as its EXIF tag says. Or a list of Pillow images and of arrays
      [height, width, 3] uint8, of any sizes. Blue and red the wrong way round (BGR, as
      OpenCV reads) cannot be noticed: the embeddings are wrong then.
    image_size: side of the result; images are resized to it without cropping, so that their
      aspect ratio is lost.
    mean, std: of each channel, for values in [0, 1]; VGGFace2's by default.

  Returns:
    [batch, image_size, image_size, 3] float32. Resizing is bilinear with antialiasing and
    rounds to whole levels, as torchvision's Resize does on images of Pillow 12: bit for bit,
    here, in `embed` and in `painformer embed`, on any Pillow, jitted or not.

  Raises:
    ArgumentError: another shape or dtype, or a size below 1; it is a ValueError.
  """
  check_count('image_size', image_size)
  images = levels(images, image_size)
  x = jnp.asarray(resize_images(images, image_size)).astype(jnp.float32)
  normalised: jax.Array = (x / 255 - jnp.asarray(mean)) / jnp.asarray(std)
  return normalised


def levels(images: Any, image_size: int) -> np.ndarray | jax.Array:
  """Images as an array of levels.

  Args:
    images: see `preprocess`.
    image_size: side in pixels to which listed images of several sizes are resized.

  Returns:
    [batch, height, width, 3] uint8.

  Raises:
    ArgumentError: they are anything else; says what it may be and what would do.
  """
  if isinstance(images, list | tuple | Image.Image):
    images = _stacked(images, image_size)
  array = as_array(images, wanted=_LEVELS)
  shape = list(array.shape)
  fault = f'images are {array.dtype} {shape}, not {_LEVELS}'
  if (hint := _shape_hint(array.shape)) or len(shape) != 4 or shape[-1] != 3:
    raise ArgumentError(fault + hint)
  if array.dtype != np.uint8:
    raise ArgumentError(fault + _dtype_hint(array))
  if 0 in shape[1:]:
    raise ArgumentError(f'images are {shape}: without pixels')
  return array


def normalised(images: Any, size: int) -> np.ndarray | jax.Array:
  """Images as an array that a model of an input size takes, by type and shape alone.

  Returns:
    [batch, size, size, 3] floating point.

  Raises:
    ArgumentError: they are anything else; says what it may be and what would do.
  """
  wanted = f'this model takes [batch, {size}, {size}, 3], normalised'
  array = as_array(images, wanted=wanted)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ArgumentError(
      f'images are {array.dtype}; {wanted}: model(model.preprocess(images)), the same as '
      f'pj.preprocess(images, image_size={size})'
    )
  if array.ndim != 4 or array.shape[1:] != (size, size, 3):
    hint = _shape_hint(array.shape)
    if not hint and array.ndim == 4:
      hint = '; model.preprocess(images) resizes uint8 images'
    raise ArgumentError(f'images have shape {tuple(array.shape)}; {wanted}{hint}')
  return array


def warn_of_range(images: np.ndarray | jax.Array, warned: set[str]) -> None:
  """Warns where the values of a batch are not those of normalised images.

  Nothing is computed where the values are not there yet, inside `jax.jit`.

  Args:
    images: floating point.
    warned: what was warned about before, which is not said again; added to.
  """
  low, high = _range(images)
  # Normalised images of little contrast lie between these too, but spread less. Resizing
  # with bicubic weights goes a little beyond.
  if 0 <= low < high <= 1 or (-0.1 <= low and high <= 1.1 and high - low > 0.8):
    kind, found = '0 to 1', 'lie between 0 and 1'
  elif -1.1 <= low and high <= 1.1 and high - low > 1.7:
    kind, found = '-1 to 1', 'lie between -1 and 1'
  elif low < -_FAR or high > _FAR:
    kind, found = 'beyond', f'lie between {low:.4g} and {high:.4g}'
  elif np.isnan(low):
    kind, found = 'NaN', 'hold NaN'
  else:
    return
  if kind not in warned:
    warned.add(kind)
    warnings.warn(
      f'images {found}, normalised ones between -2.4 and 3.0: the result is not that of these '
      'images. Give uint8 images to model.preprocess first',
      stacklevel=3,
    )


def as_array(images: Any, *, wanted: str, name: str = 'images') -> np.ndarray | jax.Array:
  """An array of what may be one, without importing the library that it is of.

  Args:
    images: an array of NumPy or JAX, or anything with `__array__` or `__dlpack__`.
    wanted: ends the message, after 'not' or a semicolon.
    name: of the argument.

  Raises:
    ArgumentError: it is no array.
  """
  if isinstance(images, np.ndarray | jax.Array):
    return images
  kind, hint = type(images).__name__, ''
  if isinstance(images, list | tuple) and name == 'images':
    hint = '; model.preprocess(images) takes lists of images'
  elif isinstance(images, Image.Image):
    kind, hint = 'Pillow image', '; model.preprocess(image) makes one'
  elif isinstance(images, str | os.PathLike):
    hint = '; files are embedded by: painformer embed'
  elif hasattr(images, '__array__') or hasattr(images, '__dlpack__'):
    # Tensors of PyTorch may carry gradients or lie on a device.
    for step in 'detach', 'cpu':
      images = getattr(images, step, lambda images=images: images)()
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
      # NumPy wraps what it does not know as an object.
      if (array := np.asarray(images)).dtype != object:
        return array
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
      return jnp.from_dlpack(images)
    hint = '; it cannot be converted'
  separator = ', not ' if wanted.startswith('a ') else '; '
  verb = 'are' if name == 'images' else 'is'
  raise ArgumentError(f'{name} {verb} a {kind}{separator}{wanted}{hint}')


def check_count(name: str, value: Any) -> None:
  """Asserts that an argument is a whole number of at least 1.

  Raises:
    ArgumentError: it is anything else.
  """
  if not isinstance(value, int | np.integer) or isinstance(value, bool):
    raise ArgumentError(f'{name} is {value!r}, no whole number')
  if value < 1:
    raise ArgumentError(f'{name} is {value}, below 1')


def _stacked(images: Any, size: int) -> np.ndarray:
  """A Pillow image, or a list of images, as one array; resized where they differ in size.

  Returns:
    [images, height, width, 3] uint8.
  """
  if not isinstance(images, list | tuple):
    return np.asarray(to_rgb(images))[None]
  if not images:
    raise ArgumentError(f'images are an empty list, not {_LEVELS}, or images in a list')
  several = []
  for number, image in enumerate(images):
    if isinstance(image, Image.Image):
      several.append(np.asarray(to_rgb(image)))
      continue
    where = f'images[{number}]'
    array = as_array(image, wanted=_ONE, name=where)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or not array.size:
      hint = '' if array.dtype == np.uint8 else _dtype_hint(array)
      raise ArgumentError(f'{where} is {array.dtype} {list(array.shape)}, not {_ONE}{hint}')
    several.append(np.asarray(array))
  if len({image.shape for image in several}) > 1:
    several = [resize_to_square(image, size) for image in several]
  return np.stack(several)


def _shape_hint(shape: Sequence[int]) -> str:
  if len(shape) == 4 and shape[1] == 3 != shape[3]:
    return '; colours come last: numpy.moveaxis(images, 1, -1)'
  if len(shape) == 3 and shape[-1] == 3:
    return '; of one image: images[None]'
  if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1):
    return '; of grey images: repeat the values for the three colours'
  if len(shape) == 4 and shape[-1] == 4:
    return '; without transparency: images[..., :3]'
  return ''


def _dtype_hint(images: np.ndarray | jax.Array) -> str:
  """What to do with values that are not uint8."""
  if images.dtype == bool:
    return '; True and False become levels by images * numpy.uint8(255)'
  if not jnp.issubdtype(images.dtype, jnp.number):
    return ''
  low, high = _range(images)
  if not jnp.issubdtype(images.dtype, jnp.floating):
    if 0 <= low and high <= 255:
      return '; levels 0 to 255 become images by images.astype(numpy.uint8)'
    if images.dtype == np.uint16:
      return '; levels of 16 bits become images by (images >> 8).astype(numpy.uint8)'
    return f'; values {low:.6g} to {high:.6g} are no levels: bring them to 0 to 255 first'
  if 0 <= low and high <= 1:
    return '; values in 0 to 1 become levels by (images * 255).round().astype(numpy.uint8)'
  if -1 <= low and high <= 1:
    return '; values in -1 to 1 become levels by ((images + 1) * 127.5).round().astype(numpy.uint8)'
  if 0 <= low and _HIGHEST < high <= 255:
    return '; values in 0 to 255 become levels by images.round().astype(numpy.uint8)'
  if _LOWEST <= low and high <= _HIGHEST:
    return '; normalised images go into the model itself: model(images).embedding'
  return '; floating point is for the model itself, normalised'


def _range(images: np.ndarray | jax.Array) -> tuple[float, float]:
  """Least and greatest value; (0, 0) where there is none, or none that is known yet."""
  if isinstance(images, jax.core.Tracer) or not images.size:
    return 0.0, 0.0
  if isinstance(images, jax.Array):
    if not images.is_fully_addressable:
      return 0.0, 0.0
    # Of an array that a function under `jax.jit` has from outside, the values are there.
    with jax.ensure_compile_time_eval():
      return float(jnp.min(images)), float(jnp.max(images))
  return float(np.min(images)), float(np.max(images))
