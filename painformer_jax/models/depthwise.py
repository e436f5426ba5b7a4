"""Depthwise 3×3 convolution over the token grid, two ways with one result."""

import jax
import jax.numpy as jnp
from flax import nnx


def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Nine shifted multiply-adds, which compilers fuse; no convolution.

  Args:
    x: [batch, height, width, channels].
    kernel: [3, 3, channels].

  Returns:
    [batch, height, width, channels]: cross-correlation, zero padding of 1.
  """
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(
      padded[:, i:i + height, j:j + width] * kernel[i, j]
      for i in range(3) for j in range(3))


def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The same as `shifted`, as a grouped convolution."""
  return jax.lax.conv_general_dilated(
      x, kernel[:, :, None, :], (1, 1), ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=x.shape[-1])


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
