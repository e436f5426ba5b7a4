"""Images to what the model takes, and words for what the model does not take."""

import contextlib
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
      NumPy, or what converts to one, such as a tensor of PyTorch. Or a Pillow image, or a
      list of them, of any modes and sizes, which are turned as their EXIF tags say. Blue and
      red the wrong way round (BGR, as OpenCV reads) cannot be noticed: the embeddings are
      wrong then.
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
  if image_size < 1:
    raise ArgumentError(f'image_size is {image_size}, below 1')
  images = levels(images, image_size)
  x = jnp.asarray(resize_images(images, image_size)).astype(jnp.float32)
  normalised: jax.Array = (x / 255 - jnp.asarray(mean)) / jnp.asarray(std)
  return normalised


def levels(images: Any, image_size: int) -> np.ndarray | jax.Array:
  """Images as an array of levels.

  Args:
    images: see `preprocess`.
    image_size: side in pixels to which Pillow images of several sizes are resized.

  Returns:
    [batch, height, width, 3] uint8.

  Raises:
    ArgumentError: they are anything else; says what it may be and what would do.
  """
  array = as_array(_pillow_as_array(images, image_size), wanted=_LEVELS)
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
  if 0 <= low < high <= 1:
    found = 'lie between 0 and 1'
  elif -1 <= low and high <= 1 and high - low > 1.7:
    # Normalised images of little contrast lie there too, but spread less.
    found = 'lie between -1 and 1'
  elif low < -_FAR or high > _FAR:
    found = f'lie between {low:.4g} and {high:.4g}'
  elif np.isnan(low):
    found = 'hold NaN'
  else:
    return
  kind = found if 'and' not in found or found.endswith('1') else 'beyond'
  if kind not in warned:
    warned.add(kind)
    warnings.warn(
      f'images {found}, normalised ones between -2.4 and 3.0: the result is not that of these '
      'images. Give uint8 images to model.preprocess first',
      stacklevel=3,
    )


def as_array(images: Any, *, wanted: str) -> np.ndarray | jax.Array:
  """An array of what may be one, without importing the library that it is of.

  Args:
    images: an array of NumPy or JAX, or anything with `__array__` or `__dlpack__`.
    wanted: ends the message, after 'not' or a semicolon.

  Raises:
    ArgumentError: it is no array.
  """
  if isinstance(images, np.ndarray | jax.Array):
    return images
  kind, hint = type(images).__name__, ''
  if isinstance(images, list | tuple):
    hint = '; numpy.stack makes one of several of one size'
  elif isinstance(images, Image.Image):
    kind, hint = 'Pillow image', '; model.preprocess(image) makes one'
  elif isinstance(images, str):
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
  raise ArgumentError(f'images are a {kind}{separator}{wanted}{hint}')


def _pillow_as_array(images: Any, size: int) -> Any:
  """Pillow images as one array, resized where they differ in size; anything else as it is."""
  several = list(images) if isinstance(images, list | tuple) else [images]
  if not several or not all(isinstance(image, Image.Image) for image in several):
    return images
  several = [to_rgb(image) for image in several]
  if len({image.size for image in several}) > 1:
    return np.stack([resize_to_square(image, size) for image in several])
  return np.stack([np.asarray(image) for image in several])


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
  if not jnp.issubdtype(images.dtype, jnp.floating):
    return '; levels 0 to 255 become images by images.astype(numpy.uint8)'
  low, high = _range(images)
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
  if images.ndim == 4:
    images = images[:, ::4, ::4]  # Enough to tell ranges, in a fraction of the time.
  return float(np.min(images)), float(np.max(images))
