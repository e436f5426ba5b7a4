import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_losses import stated
from training_runs import TASKS, SmallStep

from painformer_jax.models import functional
from painformer_jax.models.layers import BatchIndices, DropPath
from painformer_jax.parallel.mesh import data_mesh
from painformer_jax.training.config import OptimizerConfig
from painformer_jax.training.state import group, initial_state
from painformer_jax.training.step import make_embed_step, normalise

# No warm-up, clipping or decay: what has no gradient stays as it is.
PLAIN = OptimizerConfig(learning_rate=1e-3, clip_norm=0, weight_decay=0)


@pytest.fixture(scope='module')
def step():
  return SmallStep(drop_path_rate=0.2, optimizer=PLAIN)


@pytest.fixture(scope='module')
def half_step():
  """In bfloat16, with fixed weights."""
  return SmallStep(
    drop_path_rate=0.2, optimizer=PLAIN, dtype='bfloat16', weights={'alpha': 0.0, 'beta': 2.0}
  )


quick = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def relabelled(batch, task):
  """The batch with other labels for one task."""
  label = (batch[task]['label'] + 1) % 2
  return batch | {task: batch[task] | {'label': label}}


def changed(before, after):
  return {
    path
    for path in before
    if np.asarray(before[path]).tobytes() != np.asarray(after[path]).tobytes()
  }


def compiled_forward(step, params, stats, batch, key):
  plan = step.plan
  images = normalise(
    np.concatenate([b['image'] for b in batch.values()]), plan.model.mean, plan.model.std
  )

  def forward(arrays, images):
    output, arrays = functional.apply_train(plan.model, arrays, images, key=key)
    return output.embedding, arrays

  arrays = {**group(params, 'backbone'), **stats}
  return quick(forward)(arrays, images)


def test_a_step_against_its_statement(step):
  """Each task's loss is that of its own head on its own rows; the sum is weighted."""
  state, batch = step.state, step.batch(0)
  after, metrics = step(state, batch)
  key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), 0)
  embedding, arrays = compiled_forward(step, state.params, state.stats, batch, key)
  total = 0
  for task, own in (('alpha', embedding[:8]), ('beta', embedding[8:])):
    head = group(state.params, f'heads/{task}')
    logits = np.asarray(own, np.float64) @ head['kernel'] + head['bias']
    labels = batch[task]['label']
    loss = stated(logits, labels, 0.1)
    np.testing.assert_allclose(metrics[f'task/{task}/loss'], loss, rtol=2e-5)
    assert metrics[f'task/{task}/accuracy'] == (logits.argmax(1) == labels).mean()
    w = float(state.params[f'log_variance/{task}'])
    assert metrics[f'task/{task}/log_variance'] == w
    total += np.exp(-w) * loss + w
  np.testing.assert_allclose(metrics['loss'], total, rtol=2e-5)
  for path, value in after.stats.items():
    np.testing.assert_allclose(value, arrays[path], rtol=1e-4, atol=1e-5)
  assert int(after.step) == 1 and np.array_equal(after.key, state.key)
  norm = np.sqrt(sum(np.sum(np.square(p, dtype=np.float64)) for p in after.params.values()))
  np.testing.assert_allclose(metrics['parameter_norm'], norm, rtol=1e-5)


@pytest.mark.parametrize('task,other', [('alpha', 'beta'), ('beta', 'alpha')])
def test_labels_of_a_task_reach_its_own_head_alone(step, task, other):
  batch = step.batch(1)
  before, values = step(step.state, batch)
  after, others = step(step.state, relabelled(batch, task))
  assert values[f'task/{task}/loss'] != others[f'task/{task}/loss']
  for name in ('loss', 'accuracy', 'log_variance'):
    assert values[f'task/{other}/{name}'] == others[f'task/{other}/{name}']
  different = changed(before.params, after.params)
  assert f'heads/{task}/kernel' in different and f'heads/{task}/bias' in different
  assert not any(path.startswith(f'heads/{other}/') for path in different)
  assert f'log_variance/{other}' not in different
  assert changed(before.stats, after.stats) == set()
  assert any(path.startswith('backbone/') for path in different)


def test_a_task_of_no_weight_changes_nothing(half_step):
  """Weight 0: not its head, and its labels not the backbone."""
  step = half_step
  batch = step.batch(2)
  after, values = step(step.state, batch)
  assert values['loss'] == pytest.approx(2 * values['task/beta/loss'], rel=1e-6)
  assert not any(name.endswith('log_variance') for name in values)
  same = {path for path in after.params if path not in changed(step.state.params, after.params)}
  assert same == {'heads/alpha/kernel', 'heads/alpha/bias'}
  again, _ = step(step.state, relabelled(batch, 'alpha'))
  assert changed(after.params, again.params) == set()


def test_images_of_a_task_reach_the_others_through_batch_statistics_alone(step):
  """BatchNorm of the stem sees the whole batch, as in the release: a little."""
  batch = step.batch(3)
  _, values = step(step.state, batch)
  darker = batch | {'beta': batch['beta'] | {'image': batch['beta']['image'] // 2}}
  _, others = step(step.state, darker)
  assert values['task/beta/loss'] != others['task/beta/loss']
  assert 0 < abs(values['task/alpha/loss'] - others['task/alpha/loss']) < 0.2


def test_the_same_step_gives_the_same_bits(step):
  batch = step.batch(4)
  states = [step(step.state, batch)[0] for _ in range(2)]
  for a, b in zip(*map(jax.tree.leaves, states), strict=True):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_stochastic_depth_draws_anew_each_step(step):
  batch, state = step.batch(5), step.state
  losses = {step(state.replace(step=np.int32(n)), batch)[1]['loss'] for n in (0, 1, 2)}
  assert len(losses) == 3
  other_run = state.replace(key=np.array([0, 7], np.uint32))
  assert step(other_run, batch)[1]['loss'] not in losses


def test_a_row_drops_by_its_place_in_the_whole_batch():
  """In whatever order the rows are, and in a part of them."""
  drop, key = DropPath(0.4), jax.random.key(3)
  x = np.random.default_rng(0).normal(size=(32, 2, 3)).astype(np.float32)
  whole = np.asarray(drop(x, key))
  dropped = ~whole.any((1, 2))
  assert 0 < dropped.sum() < 32
  for numbers in (np.arange(32), np.random.default_rng(1).permutation(32), np.array([31, 4, 9])):
    indices = BatchIndices(jnp.asarray(numbers, jnp.int32), 32)
    np.testing.assert_array_equal(drop(x[numbers], key, indices), whole[numbers])


def test_uncertainty_weights_learn(step):
  """They go up where the loss is above e^w, and down where it is below."""
  params = {
    **step.state.params,
    'log_variance/alpha': np.float32(-3),
    'log_variance/beta': np.float32(3),
  }
  state = step.state.replace(params=params)
  for number in range(3):
    state, values = step(state, step.batch(number))
  assert values['task/alpha/loss'] > np.exp(-3) and values['task/beta/loss'] < np.exp(3)
  assert state.params['log_variance/alpha'] > -3 + 1e-3
  assert state.params['log_variance/beta'] < 3 - 1e-3


def test_values_that_are_not_finite_show_in_the_metrics(step):
  """Wherever they arise, before a state with them is saved."""
  bad = {**step.state.params, 'heads/alpha/bias': np.full(3, np.nan, np.float32)}
  after, values = step(step.state.replace(params=bad), step.batch(0))
  assert np.isnan(values['task/alpha/loss']) and np.isfinite(values['task/beta/loss'])
  assert np.isnan(values['gradient_norm'])
  # A loss that is finite with an update that is not.
  huge = jax.tree.map(lambda a: a, step.state.opt_state)
  huge = jax.tree_util.tree_map_with_path(
    lambda path, a: np.full_like(a, np.inf) if '.mu' in jax.tree_util.keystr(path) else a, huge
  )
  after, values = step(step.state.replace(opt_state=huge), step.batch(0))
  assert np.isfinite(values['loss']) and np.isfinite(values['gradient_norm'])
  assert not np.isfinite(values['parameter_norm'])
  assert not all(np.isfinite(p).all() for p in after.params.values())


def test_bfloat16_stays_near_float32(step, half_step, measured):
  """Arithmetic in bfloat16; parameters, statistics and losses in float32."""
  for task in ('alpha', 'beta'):
    name, errors = f'task/{task}/loss', []
    for number in range(3):
      _, expected = step(step.state, step.batch(number))
      state, found = half_step(half_step.state, step.batch(number))
      errors.append(abs(found[name] / expected[name] - 1))
      assert found[name] != expected[name]
    measured(f'loss in bfloat16, {task}, relative', max(errors), limit=5e-3)
  for leaf, before in zip(*map(jax.tree.leaves, (state, half_step.state)), strict=True):
    assert leaf.dtype == before.dtype != jnp.bfloat16


def test_images_are_normalised_on_the_device(step):
  image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
  found = normalise(image, step.plan.model.mean, step.plan.model.std)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(
    found, (image / 255 - step.plan.model.mean) / step.plan.model.std, rtol=1e-5, atol=1e-6
  )


def test_embed_step_is_the_model_in_evaluation_mode(step):
  mesh, plan = data_mesh(), step.plan
  arrays = {**group(step.state.params, 'backbone'), **step.state.stats}
  arrays = {path: jnp.asarray(a) for path, a in arrays.items()}
  images = step.batch(0)['alpha']['image']
  embed = make_embed_step(plan.model, mesh)
  found = embed.lower(arrays, images).compile(
    compiler_options={'xla_backend_optimization_level': 0}
  )(arrays, images)
  expected = quick(lambda arrays, x: functional.from_variables(plan.model, arrays)(x).embedding)(
    arrays, normalise(images, plan.model.mean, plan.model.std)
  )
  assert found.dtype == jnp.float32 and found.shape == (8, 16)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_initial_state_depends_on_the_seed_alone(step):
  @quick
  def make(seed):
    return initial_state(
      step.plan.model, classes=TASKS, learned_weighting=True, optimizer=optax.sgd(0.1), seed=seed
    )

  first, again, other = make(0), make(0), make(1)
  assert changed(first.params, again.params) == set()
  fixed = {
    path
    for path in first.params
    if path.split('/')[-1] in ('bias', 'scale') or path.startswith('log_variance')
  }
  assert changed(first.params, other.params) == first.params.keys() - fixed
  assert not np.array_equal(first.key, other.key) and first.step == 0


def test_an_initial_state_takes_a_backbone_as_it_is(step):
  backbone = {**group(step.state.params, 'backbone'), **step.state.stats}
  state = initial_state(
    step.plan.model,
    classes=TASKS,
    learned_weighting=False,
    optimizer=optax.sgd(0.1),
    seed=0,
    backbone=backbone,
  )
  assert group(state.params, 'backbone') | state.stats == backbone
  assert group(state.params, 'log_variance') == {}


# Averages of the parameters, and steps that are left out.


@pytest.fixture(scope='module')
def careful():
  return SmallStep(config={'ema_decay': 0.9, 'non_finite': 'skip'})


def test_averages_follow_their_statement(careful):
  state, expected = careful.state, dict(careful.state.params)
  state = state.replace(ema=expected)
  for number in range(3):
    state, metrics = careful(state, careful.batch(number))
    assert metrics['skipped'] == 0
    decay = min(0.9, (1 + number) / (10 + number))
    expected = {
      path: decay * average + (1 - decay) * np.asarray(state.params[path])
      for path, average in expected.items()
    }
  for path, average in expected.items():
    np.testing.assert_allclose(state.ema[path], average, rtol=1e-5, atol=1e-7, err_msg=path)
  assert state.evaluated is state.ema


def test_a_step_that_is_not_finite_changes_nothing_but_its_number(careful):
  bad = {**careful.state.params, 'heads/alpha/bias': np.full(3, np.nan, np.float32)}
  before = careful.state.replace(params=bad)
  after, metrics = careful(before, careful.batch(0))
  assert metrics['skipped'] == 1 and not np.isfinite(metrics['loss'])
  assert after.step == before.step + 1
  for path, array in jax.tree_util.tree_leaves_with_path(before.replace(step=after.step)):
    found = jax.tree_util.tree_leaves_with_path(after)
    np.testing.assert_array_equal(dict(found)[path], array, err_msg=str(path))
