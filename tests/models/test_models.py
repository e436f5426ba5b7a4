"""Presets, precision, stochastic depth, initial values, importing."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx

from painformer_jax.models import functional
from painformer_jax.models.layers import DropPath, trunc_normal
from painformer_jax.models.painformer import PainFormer
from painformer_jax.models.registry import create, make_config


def images(batch=8, size=32, seed=0):
  return np.random.default_rng(seed).standard_normal((batch, size, size, 3), np.float32)


def drawn(config, seed=0):
  """Arrays that fit a config, by the rule of the reference vectors.

  Drawing them with NumPy spares the tests the compilation of each shape.
  """
  arrays = {}
  for path, a in functional.abstract_variables(config).items():
    name = path.replace('/mean', '/running_mean').replace('/var', '/running_var')
    if a.dtype == jnp.int32:
      name = 'num_batches_tracked'
    shape = a.shape[::-1] if path.endswith('kernel') else a.shape
    value = reference.array(name, shape, seed)
    arrays[path] = value.T if path.endswith('kernel') else value
  return {path: jnp.asarray(value) for path, value in arrays.items()}


# Compiling is nearly all of the time here; the results are the same.
jit = functools.partial(jax.jit, compiler_options={'xla_llvm_disable_expensive_passes': True})


@functools.cache
def compiled(config, **options):
  return jit(lambda arrays, x: functional.from_variables(config, arrays)(x, **options))


def run(config, arrays, x, **options):
  """What a model gives in evaluation mode."""
  return jax.device_get(compiled(config, **options)(arrays, x))


# Both kinds of stages, once each: half of the nano model compiles in half of the time.
HALF = dict(widths=(8, 16), mixers=('s', 'a'), heads=(1, 2), mlp_ratios=(2, 2), stem_width=4)


def small(**overrides):
  return make_config('painformer_nano', num_classes=5, **HALF | overrides)


SMALL = small()


@pytest.fixture(scope='module')
def arrays():
  return drawn(SMALL)


# --- what a model returns ----------------------------------------------------


def test_output_and_what_is_only_given_on_request(arrays):
  plain = run(SMALL, arrays, images())
  assert plain.embedding.shape == (8, 16) and plain.tokens.shape == (8, 16, 16)
  assert plain.logits.shape == (8, 5)
  assert plain.attention is None and plain.stages is None
  full = run(SMALL, arrays, images(), attention=True, stages=True)
  assert [m.shape for m in full.attention] == [(8, 2, 16, 16)]
  assert [s.shape for s in full.stages] == [(8, 8, 8, 8), (8, 4, 4, 16)]
  np.testing.assert_allclose(full.embedding, plain.embedding, atol=1e-6)
  np.testing.assert_array_equal(full.stages[-1].reshape(8, 16, 16), full.tokens)


def test_no_head_no_logits_and_the_same_embedding(arrays):
  bare = {path: value for path, value in arrays.items() if 'head' not in path}
  output = run(dataclasses.replace(SMALL, num_classes=0), bare, images())
  assert output.logits is None
  wanted = run(SMALL, arrays, images()).embedding
  np.testing.assert_allclose(output.embedding, wanted, atol=1e-6)


def test_an_image_s_embedding_does_not_depend_on_its_neighbours(arrays):
  others = images(seed=1)
  others[3] = images()[3]
  first, second = (run(SMALL, arrays, x).embedding for x in (images(), others))
  np.testing.assert_allclose(first[3], second[3], atol=1e-6)
  assert np.abs(first[4] - second[4]).max() > 1e-3


def test_attention_maps_of_the_figure_start_in_stage_1():
  config = make_config('painformer_figure', image_size=32)
  output = jax.eval_shape(
    lambda arrays, x: functional.from_variables(config, arrays)(x, attention=True),
    functional.abstract_variables(config),
    jnp.zeros((1, 32, 32, 3)),
  )
  assert len(output.attention) == ''.join(config.mixers).count('a') == 18
  assert output.attention[0].shape == (1, 2, 64, 64)


@pytest.mark.parametrize('shape', [(2, 31, 32, 3), (2, 32, 32, 1), (32, 32, 3), (2, 3, 32, 32)])
def test_wrong_image_shape_is_an_error_that_names_both(arrays, shape):
  model = functional.from_variables(SMALL, arrays)
  with pytest.raises(ValueError, match=r'\[batch, 32, 32, 3\]') as caught:
    model(np.zeros(shape, np.float32))
  assert str(shape) in str(caught.value)


def test_from_variables_wants_exactly_the_right_paths(arrays):
  renamed = dict(arrays)
  renamed['block9/0/bias'] = renamed.pop('norm1/bias')
  with pytest.raises(KeyError, match='block9/0/bias, norm1/bias'):
    functional.from_variables(SMALL, renamed)


def test_size_that_is_not_a_multiple_of_32():
  config = make_config('painformer_nano', image_size=50)
  output = run(config, drawn(config), images(size=50), stages=True)
  assert [s.shape[1] for s in output.stages] == [13, 7, 4, 2]
  assert [config.grid(stage) for stage in range(4)] == [13, 7, 4, 2]
  assert np.isfinite(output.embedding).all()


# --- precision and ways of computing -----------------------------------------


@pytest.mark.parametrize(
  'overrides', [{'gate': 'dft'}, {'depthwise': 'shift'}, {'depthwise': 'conv'}], ids=str
)
def test_every_way_of_computing_gives_the_same(arrays, overrides):
  config = small(**overrides)
  wanted = run(SMALL, arrays, images())
  actual = run(config, arrays, images())
  np.testing.assert_allclose(actual.embedding, wanted.embedding, atol=1e-5)
  np.testing.assert_allclose(actual.logits, wanted.logits, atol=1e-5)


@pytest.mark.parametrize('gate', ['fft', 'dft'])
def test_bfloat16_keeps_float32_parameters_and_comes_near(arrays, gate):
  config = small(gate=gate, gate_precision='default', dtype='bfloat16')
  dtypes = {path: a.dtype for path, a in functional.abstract_variables(config).items()}
  assert {str(d) for path, d in dtypes.items() if 'count' not in path} == {'float32'}
  wanted = run(SMALL, arrays, images())
  actual = run(config, arrays, images(), attention=True)
  assert actual.embedding.dtype == actual.tokens.dtype == jnp.bfloat16
  assert actual.logits.dtype == np.float32
  assert {m.dtype for m in actual.attention} == {np.dtype('float32')}
  for name in 'embedding', 'tokens':
    a, b = (np.asarray(getattr(o, name), np.float32) for o in (actual, wanted))
    assert 0 < np.abs(a - b).max() <= 0.05 * np.abs(b).max()


def test_training_in_bfloat16_gives_float32_gradients_near_the_exact_ones(arrays):
  # The grouped convolution compiles soonest.
  exact = small(depthwise='conv')
  half = dataclasses.replace(exact, dtype='bfloat16')
  learned = functional.parameter_paths(half)
  parameters = {k: v for k, v in arrays.items() if k in learned}
  statistics = {k: v for k, v in arrays.items() if k not in learned}

  def gradient(config):
    def loss(parameters):
      output, _ = functional.apply_train(config, {**parameters, **statistics}, images())
      return jnp.square(output.logits).mean()

    return jit(jax.grad(loss))(parameters)

  wanted, actual = gradient(exact), gradient(half)
  assert {str(g.dtype) for g in actual.values()} == {'float32'}
  norm = math.sqrt(sum(float(jnp.sum(g * g)) for g in wanted.values()))
  error = math.sqrt(sum(float(jnp.sum((actual[k] - wanted[k]) ** 2)) for k in wanted))
  assert 0 < error < 0.1 * norm


# --- stochastic depth --------------------------------------------------------


def test_drop_path_drops_whole_samples_at_its_rate():
  drop = DropPath(0.3)
  x = jnp.ones((20_000, 2, 3))
  y = np.asarray(drop(x, jax.random.key(0)))
  kept = y[:, 0, 0] != 0
  assert abs(kept.mean() - 0.7) < 4 * math.sqrt(0.3 * 0.7 / len(x))
  np.testing.assert_allclose(y[kept], 1 / 0.7, rtol=1e-6)
  assert not y[~kept].any()
  drop.eval()
  assert drop(x, None) is x


def test_rates_rise_linearly_over_the_blocks():
  config = make_config('painformer_nano', mixers=('ss', 'ss', 'aaa', 'a'), drop_path_rate=0.7)
  model = nnx.eval_shape(lambda: PainFormer(config, rngs=nnx.Rngs(0)))
  blocks = [b for n in range(1, 5) for b in getattr(model, f'block{n}')]
  np.testing.assert_allclose([b.drop_path.rate for b in blocks], np.linspace(0, 0.7, 8), atol=1e-7)


def test_stochastic_depth_follows_its_key_and_stops_in_evaluation(arrays):
  config = small(drop_path_rate=0.5)

  @jit
  def train(key):
    return functional.apply_train(config, arrays, images(), key=key)[0].embedding

  first = train(jax.random.key(1))
  np.testing.assert_array_equal(first, train(jax.random.key(1)))
  assert np.abs(first - train(jax.random.key(2))).max() > 1e-3
  with pytest.raises(ValueError, match='key='):
    jax.eval_shape(lambda: functional.apply_train(config, arrays, images()))
  np.testing.assert_array_equal(
    run(config, arrays, images()).embedding, run(SMALL, arrays, images()).embedding
  )


# --- initial values ----------------------------------------------------------


@pytest.fixture(scope='module')
def fresh():
  return create('painformer', num_classes=1000, seed=1)


def test_initial_values_have_the_release_s_statistics(fresh):
  checked = set()
  for path, value in functional.variables(fresh).items():
    value = np.asarray(value)
    module, leaf = path.rsplit('/', 1)
    if leaf in ('bias', 'mean', 'count'):
      assert not value.any(), path
      checked.add('zero')
      continue
    if leaf in ('scale', 'var'):
      assert (value == 1).all(), path
      checked.add('one')
      continue
    if leaf == 'complex_weight':
      deviation = 0.02
    elif 'dwconv' in module:
      deviation = math.sqrt(2 / 9)
    elif value.ndim == 4:
      deviation = math.sqrt(2 / (value.shape[0] * value.shape[1] * value.shape[3]))
    else:
      deviation = 0.02
    # Five standard errors of a deviation and of a mean.
    assert abs(value.std() / deviation - 1) < 5 / math.sqrt(2 * value.size), path
    assert abs(value.mean()) < 5 * deviation / math.sqrt(value.size), path
    assert 2.5 < np.abs(value).max() / deviation < 6, f'{path} is cut off or has strays'
    checked.add(deviation)
  assert len(checked) == 9  # zeros, ones, 0.02, depthwise and five shapes of kernels


def test_linear_layers_start_without_strays():
  # One in eight million did, when the bounds were beyond float32's reach.
  values = trunc_normal(jax.random.key(0), (64, 2**20), jnp.float32)
  assert 0.09 < jnp.abs(values).max() <= 0.1


def test_seed_decides_the_initial_values(fresh):
  same, again, other = (
    functional.variables(model)
    for model in (
      fresh,
      create('painformer', num_classes=1000, seed=1),
      create('painformer', num_classes=1000, seed=2),
    )
  )
  for path, value in same.items():
    np.testing.assert_array_equal(value, again[path])
    if path.endswith('kernel'):
      assert np.abs(value - other[path]).max() > 0


def test_create_starts_in_evaluation_with_the_arrays_it_announces(fresh):
  assert fresh.patch_embed1.bn1.use_running_average
  real = functional.variables(fresh)
  abstract = functional.abstract_variables(fresh.config)
  assert {k: (a.shape, a.dtype) for k, a in abstract.items()} == {
    k: (a.shape, a.dtype) for k, a in real.items()
  }
  statistics = real.keys() - functional.parameter_paths(fresh.config)
  assert {path.rsplit('/', 1)[1] for path in statistics} == {'mean', 'var', 'count'}
  assert len(statistics) == 9
