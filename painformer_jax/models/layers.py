"""Layers whose details differ from Flax's own: torch statistics, no torch."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx, struct

# torch's `trunc_normal_(std=.02)` cuts at ±2, a hundred deviations away: not at
# all. JAX draws from a uniform number through the inverse error function, whose
# float32 ends are infinite: with bounds that far it gives a -2 now and then. Five
# deviations keep clear of the ends.
trunc_normal = nnx.initializers.truncated_normal(0.02, lower=-5, upper=5)
# Normal with deviation sqrt(2 / fan_out); fan_out counts one group's outputs.
conv_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')

# Mean and biased variance of a batch, [channels] float32 each.
BatchStatistics = tuple[jax.Array, jax.Array]

Linear = functools.partial(nnx.Linear, kernel_init=trunc_normal)


def layer_norm(width: int, *, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """LayerNorm over channels, statistics in float32 and in two passes."""
  return nnx.LayerNorm(width, epsilon=epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs)


def conv(
  width_in: int, width_out: int, size: int, *, stride: int, use_bias: bool, dtype, rngs: nnx.Rngs
) -> nnx.Conv:
  """Convolution with torch's symmetric padding (Flax 'SAME' differs at stride 2)."""
  pad = size // 2
  return nnx.Conv(
    width_in,
    width_out,
    (size, size),
    strides=(stride, stride),
    padding=((pad, pad), (pad, pad)),
    use_bias=use_bias,
    kernel_init=conv_normal,
    dtype=dtype,
    rngs=rngs,
  )


class BatchNorm(nnx.Module):
  """Batch normalisation that keeps torch's running statistics.

  torch normalises with the biased variance of the batch but stores the
  unbiased one. Under `jax.jit` the batch is the global one, on any number of
  devices. In evaluation mode (`module.eval()`) the running statistics serve.
  """

  def __init__(
    self, width: int, *, dtype, rngs: nnx.Rngs, epsilon: float = 1e-5, momentum: float = 0.1
  ):
    del rngs  # Initial values are constants.
    self.scale = nnx.Param(jnp.ones(width))
    self.bias = nnx.Param(jnp.zeros(width))
    self.mean = nnx.BatchStat(jnp.zeros(width))
    self.var = nnx.BatchStat(jnp.ones(width))
    self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))
    self.epsilon, self.momentum, self.dtype = epsilon, momentum, dtype
    self.use_running_average = False

  def __call__(self, x: jax.Array, statistics: BatchStatistics | None = None) -> jax.Array:
    """Normalises.

    Args:
      x: [batch, height, width, channels].
      statistics: mean and biased variance, [channels] each, of the batch
        of which `x` is a microbatch, used in training mode; running statistics then stay.

    Returns:
      The same shape, in `dtype`.
    """
    x = x.astype(jnp.float32)
    if self.use_running_average:
      mean, var = self.mean[...], self.var[...]
    elif statistics is not None:
      mean, var = statistics
    else:
      mean, var = batch_statistics(x)
      self.update((mean, var), size=x.size // x.shape[-1])
    scale = jax.lax.rsqrt(var + self.epsilon) * self.scale[...]
    return ((x - mean) * scale + self.bias[...]).astype(self.dtype)

  def update(self, statistics: BatchStatistics, *, size: int) -> None:
    """Brings the running statistics up to date.

    Args:
      statistics: of a batch.
      size: values a channel that they were taken over.
    """
    mean, var = statistics
    for stored, batch in ((self.mean, mean), (self.var, var * (size / max(size - 1, 1)))):
      stored[...] += self.momentum * (jax.lax.stop_gradient(batch) - stored[...])
    self.count[...] += 1


def batch_statistics(x: jax.Array) -> BatchStatistics:
  """Mean and biased variance of each channel, float32, in two passes."""
  x = x.astype(jnp.float32)
  mean = x.mean((0, 1, 2))
  return mean, jnp.square(x - mean).mean((0, 1, 2))


def joint_statistics(means: jax.Array, variances: jax.Array) -> BatchStatistics:
  """Statistics of a batch from those of equal microbatches, [microbatches, channels] each."""
  mean = means.mean(0)
  return mean, variances.mean(0) + jnp.square(means - mean).mean(0)


@struct.dataclass
class BatchIndices:
  """The index in the whole batch of each image that was reordered, or of a microbatch.

  Attributes:
    indices: [batch] int32, from 0.
    size: images of the whole batch.
  """

  indices: jax.Array
  size: int = struct.field(pytree_node=False)


class DropPath(nnx.Module):
  """Stochastic depth: drops a residual branch for whole samples.

  In evaluation mode (`module.eval()`) or at rate 0 it is the identity.
  """

  def __init__(self, rate: float):
    self.rate, self.deterministic = rate, False

  def __call__(
    self, x: jax.Array, key: jax.Array | None, batch_indices: BatchIndices | None = None
  ) -> jax.Array:
    """Drops whole images; which ones depends only on `key` and their batch indices.

    Args:
      x: [batch, ...].
      key: of the random numbers.
      batch_indices: of the images; None where they are the whole batch in its order.

    Returns:
      The same shape.
    """
    if self.deterministic or not self.rate:
      return x
    if key is None:
      raise ValueError('stochastic depth in training mode needs key=')
    keep = 1.0 - self.rate
    count = x.shape[0] if batch_indices is None else batch_indices.size
    mask = jax.random.bernoulli(key, keep, (count,) + (1,) * (x.ndim - 1))
    if batch_indices is not None:  # Every device samples for all images, so nothing is sent.
      mask = mask.at[batch_indices.indices].get(mode='promise_in_bounds')
    return jnp.where(mask, x / keep, 0).astype(x.dtype)
