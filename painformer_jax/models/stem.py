"""Entries of the stages: from an image, or from a finer grid, to tokens."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.layers import BatchNorm, BatchStatistics, conv, layer_norm

NORMS = 3  # BatchNorms of the stem.


class Stem(nnx.Module):
  """Three convolutions with BatchNorm and ReLU, then a strided one: 1/4 size."""

  def __init__(self, config: PainFormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.stem_width, jnp.dtype(config.dtype)
    for i, (width_in, size, stride) in enumerate(
      [(3, 7, 2), (width, 3, 1), (width, 3, 1)], start=1
    ):
      setattr(
        self,
        f'conv{i}',
        conv(width_in, width, size, stride=stride, use_bias=False, dtype=dtype, rngs=rngs),
      )
      setattr(self, f'bn{i}', BatchNorm(width, dtype=dtype, rngs=rngs))
    self.proj = conv(width, config.widths[0], 3, stride=2, use_bias=True, dtype=dtype, rngs=rngs)
    self.norm = layer_norm(config.widths[0], epsilon=1e-5, dtype=dtype, rngs=rngs)

  def __call__(
    self, x: jax.Array, statistics: Sequence[BatchStatistics | None] = (None,) * NORMS
  ) -> jax.Array:
    """[batch, size, size, 3] -> [batch, size / 4, size / 4, width].

    `statistics`: the batch statistics of each BatchNorm, where `x` is a microbatch.
    """
    for n in range(1, NORMS + 1):
      x = getattr(self, f'conv{n}')(x)
      x = jax.nn.relu(getattr(self, f'bn{n}')(x, statistics[n - 1]))
    return self.norm(self.proj(x))

  def before_norm(self, x: jax.Array, statistics: Sequence[BatchStatistics]) -> jax.Array:
    """Input of the BatchNorm after those of `statistics`, [batch, size / 2, size / 2, width]."""
    for n in range(1, len(statistics) + 1):
      x = getattr(self, f'conv{n}')(x)
      x = jax.nn.relu(getattr(self, f'bn{n}')(x, statistics[n - 1]))
    return getattr(self, f'conv{len(statistics) + 1}')(x)


class Downsample(nnx.Module):
  """A strided convolution to the next stage's width: half the size."""

  def __init__(self, config: PainFormerConfig, stage: int, *, rngs: nnx.Rngs):
    width_in, width_out = config.widths[stage - 1 : stage + 1]
    dtype = jnp.dtype(config.dtype)
    self.proj = conv(width_in, width_out, 3, stride=2, use_bias=True, dtype=dtype, rngs=rngs)
    self.norm = layer_norm(width_out, epsilon=1e-5, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> half height and width, next width."""
    return self.norm(self.proj(x))
