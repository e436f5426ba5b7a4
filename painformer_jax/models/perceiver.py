"""Perceiver blocks: learned latents that read a set of inputs of any size.

The equations of Perceiver (Jaegle et al., 2021) in the form that PainFormer's
figure shows: pre-norm everywhere, the context normed too, every attention
followed by a residual feed-forward of linear, GEGLU, linear.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from painformer_jax.models.layers import layer_norm

_EPSILON = 1e-5
_FEW_PAIRS = 64  # Of latents and tokens, up to which attention is written out.
_MANY_SCORES = 2**18  # Of a sample, from which half of the samples keeps a core busy.


def fourier_features(count: int, *, positions: int, bands: int, max_frequency: float) -> np.ndarray:
  """Features of the positions 0 to count - 1.

  Position i of `positions` lies at x = 2 i / (positions - 1) - 1; further ones
  go on beyond 1. An entry's features do not depend on how many follow it.

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
  """x @ kernel + bias, over the last axis.

  The product is one of two matrices: with the other axes in it, XLA transposes the input
  on CPUs, element by element, for the kernel's gradient, in more time than the product's.
  """

  def __init__(self, width_in: int, width_out: int, **kwargs):
    # Reconstructed: each output starts with about its input's variance.
    super().__init__(
      width_in,
      width_out,
      kernel_init=nnx.initializers.variance_scaling(1.0, 'fan_in', 'normal'),
      **kwargs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    return _linear(
      x.astype(self.dtype), self.kernel[...], None if self.bias is None else self.bias[...]
    )


def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
  y = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) @ kernel.astype(x.dtype)
  y = y if bias is None else y + bias.astype(x.dtype)
  return y.reshape(*x.shape[:-1], y.shape[-1])


def _linear_of_normed(norm: nnx.LayerNorm, x: jax.Array, *layers: Linear) -> jax.Array:
  """What linear layers give for norm(x), side by side.

  Scale and shift of the norm are applied to the kernels, which are smaller than x.
  """
  kernel = jnp.concatenate([layer.kernel[...] for layer in layers], axis=1)
  bias = norm.bias[...] @ kernel
  if layers[0].bias is not None:
    bias += jnp.concatenate([layer.bias[...] for layer in layers])
  return _linear(standardise(x).astype(layers[0].dtype), norm.scale[...][:, None] * kernel, bias)


@jax.custom_vjp
def standardise(x: jax.Array) -> jax.Array:
  """LayerNorm without scale and bias: mean 0 and variance 1 over the last axis, in float32.

  With a gradient of its own, from the result alone: in half of the passes over x that
  the gradients of mean and variance take.
  """
  return _standardise(x)[0]


def _standardise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  x = x.astype(jnp.float32)
  x -= x.mean(axis=-1, keepdims=True)
  factor = jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + _EPSILON)
  return x * factor, factor


def _standardise_forward(x):
  y, factor = _standardise(x)
  return y, (y, factor, jnp.zeros((), x.dtype))


def _standardise_backward(kept, gradient):
  y, factor, like = kept
  mean = gradient.mean(axis=-1, keepdims=True)
  along = (gradient * y).mean(axis=-1, keepdims=True)
  return ((factor * (gradient - mean - y * along)).astype(like.dtype),)


standardise.defvjp(_standardise_forward, _standardise_backward)


class Dropout(nnx.Module):
  """Dropout by random bytes; the identity in evaluation mode or at rate 0.

  The rate is rounded to a multiple of 1/256: a byte decides an entry, since random
  numbers take a good part of a small network's time on CPUs.
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
    """Adds what the latents read.

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
      source = x if context is None else self.norm_context(context)
      return latents + self.dropout(self._read_narrow(x, source, mask), noise)
    if context is None:
      q, k, v = jnp.split(_linear_of_normed(self.norm, latents, self.q, self.kv), 3, axis=-1)
    else:
      q = _linear_of_normed(self.norm, latents, self.q)
      k, v = jnp.split(self.kv(self.norm_context(context)), 2, axis=-1)
    few = q.shape[1] * k.shape[1] <= _FEW_PAIRS
    y = (_read_few if few else _read)(q, k, v, mask, heads=self.heads)
    return latents + self.dropout(self.proj(y), noise)

  def _read_narrow(self, x: jax.Array, context: jax.Array, mask: jax.Array | None) -> jax.Array:
    """What is added, by the same products in an order that suits a narrow context.

    (x Wq) (c Wk)' is x (Wq Wk') c', and (weights (c Wv)) Wp is (weights c) (Wv Wp): what
    is as wide as the heads is then a product of kernels, one for all samples.
    """
    heads, width, dtype = self.heads, context.shape[-1], context.dtype
    wq, wp = self.q.kernel[...], self.proj.kernel[...]
    wq, wp = wq.reshape(len(wq), heads, -1), wp.reshape(heads, -1, wp.shape[-1])
    wk, wv = (w.reshape(width, heads, -1) for w in jnp.split(self.kv.kernel[...], 2, axis=1))
    into = jnp.einsum('whd,chd->whc', wq * wq.shape[-1] ** -0.5, wk).reshape(len(wq), -1)
    out = jnp.einsum('chd,hdw->hcw', wv, wp).reshape(heads * width, -1)
    q = jnp.matmul(x.reshape(-1, x.shape[-1]), into.astype(dtype))
    q = jnp.swapaxes(q.reshape(*x.shape[:2], heads, width), 1, 2)
    y = _weigh(q, context[:, None], context[:, None], mask)
    y = jnp.swapaxes(y, 1, 2).reshape(-1, heads * width)
    y = jnp.matmul(y, out.astype(dtype)) + self.proj.bias[...].astype(dtype)
    return y.reshape(len(context), -1, y.shape[-1])


def is_narrow(heads: int, context_width: int, *, inner: int) -> bool:
  """Whether all heads together could look at the context itself for less than at its keys."""
  return heads * context_width < inner


def _read(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """Attention of [batch or 1, queries, inner] to [batch, tokens, inner], as matrix products."""
  scores = heads * q.shape[1] * k.shape[1]
  if mask is None and q.shape == k.shape and len(q) % 2 == 0 and scores >= _MANY_SCORES:
    # CPUs work on a product as small as a head's with one core. Halves that need nothing
    # of one another are worked on at the same time.
    halves = zip(*(jnp.split(x, [len(x) // 2]) for x in (q, k, v)))
    return jnp.concatenate([_read_all(*half, None, heads=heads) for half in halves])
  return _read_all(q, k, v, mask, heads=heads)


def _read_all(q, k, v, mask, *, heads: int) -> jax.Array:
  q, k, v = (jnp.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2) for x in (q, k, v))
  y = _weigh(q * q.shape[-1] ** -0.5, k, v, mask)
  return jnp.swapaxes(y, 1, 2).reshape(y.shape[0], y.shape[2], -1)


def _weigh(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
  """softmax(q k') v over the last two axes; q is scaled, mask is [batch, tokens]."""
  scores = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
  # Divided by the sum of the weights afterwards: among the latents there are several
  # times as many weights as numbers in y.
  weights = _exponentials(scores, None if mask is None else mask[:, None, None, :], axis=3)
  y = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
  return _divide(y, _totals(weights, mask, axis=3)).astype(v.dtype)


@jax.custom_vjp
def _divide(y: jax.Array, totals: jax.Array) -> jax.Array:
  """y / totals, [..., channels] by [..., 1], with a gradient from the result alone.

  Nothing needs the undivided y afterwards, so that on CPUs XLA makes the product, the
  sum and the division one operation: the forward pass takes two thirds of the time.
  """
  return y / totals


def _divide_forward(y, totals):
  y = y / totals
  return y, (y, totals)


def _divide_backward(kept, gradient):
  y, totals = kept
  return gradient / totals, -(gradient * y).sum(-1, keepdims=True) / totals


_divide.defvjp(_divide_forward, _divide_backward)


def _read_few(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """The same for a handful of latents and tokens.

  Products of 4x8 matrices, one a sample and head, cost CPUs more in calls than in
  arithmetic. Written out over all pairs, channels stay the innermost axis, and one
  product with a constant sums those of each head.
  """
  inner = q.shape[-1]
  own = np.repeat(np.eye(heads, dtype=np.float32), inner // heads, axis=0)
  products = (q[:, :, None] * k[:, None]).astype(jnp.float32)
  scores = products @ own * (inner // heads) ** -0.5
  mask = None if mask is None else mask[:, None, :, None]
  weights = _exponentials(scores, mask, axis=2)
  weights = (weights / _totals(weights, mask, axis=2)) @ own.T
  return (weights.astype(v.dtype) * v[:, None]).sum(axis=2)


def _exponentials(scores: jax.Array, mask: jax.Array | None, *, axis: int) -> jax.Array:
  """Softmax before its division; zeros where the mask is False."""
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
  # The largest cancels out.
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis, keepdims=True)))
  return weights if mask is None else jnp.where(mask, weights, 0)


def _totals(weights: jax.Array, mask: jax.Array | None, *, axis: int) -> jax.Array:
  """What divides the weights: 1 where all are 0, so that gradients are numbers too.

  That is so by a mask alone: without one the largest weight is 1, and a choice would
  keep XLA from joining the sum with what is around it.
  """
  total = weights.sum(axis, keepdims=True)
  return total if mask is None else jnp.where(total == 0, 1, total)


class GegluMlp(nnx.Module):
  """Residual feed-forward: norm, linear, value × GELU(gate), linear."""

  def __init__(self, width: int, *, ratio: int, dropout: float, dtype, rngs: nnx.Rngs):
    self.norm = layer_norm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
    self.fc1 = Linear(width, 2 * ratio * width, dtype=dtype, rngs=rngs)
    self.fc2 = Linear(ratio * width, width, dtype=dtype, rngs=rngs)
    self.dropout = Dropout(dropout)

  def __call__(self, x: jax.Array, *, noise: jax.Array | None = None) -> jax.Array:
    """[batch, latents, width] -> the same shape, as is that of `noise` (uint8)."""
    value, gate = jnp.split(_linear_of_normed(self.norm, x, self.fc1), 2, axis=-1)
    # As jax.nn.gelu in float32, but with erf, which XLA has at a third of the price of
    # erfc; in bfloat16 1 + erf would cancel.
    gate = gate.astype(jnp.float32)
    gelu = 0.5 * gate * (1 + jax.lax.erf(gate * 0.5**0.5))
    y = self.fc2(value * gelu.astype(value.dtype))
    return x + self.dropout(y, noise)
