"""Perceiver blocks: learned latents that read a set of inputs of any size.

The equations of Perceiver (Jaegle et al., 2021) in the form that PainFormer's
figure shows: pre-norm everywhere, the context normed too, every attention
followed by a residual feed-forward of linear, GEGLU, linear.

Three functions have a second form for CPUs, in `perceiver_cpu`, with the same result.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from painformer_jax.models import perceiver_cpu
from painformer_jax.models.layers import layer_norm

_EPSILON = perceiver_cpu.EPSILON


def fourier_features(count: int, *, positions: int, bands: int, max_frequency: float) -> np.ndarray:
  """Features of the positions 0 to count - 1.

  Position i of `positions` lies at x = 2 i / (positions - 1) - 1; further ones
  continue beyond 1. An entry's features do not depend on how many follow it.

  Returns:
    [count, 2 bands + 1] float32: sin(pi f x) and cos(pi f x) for `bands`
    frequencies f spaced evenly from 1 to max_frequency / 2, then x itself;
    [count, 0] for no bands.
  """
  if not bands:
    return np.zeros((count, 0), np.float32)
  x = 2 * np.arange(count) / max(positions - 1, 1) - 1
  angles = np.pi * x[:, None] * np.linspace(1, max_frequency / 2, bands)
  return np.concatenate([np.sin(angles), np.cos(angles), x[:, None]], 1).astype(np.float32)


class Linear(nnx.Linear):
  """x @ kernel + bias, over the last axis, as one product of two matrices."""

  def __init__(self, width_in: int, width_out: int, **kwargs):
    # Reconstructed: each output starts with about its input's variance.
    super().__init__(
      width_in,
      width_out,
      kernel_init=nnx.initializers.variance_scaling(1.0, 'fan_in', 'normal'),
      **kwargs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    # XLA on CPUs transposes an input of more axes for the gradient of the kernel.
    y = super().__call__(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def normed_linears(norm: nnx.LayerNorm, layers: tuple[Linear, ...], x: jax.Array):
  """(layer(norm(x)) for each layer), the layers side by side."""
  y = norm(x)
  return tuple(layer(y) for layer in layers)


def weighted_sum(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Softmax attention: softmax(q k') v over the last two axes, zeros where no token is there.

  Args:
    q: [batch or 1, heads, queries, channels], scaled.
    k, v: [batch, heads or 1, tokens, channels].
    mask: [batch, tokens] bool, the tokens that are there; None for all.

  Returns:
    [batch, heads, queries, channels of v].
  """
  scores = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
  if mask is None:
    weights = jax.nn.softmax(scores)
  else:
    mask = mask[:, None, None, :]
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min))
    weights = jnp.where(mask, weights, 0)
  return jnp.matmul(weights.astype(v.dtype), v)


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """Multi-head attention of [batch or 1, queries, inner] to [batch, tokens, inner]."""
  q, k, v = (
    jnp.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2) for x in (q, k, v)
  )
  y = weighted_sum(q * q.shape[-1] ** -0.5, k, v, mask)
  return jnp.swapaxes(y, 1, 2).reshape(y.shape[0], y.shape[2], heads * y.shape[3])


def gelu(x: jax.Array) -> jax.Array:
  """Exact GELU, in float32."""
  return jax.nn.gelu(x.astype(jnp.float32), approximate=False)


class Dropout(nnx.Module):
  """Dropout by random bytes; the identity in evaluation mode or at rate 0.

  The rate is rounded to a multiple of 1/256: one random byte decides an entry. Random
  numbers of four bytes take much of a small network's time on CPUs.
  """

  def __init__(self, rate: float):
    self.dropped, self.deterministic = round(rate * 256), False

  def __call__(self, x: jax.Array, noise: jax.Array | None) -> jax.Array:
    """Drops entries of x; `noise` is uint8 of the same shape."""
    if self.deterministic or not self.dropped:
      return x
    if noise is None:
      raise ValueError('dropout in training mode needs key=')
    return jnp.where(noise >= self.dropped, x * (256 / (256 - self.dropped)), 0).astype(x.dtype)


class LatentAttention(nnx.Module):
  """Latents attend to a context, or to themselves; the result is added to them.

  Args:
    width: of the latents.
    context_width: of the context's tokens; None for self-attention.
    heads, head_width: queries, keys and values have heads × head_width channels.
    dropout: on what is added.
  """

  def __init__(
    self,
    width: int,
    *,
    context_width: int | None = None,
    heads: int,
    head_width: int,
    dropout: float,
    dtype,
    rngs: nnx.Rngs,
  ):
    inner = heads * head_width
    norm = functools.partial(layer_norm, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
    linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
    self.norm = norm(width)
    self.norm_context = nnx.data(None if context_width is None else norm(context_width))
    self.q = linear(width, inner, use_bias=False)
    self.kv = linear(context_width or width, 2 * inner, use_bias=False)
    self.proj = linear(inner, width)
    self.dropout = Dropout(dropout)
    self.heads = heads

  def __call__(
    self,
    latents: jax.Array,
    context: jax.Array | None = None,
    *,
    mask: jax.Array | None = None,
    noise: jax.Array | None = None,
  ) -> jax.Array:
    """Adds what the latents read from the context.

    Args:
      latents: [batch or 1, latents, width].
      context: [batch, tokens, context width]; None for self-attention.
      mask: [batch, tokens] bool, the tokens that are there; a sample without
        any reads zeros.
      noise: [batch, latents, width] uint8, for dropout in training mode.

    Returns:
      [batch, latents, width].
    """
    width = (latents if context is None else context).shape[-1]
    if is_narrow(self.heads, width, inner=self.q.kernel.shape[1]):
      x = self.norm(latents)
      y = self._read_narrow(x, x if context is None else self.norm_context(context), mask)
    else:
      y = self._read(latents, context, mask)
    return latents + self.dropout(y, noise)

  def _read(self, latents: jax.Array, context: jax.Array | None, mask: jax.Array | None):
    """What is added, [batch, latents, width]."""
    if context is None:
      q, kv = _normed_linears(self.norm, (self.q, self.kv), latents)
    else:
      (q,) = _normed_linears(self.norm, (self.q,), latents)
      kv = self.kv(self.norm_context(context))
    k, v = jnp.split(kv, 2, axis=-1)
    read = functools.partial(attention, heads=self.heads)
    read_on_cpu = functools.partial(perceiver_cpu.attention, heads=self.heads)
    y = jax.lax.platform_dependent(q, k, v, mask, cpu=read_on_cpu, default=read)
    return self.proj(y)

  def _read_narrow(self, x: jax.Array, context: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The same from fewer multiply-adds, for a context narrower than keys and values.

    (x Wq) (c Wk)' is computed as x (Wq Wk') c', and (weights (c Wv)) Wp as
    (weights c) (Wv Wp): the products of two kernels are shared by all samples.
    """
    heads, width, dtype = self.heads, context.shape[-1], context.dtype
    wq, wp = self.q.kernel[...], self.proj.kernel[...]
    wq, wp = wq.reshape(len(wq), heads, -1), wp.reshape(heads, -1, wp.shape[-1])
    wk, wv = (w.reshape(width, heads, -1) for w in jnp.split(self.kv.kernel[...], 2, axis=1))
    into = jnp.einsum('whd,chd->whc', wq * wq.shape[-1] ** -0.5, wk).reshape(len(wq), -1)
    out = jnp.einsum('chd,hdw->hcw', wv, wp).reshape(heads * width, -1)
    q = jnp.matmul(x.reshape(math.prod(x.shape[:2]), x.shape[2]), into.astype(dtype))
    q = jnp.swapaxes(q.reshape(*x.shape[:2], heads, width), 1, 2)
    shared = context[:, None]  # By all heads.
    y = jax.lax.platform_dependent(
      q, shared, shared, mask, cpu=perceiver_cpu.weighted_sum, default=weighted_sum
    )
    y = jnp.swapaxes(y, 1, 2).reshape(len(context) * x.shape[1], heads * width)
    y = jnp.matmul(y, out.astype(dtype)) + self.proj.bias[...].astype(dtype)
    return y.reshape(len(context), x.shape[1], y.shape[-1])


def is_narrow(heads: int, context_width: int, *, inner: int) -> bool:
  """Whether all heads together read the context itself with fewer products than its keys."""
  return heads * context_width < inner


def _normed_linears(norm: nnx.LayerNorm, layers: tuple[Linear, ...], x: jax.Array):
  return jax.lax.platform_dependent(
    x,
    cpu=functools.partial(perceiver_cpu.normed_linears, norm, layers),
    default=functools.partial(normed_linears, norm, layers),
  )


class GegluMlp(nnx.Module):
  """Residual feed-forward: norm, linear, value × GELU(gate), linear."""

  def __init__(self, width: int, *, ratio: int, dropout: float, dtype, rngs: nnx.Rngs):
    self.norm = layer_norm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
    self.fc1 = Linear(width, 2 * ratio * width, dtype=dtype, rngs=rngs)
    self.fc2 = Linear(ratio * width, width, dtype=dtype, rngs=rngs)
    self.dropout = Dropout(dropout)

  def __call__(self, x: jax.Array, *, noise: jax.Array | None = None) -> jax.Array:
    """[batch, latents, width] -> the same shape, as is that of `noise` (uint8)."""
    (y,) = _normed_linears(self.norm, (self.fc1,), x)
    value, gate = jnp.split(y, 2, axis=-1)
    gate = jax.lax.platform_dependent(gate, cpu=perceiver_cpu.gelu, default=gelu)
    return x + self.dropout(self.fc2(value * gate.astype(value.dtype)), noise)
