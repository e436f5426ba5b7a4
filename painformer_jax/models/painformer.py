"""The PainFormer backbone, as released."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from painformer_jax.models.blocks import Block, ClassBlock
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.layers import BatchIndices, BatchStatistics, Linear, layer_norm
from painformer_jax.models.preprocess import normalised, preprocess, warn_of_range
from painformer_jax.models.stem import Downsample, Stem

# Rematerialisation: what a stage's blocks compute again in the backward pass to save
# memory. 'none': nothing; 'dots': all but matrix products; 'full': the whole block.
REMAT = ('none', 'dots', 'full')

# Model -> what it warned about. An attribute of the model would be part of what jit compiles.
_WARNED: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


@struct.dataclass
class Output:
  """What the backbone gives; float32 unless the config computes in bfloat16.

  Attributes:
    embedding: [batch, 160] (the last width).
    tokens: [batch, 49, 160], the last stage's tokens, not normalised.
    logits: [batch, classes] float32, or None for a model without a head.
    attention: maps of the attention blocks in order, [batch, heads, tokens,
      tokens] float32, or None where not asked for.
    stages: output of each stage's last block, before the stage's norm,
      [batch, height, width, channels], or None where not asked for.
  """

  embedding: jax.Array
  tokens: jax.Array
  logits: jax.Array | None = None
  attention: tuple[jax.Array, ...] | None = None
  stages: tuple[jax.Array, ...] | None = None


class PainFormer(nnx.Module):
  """Backbone with an optional linear head.

  Args:
    config: its shape.
    rngs: keys for the initial values (stream `params`).
    partition: wraps `f(x, weight)` so that it runs on each device's own rows
      of a sharded batch (`parallel.mesh.BatchShardMap`); None where the batch is
      not sharded. Only the FFT gate needs it.
  """

  patch_embed1: Stem

  def __init__(
    self,
    config: PainFormerConfig,
    *,
    rngs: nnx.Rngs,
    partition: Callable[..., jax.Array] | None = None,
  ):
    self.config = config
    rates = iter(np.linspace(0, config.drop_path_rate, config.depth).tolist())
    for stage, pattern in enumerate(config.mixers):
      n, width = stage + 1, config.widths[stage]
      entry = Downsample(config, stage, rngs=rngs) if stage else Stem(config, rngs=rngs)
      setattr(self, f'patch_embed{n}', entry)
      setattr(
        self,
        f'block{n}',
        nnx.List(
          Block(config, stage, mixer=mixer, drop_path=next(rates), partition=partition, rngs=rngs)
          for mixer in pattern
        ),
      )
      # The last stage's norm closes the class attention instead.
      setattr(
        self, f'norm{n}', layer_norm(width, epsilon=1e-6, dtype=jnp.dtype(config.dtype), rngs=rngs)
      )
    self.post_network = nnx.List(ClassBlock(config, rngs=rngs) for _ in range(config.post_blocks))
    self.head = nnx.data(None)
    if config.num_classes:
      self.head = Linear(config.embedding_width, config.num_classes, rngs=rngs)

  def preprocess(self, images: Any) -> jax.Array:
    """Resizes and normalises images for this model, as `painformer_jax.preprocess` does.

    Args:
      images: [batch, height, width, 3] uint8 RGB, of any height and width; or Pillow images.

    Returns:
      [batch, size, size, 3] float32, of the config's `image_size`.

    Raises:
      ArgumentError: another shape or dtype; it is a ValueError.
    """
    config = self.config
    return preprocess(images, image_size=config.image_size, mean=config.mean, std=config.std)

  def __call__(
    self,
    images: jax.Array | np.ndarray,
    *,
    attention: bool = False,
    stages: bool = False,
    key: jax.Array | None = None,
    batch_indices: BatchIndices | None = None,
    remat: Sequence[str] = (),
    stem_statistics: Sequence[BatchStatistics] | None = None,
  ) -> Output:
    """Runs the backbone.

    Outside of `jax.jit`, images in another range than normalised ones (0 to 1, -1 to 1, 0
    to 255) are warned about once. Blue and red the wrong way round (BGR, as OpenCV reads)
    cannot be noticed.

    Args:
      images: [batch, size, size, 3] floating point RGB, normalised: from `preprocess`.
      attention: also return the attention maps.
      stages: also return each stage's output.
      key: for stochastic depth, in training mode at a rate above 0.
      batch_indices: of the images; None where they are the whole batch in its order.
      remat: what the blocks of each stage compute again in the backward pass, see
        `REMAT`; empty for nothing. The result is the same.
      stem_statistics: of the stem's BatchNorms in training mode, where the images are a
        microbatch, see `functional.stem_statistics`.

    Raises:
      ArgumentError: the images have another shape than the config says, or are integers; it
        is a ValueError.
    """
    config = self.config
    array = normalised(images, config.image_size)
    warn_of_range(array, _WARNED.setdefault(self, set()))
    x = jnp.asarray(array).astype(config.dtype)
    maps, outputs = [], []
    keys = iter([None] * config.depth if key is None else jax.random.split(key, config.depth))
    for n in range(1, len(config.widths) + 1):
      entry = getattr(self, f'patch_embed{n}')
      x = entry(x, stem_statistics) if n == 1 and stem_statistics else entry(x)
      for block in getattr(self, f'block{n}'):
        kept = _rematerialised(block, remat[n - 1] if remat else 'none')
        x, attention_map = kept(x, next(keys), batch_indices)
        if attention_map is not None:
          maps.append(attention_map)
      outputs.append(x)
      if n < len(config.widths):
        x = getattr(self, f'norm{n}')(x)
    batch, height, width, channels = x.shape
    tokens = x.reshape(batch, height * width, channels)
    mean = tokens.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
    y = jnp.concatenate([mean, tokens], axis=1)
    for block in self.post_network:
      y = block(y)
    norm = getattr(self, f'norm{len(config.widths)}')
    embedding = norm(y[:, 0])
    logits = None
    if self.head is not None:
      logits = self.head(embedding.astype(jnp.float32))
    return Output(
      embedding=embedding,
      tokens=tokens,
      logits=logits,
      attention=tuple(maps) if attention else None,
      stages=tuple(outputs) if stages else None,
    )


def _rematerialised(block: Block, policy: str) -> Callable[..., Any]:
  """The block, as a function that computes again what REMAT says."""
  if policy == 'none':
    return block
  policies = jax.checkpoint_policies
  return jax.checkpoint(
    lambda x, key, batch_indices: block(x, key, batch_indices),
    policy=policies.dots_with_no_batch_dims_saveable
    if policy == 'dots'
    else policies.nothing_saveable,
  )
