"""Two ways of a depthwise convolution against each other and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from painformer_jax.models.depthwise import DepthwiseConv, grouped, shifted


def drawn(height, width, dtype=jnp.float32, batch=2, channels=5):
  rng = np.random.default_rng(height * 100 + width)
  x = rng.standard_normal((batch, height, width, channels))
  return jnp.asarray(x, dtype), jnp.asarray(rng.standard_normal((3, 3, channels)), dtype)


def loop(x, kernel):
  """Cross-correlation position by position, in float64."""
  x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = np.empty_like(x)
  for i in range(x.shape[1]):
    for j in range(x.shape[2]):
      y[:, i, j] = (padded[:, i : i + 3, j : j + 3] * kernel).sum((1, 2))
  return y


GRIDS = [(7, 7), (4, 6), (1, 1), (1, 5), (2, 1)]


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('convolve', [shifted, grouped])
def test_values(convolve, grid):
  x, kernel = drawn(*grid)
  np.testing.assert_allclose(convolve(x, kernel), loop(x, kernel), atol=1e-5)


@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_gradients_agree(grid):
  x, kernel = drawn(*grid)
  g = jnp.flip(x, axis=(0, 3)) + 0.5
  for a, b in zip(jax.vjp(shifted, x, kernel)[1](g), jax.vjp(grouped, x, kernel)[1](g)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('convolve', [shifted, grouped])
def test_bfloat16_stays_within_its_rounding(convolve):
  x, kernel = drawn(7, 7, jnp.bfloat16)
  y, back = jax.vjp(convolve, x, kernel)
  exact, exact_back = jax.vjp(grouped, x.astype(jnp.float32), kernel.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16
  pairs = [(y, exact), *zip(back(y), exact_back(y.astype(jnp.float32)))]
  for actual, wanted in pairs:
    assert actual.dtype == jnp.bfloat16
    error = np.abs(np.asarray(actual, np.float32) - wanted).max()
    assert 0 < error < 2**-6 * np.abs(wanted).max()


def test_kernel_gradient_is_summed_in_float32():
  # In bfloat16 a sum of ones would stop growing at 256.
  x, kernel = jnp.ones((8, 16, 16, 1), jnp.bfloat16), jnp.zeros((3, 3, 1), jnp.bfloat16)
  _, gradient = jax.vjp(shifted, x, kernel)[1](jnp.ones_like(x))
  assert float(gradient[1, 1, 0]) == 8 * 16 * 16
  assert float(gradient[0, 0, 0]) == pytest.approx(8 * 15 * 15, rel=2**-8)


@pytest.mark.parametrize('method', ['auto', 'shift', 'conv'])
def test_layer_adds_its_bias(method):
  layer = DepthwiseConv(5, method=method, dtype=jnp.float32, rngs=nnx.Rngs(0))
  layer.bias[...] = jnp.arange(5.0)
  x, _ = drawn(4, 6)
  wanted = loop(x, layer.kernel[...]) + np.arange(5)
  np.testing.assert_allclose(layer(x), wanted, atol=1e-5)


def over_devices():
  """On 8 devices: does a sharded batch stay where it is, forward and back?"""
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.NamedSharding(mesh, jax.P('data'))
  everywhere = jax.NamedSharding(mesh, jax.P())
  x, kernel = drawn(7, 7, batch=16)

  def value_and_gradients(x, kernel):
    return jax.value_and_grad(lambda x, k: jnp.square(shifted(x, k)).sum(), (0, 1))(x, kernel)

  program = jax.jit(
    value_and_gradients,
    in_shardings=(rows, everywhere),
    out_shardings=(everywhere, (rows, everywhere)),
  )
  program = program.lower(x, kernel).compile()
  _, (_, actual) = program(jax.device_put(x, rows), jax.device_put(kernel, everywhere))
  _, (_, wanted) = jax.jit(value_and_gradients)(x, kernel)
  return {
    'gathers': program.as_text().count('all-gather'),
    'error': float(jnp.abs(actual - jax.device_get(wanted)).max()),
  }


def test_a_sharded_batch_stays_sharded(on_devices):
  result = on_devices(8, over_devices)
  assert result['gathers'] == 0 and result['error'] < 1e-3
