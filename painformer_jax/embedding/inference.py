"""Images to embeddings, in memory."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from painformer_jax.embedding.resizing import resize_images
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig, Preset
from painformer_jax.models.painformer import PainFormer


def preprocess(
  images: ArrayLike,
  *,
  image_size: int = 224,
  mean: Sequence[float] | np.ndarray = Preset.mean,
  std: Sequence[float] | np.ndarray = Preset.std,
) -> jax.Array:
  """Resizes and normalises images as the release does before the model.

  Args:
    images: [batch, height, width, 3] uint8 RGB, of any height and width.
    image_size: side of the result; images are resized to it without cropping, so that their
      aspect ratio is lost.
    mean, std: of each channel, for values in [0, 1]; VGGFace2's by default.

  Returns:
    [batch, image_size, image_size, 3] float32. Resizing is bilinear with antialiasing and
    rounds to whole levels, as torchvision's Resize does on images of Pillow 12: bit for bit,
    here, in `embed` and in `painformer embed`, on any Pillow, jitted or not.

  Raises:
    ValueError: another shape or dtype, or a size below 1.
  """
  _check(images)
  if image_size < 1:
    raise ValueError(f'image_size is {image_size}, below 1')
  x = jnp.asarray(resize_images(images, image_size)).astype(jnp.float32)
  normalised: jax.Array = (x / 255 - jnp.asarray(mean)) / jnp.asarray(std)
  return normalised


def embed(model: PainFormer, images: np.ndarray | jax.Array, *, batch_size: int = 32) -> np.ndarray:
  """Embeddings of any number of images.

  Args:
    model: from `load` or `create`; its head, if any, is not used.
    images: [batch, height, width, 3] uint8 RGB, of any height and width.
    batch_size: images at once, at most. A last, smaller batch is padded. Fewer images
      than this run as the next power of two, so that few programs are compiled.

  Returns:
    [batch, 160] float32 (the model's last width).

  Raises:
    ValueError: another shape or dtype, or a batch size below 1.
  """
  _check(images)
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}, below 1')
  power = 1 << max(len(images) - 1, 0).bit_length()
  embedder = Embedder(model, batch_size=min(batch_size, power))
  # Resized before the compiled program, one serves images of every size.
  parts = [
    embedder(
      np.asarray(
        resize_images(images[start : start + embedder.batch_size], model.config.image_size)
      )
    )
    for start in range(0, len(images), embedder.batch_size)
  ]
  width = model.config.embedding_width
  return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)


class Embedder:
  """A model compiled once, for batches of one size; smaller batches are padded.

  Args:
    model: from `load` or `create`.
    batch_size: images of the compiled program.
  """

  def __init__(self, model: PainFormer, *, batch_size: int):
    self.batch_size = batch_size
    self._config = model.config
    self._arrays = functional.variables(model)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """[up to batch_size, height, width, 3] uint8 -> [the same, width] float32."""
    rows = len(images)
    if rows < self.batch_size:
      fill = np.zeros((self.batch_size - rows, *images.shape[1:]), np.uint8)
      images = np.concatenate([images, fill])
    return np.asarray(_embed(self._arrays, images, config=self._config))[:rows]


@functools.partial(jax.jit, static_argnames='config')
def _embed(arrays: functional.Arrays, images: jax.Array, *, config: PainFormerConfig) -> jax.Array:
  model = functional.from_variables(config, arrays)
  x = preprocess(images, image_size=config.image_size)
  return model(x).embedding.astype(jnp.float32)


def _check(images: Any) -> None:
  wanted = 'a uint8 array [batch, height, width, 3]'
  if not hasattr(images, 'dtype'):
    raise ValueError(
      f'images are a {type(images).__name__}, not {wanted}; '
      'numpy.stack makes one of several of one size'
    )
  shape = list(np.shape(images))
  if len(shape) != 4 or shape[-1] != 3 or images.dtype != np.uint8:
    raise ValueError(f'images are {images.dtype} {shape}, not {wanted}')
  if 0 in shape[1:]:
    raise ValueError(f'images are {shape}: without pixels')
