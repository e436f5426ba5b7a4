"""Both spectral gates against NumPy, over devices, and filters for other grids."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from painformer_jax.models.spectral import gate_dft, gate_fft, resample

# Each new grid compiles anew.
few = hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
sizes = st.integers(1, 9)
GATES = {'fft': gate_fft, 'dft': gate_dft}


def drawn(height, width, *, batch=2, channels=3, seed=0):
  rng = np.random.default_rng([seed, height, width])
  x = rng.standard_normal((batch, height, width, channels))
  weight = rng.standard_normal((height, width // 2 + 1, channels, 2))
  return x.astype(np.float32), weight.astype(np.float32)


def reference_gate(x, weight):
  """NumPy's rfft2 and irfft2 in float64."""
  spectrum = np.fft.rfft2(x.astype(np.float64), axes=(1, 2), norm='ortho')
  spectrum = spectrum * (weight[..., 0] + 1j * weight[..., 1].astype(np.float64))
  return np.fft.irfft2(spectrum, s=x.shape[1:3], axes=(1, 2), norm='ortho')


@pytest.mark.parametrize('gate', GATES)
@hypothesis.given(height=sizes, width=sizes)
@hypothesis.example(height=8, width=8)
@hypothesis.example(height=7, width=7)
@hypothesis.example(height=5, width=8)
@hypothesis.example(height=6, width=3)
@hypothesis.example(height=1, width=1)
@few
def test_equals_numpy(gate, height, width):
  x, weight = drawn(height, width)
  wanted = reference_gate(x, weight)
  actual = jax.jit(GATES[gate])(x, weight)
  np.testing.assert_allclose(actual, wanted, atol=2e-6 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize('gate', GATES)
def test_equals_numpy_on_the_released_grids(gate):
  for grid in 56, 28:
    x, weight = drawn(grid, grid)
    wanted = reference_gate(x, weight)
    error = np.linalg.norm(jax.jit(GATES[gate])(x, weight) - wanted)
    assert error < 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize('grid', [(6, 6), (7, 7), (4, 7), (5, 8)], ids=str)
def test_gradients_agree(grid):
  x, weight = drawn(*grid)
  g, _ = drawn(*grid, seed=1)
  by_fft, by_dft = (
    jax.jit(lambda x, w, f=f: jax.vjp(f, x, w)[1](g))(x, weight) for f in GATES.values()
  )
  for a, b in zip(by_fft, by_dft):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('grid', [(8, 8), (7, 7)], ids=str)
@pytest.mark.parametrize('gate', GATES)
def test_a_filter_of_ones_is_the_identity(gate, grid):
  x, weight = drawn(*grid)
  weight[..., 0], weight[..., 1] = 1, 0
  np.testing.assert_allclose(GATES[gate](x, weight), x, atol=1e-6)


def test_low_precision_in_bfloat16_stays_within_its_stated_error():
  x, weight = drawn(28, 28, channels=16)
  x = jnp.asarray(x, jnp.bfloat16)
  wanted = reference_gate(np.asarray(x, np.float32), weight)

  def relative(**options):
    y = jax.jit(functools.partial(gate_dft, **options))(x, weight)
    assert y.dtype == jnp.bfloat16
    return np.linalg.norm(np.asarray(y, np.float32) - wanted) / np.linalg.norm(wanted)

  # Rounding the result alone costs about 1.7e-3.
  assert relative(precision='highest') < 2e-3 < relative(precision='default') < 7e-3
  assert jax.jit(gate_fft)(x, weight).dtype == jnp.bfloat16


# --- over devices ------------------------------------------------------------


def over_devices():
  """On 8 devices: gathers and largest error of each gate, forward and back."""
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.NamedSharding(mesh, jax.P('data'))
  everywhere = jax.NamedSharding(mesh, jax.P())
  x, weight = drawn(14, 14, batch=16)
  partition = functools.partial(
    jax.shard_map, mesh=mesh, in_specs=(jax.P('data'), jax.P()), out_specs=jax.P('data')
  )
  wanted = jax.vjp(gate_fft, x, weight)[1](jnp.asarray(x))
  results = {}
  gates = {'fft': partition(gate_fft), 'dft': gate_dft, 'bare fft': gate_fft}
  for name, gate in gates.items():

    def run(x, weight, gate=gate):
      y, back = jax.vjp(gate, x, weight)
      return y, *back(x)

    program = (
      jax.jit(run, in_shardings=(rows, everywhere), out_shardings=(rows, rows, everywhere))
      .lower(x, weight)
      .compile()
    )
    y, *gradients = program(jax.device_put(x, rows), jax.device_put(weight, everywhere))
    errors = [np.abs(y - reference_gate(x, weight)).max()] + [
      np.abs(a - jax.device_get(b)).max() for a, b in zip(jax.device_get(gradients), wanted)
    ]
    results[name] = {'gathers': program.as_text().count('all-gather'), 'error': float(max(errors))}
  return results


def test_a_sharded_batch_is_not_gathered(on_devices):
  results = on_devices(8, over_devices)
  for name in 'fft', 'dft':
    assert results[name]['gathers'] == 0, name
  assert max(result['error'] for result in results.values()) < 2e-4
  if tuple(map(int, jax.__version__.split('.')[:2])) < (0, 12):
    assert results['bare fft']['gathers'] > 0, 'the test cannot tell'


# --- filters for other grids -------------------------------------------------


@hypothesis.given(height=sizes, width=sizes)
@few
def test_resampling_to_the_same_grid_is_the_identity(height, width):
  _, weight = drawn(height, width)
  np.testing.assert_array_equal(resample(weight, height, width), weight)


def smooth(height, width):
  """A filter that varies slowly with frequency, as a small image kernel has."""
  x, _ = drawn(3, 3, batch=1, seed=2)
  kernel = np.zeros((height, width, 3))
  for i in -1, 0, 1:
    for j in -1, 0, 1:
      kernel[i % height, j % width] += x[0, i, j]
  spectrum = np.fft.rfft2(kernel, axes=(0, 1))
  return np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32)


@hypothesis.given(
  st.integers(20, 40), st.integers(20, 40), st.integers(20, 80), st.integers(20, 80)
)
@hypothesis.example(56, 56, 28, 28)
@hypothesis.example(28, 28, 56, 56)
@hypothesis.example(56, 56, 57, 55)
@few
def test_a_small_kernel_s_filter_becomes_that_kernel_s_filter(h, w, height, width):
  actual, wanted = resample(smooth(h, w), height, width), smooth(height, width)
  assert actual.shape == wanted.shape and actual.dtype == jnp.float32
  # Linear interpolation over steps of 2π/n, and odd widths have no Nyquist column.
  assert np.abs(actual - wanted).max() < 0.08 * np.abs(wanted).max()


@pytest.mark.parametrize('h, height', [(28, 56), (28, 42), (56, 28), (27, 54)])
def test_constant_and_mean_pass_unchanged(h, height):
  _, weight = drawn(h, h)
  constant = np.ones_like(weight)
  np.testing.assert_allclose(
    resample(constant, height, height), np.ones((height, height // 2 + 1, 3, 2)), rtol=1e-6
  )
  # The gain of the mean is the filter's first entry.
  np.testing.assert_array_equal(resample(weight, height, height)[0, 0], weight[0, 0])


def test_there_and_back_again():
  weight = smooth(28, 28)
  back = resample(resample(weight, 56, 56), 28, 28)
  assert np.abs(back - weight).max() < 0.02 * np.abs(weight).max()
