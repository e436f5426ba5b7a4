"""Blocks of the four stages and of the network after them."""

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.models import spectral
from painformer_jax.models.attention import Attention
from painformer_jax.models.config import ATTENTION, PainFormerConfig
from painformer_jax.models.depthwise import DepthwiseConv
from painformer_jax.models.layers import BatchIndices, DropPath, Linear, layer_norm


class SpectralGate(nnx.Module):
  """A learned complex filter per channel; no bias, no projection."""

  def __init__(self, config: PainFormerConfig, stage: int, *, partition, rngs):
    grid, width = config.grid(stage), config.widths[stage]
    init = nnx.initializers.normal(0.02)
    self.complex_weight = nnx.Param(
      init(rngs.params(), (grid, grid // 2 + 1, width, 2), jnp.float32)
    )
    self.method, self.precision = config.gate, config.gate_precision
    self.partition = partition

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> the same shape."""
    weight = self.complex_weight[...]
    if self.method == 'dft':
      return spectral.gate_dft(x, weight, precision=self.precision)
    # The compiler gathers a sharded batch before an FFT, so that each device
    # would transform all of it; `partition` runs the gate on its own rows.
    gate = self.partition(spectral.gate_fft) if self.partition else spectral.gate_fft
    return gate(x, weight)


class Mlp(nnx.Module):
  """Linear, depthwise 3×3 on the grid (if any), exact GELU, linear."""

  def __init__(self, width: int, *, ratio: int, dtype, depthwise: str | None, rngs):
    self.fc1 = Linear(width, ratio * width, dtype=dtype, rngs=rngs)
    self.dwconv = (
      nnx.data(None)
      if depthwise is None
      else DepthwiseConv(ratio * width, method=depthwise, dtype=dtype, rngs=rngs)
    )
    self.fc2 = Linear(ratio * width, width, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., width] -> the same; [batch, height, width, channels] with dwconv."""
    x = self.fc1(x)
    if self.dwconv is not None:
      x = self.dwconv(x)
    return self.fc2(jax.nn.gelu(x, approximate=False))


class Block(nnx.Module):
  """x += mixer(norm1(x)); x += mlp(norm2(x)), each with stochastic depth."""

  def __init__(
    self,
    config: PainFormerConfig,
    stage: int,
    *,
    mixer: str,
    drop_path: float,
    partition,
    rngs: nnx.Rngs,
  ):
    width, dtype = config.widths[stage], jnp.dtype(config.dtype)
    self.norm1 = layer_norm(width, epsilon=1e-6, dtype=dtype, rngs=rngs)
    if mixer == ATTENTION:
      self.attn = Attention(width, heads=config.heads[stage], dtype=dtype, rngs=rngs)
    else:
      self.attn = SpectralGate(config, stage, partition=partition, rngs=rngs)
    self.norm2 = layer_norm(width, epsilon=1e-6, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(
      width, ratio=config.mlp_ratios[stage], dtype=dtype, depthwise=config.depthwise, rngs=rngs
    )
    self.drop_path = DropPath(drop_path)

  def __call__(
    self, x: jax.Array, key: jax.Array | None = None, batch_indices: BatchIndices | None = None
  ):
    """[batch, height, width, channels] -> the same, and an attention map or None.

    The map is [batch, heads, tokens, tokens] float32, tokens in row order. `key` and
    `batch_indices` are for stochastic depth.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    y, attention = self.norm1(x), None
    if isinstance(self.attn, Attention):
      batch, height, width, channels = y.shape
      y, attention = self.attn(y.reshape(batch, height * width, channels))
      y = y.reshape(batch, height, width, channels)
    else:
      y = self.attn(y)
    x = x + self.drop_path(y, keys[0], batch_indices)
    x = x + self.drop_path(self.mlp(self.norm2(x)), keys[1], batch_indices)
    return x, attention


class ClassBlock(nnx.Module):
  """The first token attends to all; only it changes."""

  def __init__(self, config: PainFormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.embedding_width, jnp.dtype(config.dtype)
    self.norm1 = layer_norm(width, epsilon=1e-6, dtype=dtype, rngs=rngs)
    self.attn = Attention(width, heads=config.post_heads, dtype=dtype, rngs=rngs)
    self.norm2 = layer_norm(width, epsilon=1e-6, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(width, ratio=config.post_mlp_ratio, dtype=dtype, depthwise=None, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, 1 + tokens, width] -> the same."""
    first = x[:, :1] + self.attn(self.norm1(x), queries=1)[0]
    first = first + self.mlp(self.norm2(first))
    return jnp.concatenate([first, x[:, 1:]], axis=1)
