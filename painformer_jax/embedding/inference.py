"""Images to embeddings, in memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.errors import ArgumentError
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.painformer import PainFormer
from painformer_jax.models.preprocess import check_count, levels
from painformer_jax.models.resizing import resize_images


def embed(model: PainFormer, images: Any, *, batch_size: int = 32) -> np.ndarray:
  """Embeddings of any number of images.

  Args:
    model: from `load` or `create`; its head, if any, is not used.
    images: [batch, height, width, 3] uint8 RGB, of any height and width, or Pillow images;
      see `preprocess`.
    batch_size: images at once, at most. A last, smaller batch is padded. Fewer images
      than this run as the next power of two, so that few programs are compiled.

  Returns:
    [batch, 160] float32 (the model's last width).

  Raises:
    ArgumentError: no model, images of another shape or dtype, or a batch size below 1; it
      is a ValueError.
  """
  if not isinstance(model, PainFormer):
    raise ArgumentError(
      f'embed takes a model first, not {_briefly(model)}: pj.embed(pj.load(PATH), images)'
    )
  images = levels(images, model.config.image_size)
  check_count('batch_size', batch_size)
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
  return model(model.preprocess(images)).embedding.astype(jnp.float32)


def _briefly(value: object) -> str:
  """A value in a few words: 'painformer', a value of type ndarray."""
  if isinstance(value, str) or value is None:
    return repr(value)
  return f'a value of type {type(value).__name__}'
