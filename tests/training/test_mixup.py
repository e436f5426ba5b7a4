import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parallel import collectives
from training_runs import TASKS, SmallStep, shared_folder, small_config

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.training import loop, losses, mixup, setup
from painformer_jax.training.config import from_config_dict
from painformer_jax.training.mixup import Mixup
from painformer_jax.training.setup import assemble
from painformer_jax.training.state import group
from painformer_jax.training.step import make_train_step, normalise

quick = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

MIXING = {'alpha': Mixup(mixup=0.4), 'beta': Mixup(mixup=0.8, cutmix=1.0)}
BLEND, CUT, EITHER = Mixup(mixup=0.5), Mixup(cutmix=1.0), Mixup(mixup=0.5, cutmix=1.0)


@functools.cache
def drawn(mixing, count=600, size=(24, 16)):
  """Shares by pixel [count, height, width] and their means [count], of as many steps."""
  keys = jax.random.split(jax.random.key(3), count)
  return tuple(
    np.asarray(a) for a in quick(jax.vmap(lambda key: mixup.mixup_lambda(key, mixing, size)))(keys)
  )


# Shares.


def test_mixup_is_one_share_for_all_pixels_from_beta():
  by_pixel, share = drawn(BLEND)
  assert by_pixel.dtype == share.dtype == np.float32
  np.testing.assert_array_equal(by_pixel, np.broadcast_to(by_pixel[:, :1, :1], by_pixel.shape))
  np.testing.assert_allclose(share, by_pixel[:, 0, 0], rtol=1e-6)
  # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
  assert abs(share.mean() - 0.5) < 0.06 and abs(share.var() - 1 / 8) < 0.02
  assert 0 <= share.min() and share.max() <= 1
  _, narrow = drawn(Mixup(mixup=50.0))
  assert abs(narrow.var() - 1 / 404) < 0.0006


def test_cutmix_is_a_box_whose_area_is_the_other_s_share():
  by_pixel, share = drawn(CUT)
  assert set(np.unique(by_pixel)) == {0, 1}
  whole = 0
  for pixels, own in zip(by_pixel, share):
    assert own == pytest.approx(pixels.mean(), abs=1e-6)
    rows, columns = (pixels == 0).any(1), (pixels == 0).any(0)
    np.testing.assert_array_equal(pixels == 0, rows[:, None] & columns)
    for line in (rows, columns):  # In one piece.
      assert (np.diff(np.concatenate([[0], line, [0]])) == 1).sum() <= 1
    inside = not (rows[0] or rows[-1] or columns[0] or columns[-1])
    if inside and rows.any():
      whole += 1
      # Of the image's proportions, 24 to 16.
      assert abs(rows.sum() - 1.5 * columns.sum()) <= 2.5
  assert whole > 40
  # Boxes that reach over the edge are cut: more than the half of Beta(1, 1) stays.
  assert 0.55 < share.mean() < 0.75
  # Anywhere, corners less often than the middle, no side more often than the other.
  covered = (by_pixel == 0).mean(0)
  assert 0.05 < covered.min() < 0.5 * covered.max()
  assert max(abs(covered - covered[::-1]).max(), abs(covered - covered[:, ::-1]).max()) < 0.12


def test_either_by_a_fair_coin():
  by_pixel, _ = drawn(EITHER)
  blended = (by_pixel == by_pixel[:, :1, :1]).all((1, 2))
  assert 0.42 < blended.mean() < 0.6  # Some boxes have no pixel at all.
  assert set(np.unique(by_pixel[~blended])) == {0, 1}


def test_what_is_drawn_depends_on_step_and_task_alone():
  @quick
  def keys(step):
    own = [mixup.task_key(step, task) for task in ('alpha', 'beta')]
    # As stochastic depth derives them, and as it could.
    others = [
      jax.random.split(step, 64),
      jax.vmap(functools.partial(jax.random.fold_in, step))(jnp.arange(64)),
    ]
    return jax.random.key_data(jnp.stack(own)), jax.random.key_data(jnp.concatenate(others))

  (alpha, beta), others = (np.asarray(k).tolist() for k in keys(jax.random.key(0)))
  (later, _), _ = (np.asarray(k).tolist() for k in keys(jax.random.key(1)))
  assert alpha != beta and later not in (alpha, beta)
  assert alpha not in others and beta not in others


# Images and losses.


def numpy_mixed(images, by_pixel):
  by_pixel = np.asarray(by_pixel, np.float32)[..., None]
  return np.round(images * by_pixel + np.roll(images, 1, 0) * (1 - by_pixel)).astype(np.uint8)


@pytest.mark.parametrize('mixing', [BLEND, CUT])
def test_rows_are_mixed_with_the_row_before(mixing):
  images, mixed = (
    np.random.default_rng(0).integers(0, 256, (6, 24, 16, 3), np.uint8),
    quick(mixup.mix_images),
  )
  for by_pixel in drawn(mixing)[0][:10]:
    found = mixed(images, by_pixel)
    assert found.dtype == jnp.uint8
    apart = np.abs(np.asarray(found).astype(int) - numpy_mixed(images, by_pixel))
    # Fused or not, a product may round to the other side of a half.
    assert apart.max() <= (1 if mixing is BLEND else 0) and (apart > 0).mean() < 1e-3
  same = mixed(images, np.ones((24, 16), np.float32))
  np.testing.assert_array_equal(same, images)
  other = mixed(images, np.zeros((24, 16), np.float32))
  np.testing.assert_array_equal(other, images[[5, 0, 1, 2, 3, 4]])


def stated_loss(logits, labels, others, share, smoothing):
  """-sum of target times log-probability, the target of two labels, in float64."""
  logits, classes = np.asarray(logits, np.float64), logits.shape[1]
  log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  one_hot = np.eye(classes)
  target = share * one_hot[labels] + (1 - share) * one_hot[others]
  target = (1 - smoothing) * target + smoothing / classes
  return -(target * log_probability).sum(1).mean()


@pytest.mark.parametrize('smoothing', [0.0, 0.15])
def test_cross_entropy_of_two_labels(smoothing):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(8, 5)).astype(np.float32)
  labels, others = rng.integers(5, size=(2, 8))
  for share in (0.0, 0.3, 1.0):
    found = losses.cross_entropy(
      logits, labels, partner_labels=others, mixup_lambda=share, label_smoothing=smoothing
    )
    expected = stated_loss(logits, labels, others, share, smoothing)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


# The training step.


def mixing_step(devices):
  tasks = {
    task: {'batch_size': rows, **dataclasses.asdict(MIXING[task])}
    for task, rows in SmallStep.rows.items()
  }
  return SmallStep(devices=devices, config={'tasks': tasks})


def three_steps(step):
  state, found = step.state, []
  for number in range(3):
    state, metrics = step(state, step.batch(number))
    found.append(metrics)
  return found


def stated_steps(step, numbers):
  """Losses, accuracies and shares of steps from the first state, written out."""
  state, batch, plan = step.state, step.batch(0), step.plan
  forward = quick(
    lambda images: (
      functional.apply_train(
        plan.model,
        {**group(state.params, 'backbone'), **state.stats},
        normalise(images, plan.model.mean, plan.model.std),
      )[0].embedding
    )
  )
  draw = quick(
    lambda key: {
      task: mixup.mixup_lambda(mixup.task_key(key, task), how, (16, 16))
      for task, how in MIXING.items()
    }
  )
  for number in numbers:
    found = {}
    shares = draw(jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), number))
    embedding = forward(
      np.concatenate([numpy_mixed(rows['image'], shares[task][0]) for task, rows in batch.items()])
    )
    for task, own in (('alpha', embedding[:8]), ('beta', embedding[8:])):
      head, share = group(state.params, f'heads/{task}'), float(shares[task][1])
      logits = np.asarray(own, np.float64) @ head['kernel'] + head['bias']
      labels = batch[task]['label']
      others = np.roll(labels, 1)
      larger = labels if share >= 0.5 else others
      found[f'{task}/share'] = share
      found[f'task/{task}/loss'] = stated_loss(logits, labels, others, share, 0.1)
      found[f'task/{task}/accuracy'] = float((logits.argmax(1) == larger).mean())
    yield {'stated': found, 'found': step(state.replace(step=np.int32(number)), batch)[1]}


def on_mesh():
  """What one device and eight make of the same steps."""
  one, eight = (mixing_step(devices) for devices in (jax.devices()[:1], jax.devices()))
  return {
    'one': three_steps(one),
    'again': three_steps(one),
    'eight': three_steps(eight),
    'collectives': collectives(eight.program()),
    'stated': [*stated_steps(one, range(12))],
  }


@pytest.fixture(scope='module')
def ran(on_devices):
  return on_devices(8, on_mesh)


def test_a_step_against_its_statement(ran):
  for step in ran['stated']:
    for task in TASKS:
      assert step['found'][f'task/{task}/loss'] == pytest.approx(
        step['stated'][f'task/{task}/loss'], rel=3e-5
      )
      assert step['found'][f'task/{task}/accuracy'] == step['stated'][f'task/{task}/accuracy']
  shares = np.array([[s['stated'][f'{task}/share'] for task in TASKS] for s in ran['stated']])
  assert len(np.unique(shares)) == shares.size, 'drawn anew each step and for each task'
  assert (shares < 0.5).any() and (shares > 0.5).any()


def test_the_same_step_gives_the_same_figures(ran):
  assert ran['one'] == ran['again']


def test_eight_devices_mix_as_one(ran, measured):
  for number, (one, many) in enumerate(zip(ran['one'], ran['eight'], strict=True)):
    for name in one:
      if name.endswith('accuracy'):
        assert one[name] == many[name]
    error = max(abs(one[n] - many[n]) for n in one if n.endswith('loss'))
    measured(f'losses of mixed rows on 8 devices, step {number + 1}', error, limit=2e-6)
  # One row of each task goes to the next device, and its label.
  assert ran['collectives']['collective-permute'] == 2 * (16 * 16 * 3 + 1)
  assert ran['collectives'].keys() == {'all-reduce', 'collective-permute'}


def lowered(**plan):
  run = assemble(from_config_dict(small_config('nowhere')), TASKS)
  step = make_train_step(
    dataclasses.replace(run.plan, **plan), run.optimizer, run.mesh, state_shardings=run.shardings
  )
  return step.lower(run.abstract, run.batch()).as_text()


def test_without_mixing_the_program_is_the_one_without_it():
  plain = lowered()
  assert lowered(mixup={'alpha': Mixup(), 'beta': Mixup()}) == plain
  assert lowered(mixup={'alpha': BLEND}) != plain


# The configuration.


def test_a_run_mixes_as_its_configuration_says(monkeypatch, tmp_path, tmp_path_factory):
  class Seen(Exception):
    pass

  def see(plan, *args, **kwargs):
    raise Seen(plan)

  config = small_config(shared_folder(tmp_path_factory) / 'data')
  config.tasks.alpha.mixup, config.tasks.alpha.cutmix = 0.2, 1
  monkeypatch.setattr(setup, 'make_train_step', see)
  with pytest.raises(Seen) as seen:
    loop.pretrain(from_config_dict(config), tmp_path / 'run')
  [plan] = seen.value.args
  assert plan.mixup == {'alpha': Mixup(mixup=0.2, cutmix=1.0), 'beta': Mixup()}
  assert not plan.mixup['beta']


@pytest.mark.parametrize('field', ['mixup', 'cutmix'])
def test_mixing_that_cannot_be(field):
  def tried(rows, value):
    config = small_config('data')
    config.tasks.alpha.update(batch_size=rows, **{field: value})
    with pytest.raises(InputError) as error:
      from_config_dict(config)
    return str(error.value)

  for value in (-0.1, 101.0, float('nan'), float('inf')):
    assert tried(8, value) == f'config.tasks.alpha.{field} is {value}, not in [0, 100]'
  alone = (
    f'config.tasks.alpha.{field} is 0.5, but its batch size is 1: give it 2 or more images to mix'
  )
  assert tried(1, 0.5) == alone
  # Rows that are only known once the batch has been divided.
  config = small_config('data', batch_size=4, shares='explicit')
  config.tasks.alpha.update(batch_size=0, share=1.0, **{field: 0.5})
  config.tasks.beta.update(batch_size=0, share=3.0)
  with pytest.raises(InputError, match='its batch size is 1'):
    from_config_dict(config).with_batch_sizes({'alpha': 24, 'beta': 24})
  config.batch_size = 8
  assert (
    from_config_dict(config).with_batch_sizes({'alpha': 24, 'beta': 24}).batch_sizes['alpha'] == 2
  )
