"""Depthwise 3×3 convolution over the token grid, two ways with one result."""

import functools
import operator

import jax
import jax.numpy as jnp
from flax import nnx

_TAPS = [(i, j) for i in range(3) for j in range(3)]


def _pad(x: jax.Array) -> jax.Array:
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


@jax.custom_vjp
def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Nine shifted multiply-adds, for CPUs: several times XLA's own convolution.

  Args:
    x: [batch, height, width, channels].
    kernel: [3, 3, channels].

  Returns:
    [batch, height, width, channels]: cross-correlation, zero padding of 1.
  """
  height, width = x.shape[1:3]
  padded = _pad(x)
  terms = (padded[:, i : i + height, j : j + width] * kernel[i, j] for i, j in _TAPS)
  return functools.reduce(operator.add, terms)


def _shifted_forward(x, kernel):
  return shifted(x, kernel), (x, kernel)


def _shifted_backward(residuals, g):
  x, kernel = residuals
  batch, height, width, channels = x.shape
  padded = _pad(x)

  # The kernel's gradient sums over all positions. XLA:CPU does not vectorise
  # such a sum fused with its product, so the sums over rows are running sums
  # of whole [batch, width, channels] slabs; the batch stays whole, so that a
  # sharded one stays where it is.
  def add_row(sums, row):
    above_to_below = jax.lax.dynamic_slice_in_dim(padded, row, 3, axis=1)
    g_row = jax.lax.dynamic_index_in_dim(g, row, axis=1, keepdims=False)
    return [
      s + (above_to_below[:, i, j : j + width] * g_row).astype(jnp.float32)
      for s, (i, j) in zip(sums, _TAPS)
    ], None

  zeros = [jnp.zeros((batch, width, channels), jnp.float32)] * 9
  sums, _ = jax.lax.scan(add_row, zeros, jnp.arange(height))
  kernel_gradient = jnp.stack([s.sum((0, 1)) for s in sums]).reshape(kernel.shape)
  return shifted(g, kernel[::-1, ::-1]), kernel_gradient.astype(kernel.dtype)


shifted.defvjp(_shifted_forward, _shifted_backward)


def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The same as `shifted`, as a grouped convolution, for TPUs and GPUs."""
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, :, None, :],
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


class DepthwiseConv(nnx.Module):
  """3×3 depthwise convolution with bias."""

  def __init__(self, width: int, *, method: str, dtype, rngs: nnx.Rngs):
    init = nnx.initializers.normal((2 / 9) ** 0.5)  # fan_out 9 a group
    self.kernel = nnx.Param(init(rngs.params(), (3, 3, width), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(width))
    self.method, self.dtype = method, dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> the same shape."""
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    if self.method == 'auto':
      y = jax.lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)
    else:
      y = {'shift': shifted, 'conv': grouped}[self.method](x, kernel)
    return y + self.bias[...].astype(self.dtype)
