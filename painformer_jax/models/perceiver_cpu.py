"""Functions of `perceiver` in the form that XLA compiles best for CPUs; the same results."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

EPSILON = 1e-5  # Of every norm.
_FEW_PAIRS = 64  # Of latents and tokens, up to which attention is written out.
_MANY_SCORES = 2**18  # Of a sample, from which half of the samples keeps a core busy.


def normed_linears(norm: nnx.LayerNorm, layers: tuple[nnx.Linear, ...], x: jax.Array):
  """As `perceiver.normed_linears`, in one product.

  Scale and bias of the norm are applied to the kernels, which are smaller than x.
  """
  kernel = jnp.concatenate([layer.kernel[...] for layer in layers], axis=1)
  bias = norm.bias[...] @ kernel
  if layers[0].bias is not None:
    bias += jnp.concatenate([layer.bias[...] for layer in layers])
  kernel, dtype = norm.scale[...][:, None] * kernel, layers[0].dtype
  rows = standardise(x).astype(dtype).reshape(math.prod(x.shape[:-1]), x.shape[-1])
  y = rows @ kernel.astype(dtype) + bias.astype(dtype)
  y = y.reshape(*x.shape[:-1], kernel.shape[1])
  ends = np.cumsum([layer.kernel.shape[1] for layer in layers])
  return tuple(jnp.split(y, ends[:-1], axis=-1))


@jax.custom_vjp
def standardise(x: jax.Array) -> jax.Array:
  """LayerNorm without scale and bias: mean 0 and variance 1 over the last axis, in float32.

  Its gradient is computed from the result alone, in half of the passes over x that the
  gradients of mean and variance take.
  """
  return _standardise(x)[0]


def _standardise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  x = x.astype(jnp.float32)
  x -= x.mean(axis=-1, keepdims=True)
  factor = jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPSILON)
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


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """As `perceiver.attention`."""
  queries, tokens = q.shape[1], k.shape[1]
  if queries * tokens <= _FEW_PAIRS:
    return few_pairs(q, k, v, mask, heads=heads)
  scores = heads * queries * tokens
  if mask is None and q.shape == k.shape and len(q) % 2 == 0 and scores >= _MANY_SCORES:
    # XLA computes each product of a head on one core. Two halves that do not depend on one
    # another are computed at the same time.
    halves = zip(*(jnp.split(x, [len(x) // 2]) for x in (q, k, v)))
    return jnp.concatenate([many_pairs(*half, None, heads=heads) for half in halves])
  return many_pairs(q, k, v, mask, heads=heads)


def many_pairs(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """Attention as matrix products."""
  q, k, v = (
    jnp.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2) for x in (q, k, v)
  )
  y = weighted_sum(q * q.shape[-1] ** -0.5, k, v, mask)
  return jnp.swapaxes(y, 1, 2).reshape(y.shape[0], y.shape[2], heads * y.shape[3])


def weighted_sum(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
  """As `perceiver.weighted_sum`; the softmax is divided by its sum after the product with v.

  Among the latents there are several times as many weights as numbers in the result.
  """
  scores = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
  weights = _exponentials(scores, None if mask is None else mask[:, None, None, :], axis=3)
  y = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
  return _divide(y, _totals(weights, mask, axis=3)).astype(v.dtype)


@jax.custom_vjp
def _divide(y: jax.Array, totals: jax.Array) -> jax.Array:
  """y / totals, [..., channels] by [..., 1]; its gradient is computed from the result alone.

  The undivided y is not needed afterwards, so that XLA joins the product, the sum and the
  division to one operation: the forward pass takes two thirds of the time.
  """
  return y / totals


def _divide_forward(y, totals):
  y = y / totals
  return y, (y, totals)


def _divide_backward(kept, gradient):
  y, totals = kept
  return gradient / totals, -(gradient * y).sum(-1, keepdims=True) / totals


_divide.defvjp(_divide_forward, _divide_backward)


def few_pairs(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, heads: int
) -> jax.Array:
  """Attention for a handful of latents and tokens, written out over all pairs.

  Products of 4x8 matrices, one a sample and head, cost more in calls than in arithmetic.
  Here channels stay the innermost axis, and one product with a constant sums the channels
  of each head.
  """
  inner = q.shape[-1]
  head_of_channel = np.repeat(np.eye(heads, dtype=np.float32), inner // heads, axis=0)
  products = (q[:, :, None] * k[:, None]).astype(jnp.float32)
  scores = products @ head_of_channel * (inner // heads) ** -0.5
  mask = None if mask is None else mask[:, None, :, None]
  weights = _exponentials(scores, mask, axis=2)
  weights = (weights / _totals(weights, mask, axis=2)) @ head_of_channel.T
  return (weights.astype(v.dtype) * v[:, None]).sum(axis=2)


def _exponentials(scores: jax.Array, mask: jax.Array | None, *, axis: int) -> jax.Array:
  """Softmax before its division; zeros where the mask is False."""
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
  # The largest cancels out.
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis, keepdims=True)))
  return weights if mask is None else jnp.where(mask, weights, 0)


def _totals(weights: jax.Array, mask: jax.Array | None, *, axis: int) -> jax.Array:
  """The divisor of the weights: their sum, or 1 where all are 0, so that gradients are finite.

  Without a mask the largest weight is 1, and a choice would keep XLA from joining the sum
  with the operations around it.
  """
  total = weights.sum(axis, keepdims=True)
  return total if mask is None else jnp.where(total == 0, 1, total)


def gelu(x: jax.Array) -> jax.Array:
  """As `perceiver.gelu`, by erf, which XLA computes in a third of the time of erfc."""
  x = x.astype(jnp.float32)
  return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))
