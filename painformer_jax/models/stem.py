"""Entries of the stages: from an image, or from a finer grid, to tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.layers import BatchNorm, conv, layer_norm


class Stem(nnx.Module):
  """Three convolutions with BatchNorm and ReLU, then a strided one: 1/4 size."""

  def __init__(self, config: PainFormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.stem_width, jnp.dtype(config.dtype)
    for i, (width_in, size, stride) in enumerate(
        [(3, 7, 2), (width, 3, 1), (width, 3, 1)], start=1):
      setattr(self, f'conv{i}', conv(width_in, width, size, stride=stride,
                                     use_bias=False, dtype=dtype, rngs=rngs))
      setattr(self, f'bn{i}', BatchNorm(width, dtype=dtype, rngs=rngs))
    self.proj = conv(width, config.widths[0], 3, stride=2, use_bias=True,
                     dtype=dtype, rngs=rngs)
    self.norm = layer_norm(config.widths[0], epsilon=1e-5, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, size, size, 3] -> [batch, size / 4, size / 4, width]."""
    x = jax.nn.relu(self.bn1(self.conv1(x)))
    x = jax.nn.relu(self.bn2(self.conv2(x)))
    x = jax.nn.relu(self.bn3(self.conv3(x)))
    return self.norm(self.proj(x))


class Downsample(nnx.Module):
  """A strided convolution to the next stage's width: half the size."""

  def __init__(self, config: PainFormerConfig, stage: int, *, rngs: nnx.Rngs):
    width_in, width_out = config.widths[stage - 1:stage + 1]
    dtype = jnp.dtype(config.dtype)
    self.proj = conv(width_in, width_out, 3, stride=2, use_bias=True, dtype=dtype,
                     rngs=rngs)
    self.norm = layer_norm(width_out, epsilon=1e-5, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> half height and width, next width."""
    return self.norm(self.proj(x))
