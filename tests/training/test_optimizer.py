import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from painformer_jax.core import path_rules
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, registry
from painformer_jax.training import optimizer as optimizer_lib
from painformer_jax.training import parameter_groups
from painformer_jax.training.config import OptimizerConfig
from painformer_jax.training.state import initial_state

MODEL = registry.make_config('painformer_nano')


@functools.cache
def abstract_state(*, learned_weighting):
  config = registry.make_config('painformer_nano', num_classes=0)
  return jax.eval_shape(
    lambda: initial_state(
      config,
      classes={'one': 3, 'two': 5},
      learned_weighting=learned_weighting,
      optimizer=optimizer_lib.make_optimizer(OptimizerConfig(), steps=10, model=config),
      seed=0,
    )
  )


@pytest.mark.parametrize('warmup', [1, 10])
def test_schedule_with_warm_up(warmup):
  config = OptimizerConfig(learning_rate=2e-3, warmup_steps=warmup, end_learning_rate_ratio=0.1)
  rate = optimizer_lib.schedule(config, steps=100)
  assert rate(0) == 0
  np.testing.assert_allclose(rate(warmup), 2e-3, rtol=1e-6)
  np.testing.assert_allclose(rate(100), 2e-4, rtol=1e-5)
  half = warmup + (100 - warmup) / 2
  np.testing.assert_allclose(rate(half), (2e-3 + 2e-4) / 2, rtol=1e-5)
  rates = [float(rate(step)) for step in range(101)]
  assert np.argmax(rates) == warmup and (np.diff(rates[warmup:]) < 0).all()
  if warmup == 10:
    np.testing.assert_allclose(rate(5), 1e-3, rtol=1e-6)


def test_schedule_without_warm_up_begins_at_the_top():
  rate = optimizer_lib.schedule(OptimizerConfig(learning_rate=1.0), steps=100)
  assert rate(0) == 1
  np.testing.assert_allclose(rate(50), 0.5, atol=1e-6)
  np.testing.assert_allclose(rate(100), 0, atol=1e-6)


@pytest.mark.parametrize(
  'name,learned_weighting',
  [*((name, True) for name in registry.list_models()), ('painformer_nano', False)],
)
def test_decay_mask_covers_every_parameter(name, learned_weighting):
  config = registry.make_config(name, num_classes=0)
  params = {
    f'backbone/{path}': functional.abstract_variables(config)[path]
    for path in functional.parameter_paths(config)
  }
  nano = abstract_state(learned_weighting=learned_weighting).params
  params |= {path: leaf for path, leaf in nano.items() if not path.startswith('backbone/')}
  mask = parameter_groups.decay_mask(params)
  assert mask.keys() == params.keys()
  for path, decays in mask.items():
    leaf = path.split('/')[-1]
    if path.startswith('log_variance/'):
      assert learned_weighting and not decays
    elif leaf in ('bias', 'scale'):
      assert not decays
    else:
      assert decays and leaf in ('kernel', 'complex_weight')
      assert len(params[path].shape) > 1
  assert mask['heads/one/kernel'] and not mask['heads/one/bias']
  assert any(path.endswith('complex_weight') for path in mask)
  assert any(path.startswith('log_variance/') for path in mask) == learned_weighting


def test_every_parameter_of_a_backbone_is_in_the_state():
  state = abstract_state(learned_weighting=True)
  config = registry.make_config('painformer_nano', num_classes=0)
  backbone = {p.removeprefix('backbone/') for p in state.params if p.startswith('backbone/')}
  assert backbone == functional.parameter_paths(config)
  assert backbone | state.stats.keys() == functional.abstract_variables(config).keys()
  assert not backbone & state.stats.keys()


def test_a_new_kind_of_parameter_is_an_error():
  with pytest.raises(ValueError, match='weight decay table matches: backbone/new/gamma'):
    parameter_groups.decay_mask({'backbone/new/gamma': 1})


PARAMS = {
  'a/kernel': jnp.full(3, 2.0),
  'a/bias': jnp.full(3, 2.0),
  'log_variance/t': jnp.float32(2),
}


def updated(config, gradients, *, steps=100):
  transformation = optimizer_lib.make_optimizer(config, steps=steps, model=MODEL)
  updates, _ = transformation.update(gradients, transformation.init(PARAMS), PARAMS)
  return optax.apply_updates(PARAMS, updates)


def test_only_what_the_mask_says_decays():
  found = updated(
    OptimizerConfig(learning_rate=0.5, weight_decay=0.1), jax.tree.map(jnp.zeros_like, PARAMS)
  )
  np.testing.assert_allclose(found['a/kernel'], 2 * (1 - 0.5 * 0.1), rtol=1e-6)
  np.testing.assert_array_equal(found['a/bias'], 2)
  np.testing.assert_array_equal(found['log_variance/t'], 2)


def test_adamw_against_its_statement():
  """Two steps of Loshchilov and Hutter's algorithm in float64."""
  config = OptimizerConfig(
    learning_rate=0.1, weight_decay=0.2, b1=0.8, b2=0.9, clip_norm=0, warmup_steps=2
  )
  transformation = optimizer_lib.make_optimizer(config, steps=10, model=MODEL)
  params = {'a/kernel': jnp.float32(1.5)}
  state = transformation.init(params)
  m = v = 0.0
  expected = 1.5
  for step, gradient in enumerate((0.3, -0.7)):
    updates, state = transformation.update({'a/kernel': jnp.float32(gradient)}, state, params)
    params = optax.apply_updates(params, updates)
    rate = 0.1 * step / 2
    m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
    direction = m / (1 - 0.8 ** (step + 1)) / (np.sqrt(v / (1 - 0.9 ** (step + 1))) + 1e-8)
    expected -= rate * (direction + 0.2 * expected)
  np.testing.assert_allclose(params['a/kernel'], expected, rtol=1e-6)


def test_clipping_limits_the_global_norm():
  """Seen in Adam's first moment, which is (1 - b1) times the clipped gradient."""
  gradients = {
    'a/kernel': jnp.full(3, 30.0),
    'a/bias': jnp.full(3, 40.0),
    'log_variance/t': jnp.float32(0),
  }

  def moments(clip_norm):
    transformation = optimizer_lib.make_optimizer(
      OptimizerConfig(clip_norm=clip_norm), steps=9, model=MODEL
    )
    _, state = transformation.update(gradients, transformation.init(PARAMS), PARAMS)
    return optax.tree.get(state, 'mu')

  def norm(tree):
    return float(optax.tree.norm(tree)) / 0.1

  assert norm(gradients) * 0.1 == pytest.approx(50 * 3**0.5)
  assert norm(moments(2.0)) == pytest.approx(2.0, rel=1e-5)
  np.testing.assert_allclose(moments(2.0)['a/kernel'] / moments(2.0)['a/bias'], 0.75, rtol=1e-5)
  assert norm(moments(0.0)) == pytest.approx(50 * 3**0.5, rel=1e-5)
  assert norm(moments(1e3)) == pytest.approx(50 * 3**0.5, rel=1e-5)


# Rates by layer, and what stays as it is.


@pytest.mark.parametrize('name', registry.list_models())
def test_rates_cover_every_parameter_and_rise_to_the_heads(name):
  model = registry.make_config(name)
  config = OptimizerConfig(layer_decay=0.5, head_learning_rate_multiplier=3.0)
  paths = [f'backbone/{path}' for path in functional.parameter_paths(model)]
  found = path_rules.match(
    optimizer_lib.rate_rules(config, model),
    [*paths, 'heads/a/kernel', 'log_variance/a'],
    table='rates',
  )
  last, blocks = model.depth + 1, 0
  assert found['backbone/patch_embed1/conv1/kernel'] == 0.5**last
  for stage, pattern in enumerate(model.mixers, start=1):
    for number in range(len(pattern)):
      blocks += 1
      assert found[f'backbone/block{stage}/{number}/mlp/fc1/kernel'] == 0.5 ** (last - blocks)
      if stage > 1 and not number:
        entry = found[f'backbone/patch_embed{stage}/proj/kernel']
        assert entry == 0.5 ** (last - blocks)
  assert found['backbone/post_network/0/mlp/fc1/kernel'] == 1
  assert found[f'backbone/norm{len(model.mixers)}/scale'] == 1
  assert found['backbone/norm1/scale'] == 0.5 ** (last - len(model.mixers[0]))
  assert found['heads/a/kernel'] == found['log_variance/a'] == 3


def nano_arrays():
  """Every path of the model; of one shape, for which JAX compiles once."""
  rng = np.random.default_rng(0)
  return {
    path: jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    for path in abstract_state(learned_weighting=True).params
  }


def step_of(config, params, gradients):
  optimizer = optimizer_lib.make_optimizer(config, steps=10, model=MODEL)
  state = optimizer.init(params)
  return optimizer.update(gradients, state, params)


def test_an_update_is_that_of_the_plain_optimizer_times_the_rate():
  params, plain = nano_arrays(), OptimizerConfig(learning_rate=1e-2)
  config = dataclasses.replace(plain, layer_decay=0.8, head_learning_rate_multiplier=2.0)
  updates, _ = step_of(config, params, params)
  expected, _ = step_of(plain, params, params)
  factors = path_rules.match(optimizer_lib.rate_rules(config, MODEL), params, table='rates')
  assert len(set(factors.values())) > 5
  for path, update in updates.items():
    np.testing.assert_allclose(update, expected[path] * factors[path], rtol=1e-6, err_msg=path)


def test_what_is_frozen_stays_has_no_moments_and_no_part_in_the_norm():
  params = nano_arrays()
  frozen = 'backbone/(patch_embed1|block1)/.*'
  config = OptimizerConfig(learning_rate=1e-2, frozen=(frozen,), clip_norm=0.5)
  still = {path for path in params if re.fullmatch(frozen, path)}
  # However large their gradients, the others' updates are the same.
  gradients = {path: a * (1e6 if path in still else 1) for path, a in params.items()}
  updates, state = step_of(config, params, gradients)
  others, _ = step_of(config, params, params)
  assert 5 < len(still) < len(params)
  for path, update in updates.items():
    if path in still:
      assert not np.asarray(update).any()
    else:
      np.testing.assert_array_equal(update, others[path])
      assert np.asarray(update).any()
  moments = sum(a.size for a in jax.tree.leaves(state)) - 2  # Two counters.
  assert moments == 2 * sum(a.size for path, a in params.items() if path not in still)


def test_an_expression_that_freezes_nothing_is_an_error():
  with pytest.raises(InputError, match=r"frozen: 'block1/\.\*' matches no parameter, such as back"):
    step_of(OptimizerConfig(frozen=('block1/.*',)), *[nano_arrays()] * 2)
