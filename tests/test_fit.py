"""All folds at once: each as if alone, on any devices, in any groups."""

import dataclasses
import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from assess_runs import quick_jit
from painformer_jax.assessment import cost, fit, fit_program
from painformer_jax.assessment.fit import fit_folds, group_size
from painformer_jax.assessment.fit_program import FitConfig
from painformer_jax.assessment.fold_batches import (
    Fold, Run, class_weights, count_steps, minibatches, padded)
from painformer_jax.errors import InputError
from painformer_jax.models import mixer
from painformer_jax.models.mixer import MixerConfig
from painformer_jax.parallel import mesh as parallel

# Without self-attention, which takes half of the compiling.
MODEL = MixerConfig(
    outputs=2, input_width=6, tokens='vector', positions=2, latents=2, width=16,
    cross_heads=2, cross_head_width=8, self_attentions=0, depth=1, mlp_ratio=1)
CONFIG = FitConfig(model=MODEL, steps=24, batch=8, learning_rate=5e-3)
# Two trainings of the same fold in differently shaped programs: float32 sums
# run in another order, and AdamW's first steps amplify what differs.
CLOSE = 1e-5


@pytest.fixture(scope='module', autouse=True)
def quick_compile():
  with quick_jit():
    yield


@functools.cache
def task(samples=96, tokens=2, effect=2.0, seed=0):
  """Embeddings whose first number carries the label, and the labels."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, samples)
  inputs = rng.standard_normal((samples, tokens, 6)).astype(np.float32)
  inputs[:, :, 0] += effect * (2 * labels[:, None] - 1)
  return inputs, labels


def leave_out(count, samples=96):
  """Folds that leave a share out each, of almost the same size."""
  parts = np.array_split(np.arange(samples), count)
  return [Fold(name=f's{i}', test=part, train=np.setdiff1d(np.arange(samples), part))
          for i, part in enumerate(parts)]


def train(folds=None, config=CONFIG, **options):
  inputs, labels = task()
  return fit_folds(inputs, labels, folds or leave_out(5), config=config, **options)


@pytest.fixture(scope='module')
def together():
  return train()


def difference(result, other, fold=0, other_fold=0):
  return max(np.abs(result.logits[fold] - other.logits[other_fold]).max(),
             np.abs(result.losses[fold] - other.losses[other_fold]).max())


# --- the same as alone -------------------------------------------------------


def test_each_fold_equals_itself_alone(together, measured):
  worst = 0
  for number, fold in enumerate(leave_out(5)):
    alone = train([fold])
    assert alone.names == (fold.name,)
    np.testing.assert_array_equal(
        alone.logits[0].argmax(-1), together.logits[number].argmax(-1))
    worst = max(worst, difference(alone, together, 0, number))
  assert np.std(together.losses[:, 0], axis=0).min() > 1e-3  # Folds are not one another.
  measured('fold with others and alone', worst, limit=CLOSE)


def test_order_and_groups_change_nothing(together, measured):
  lines = []
  grouped = train(leave_out(5)[::-1], at_once=2, progress=lines.append)
  worst = max(difference(grouped, together, 4 - i, i) for i in range(5))
  measured('folds in groups of two', worst, limit=CLOSE)
  assert grouped.names == together.names[::-1]
  assert lines[0].startswith('5 runs x 192 samples x ')
  assert any('group 3 of 3, 2 runs' in line for line in lines)


def on_mesh():
  """Results on a mesh; communication in the compiled program; runs on a device."""
  with quick_jit():
    result = train(leave_out(5))
    mesh, runs, shape = parallel.data_mesh(), 8, jax.ShapeDtypeStruct
    program = dataclasses.replace(CONFIG, seeds=(0,), epochs=1)
    state = fit_program.make_initial(program, mesh)(
        fit_program.put_runs(mesh, np.zeros((runs, 2), np.uint32)))
    text = fit_program.make_advance(program, mesh, steps=24).lower(
        state, fit_program.Data(inputs=shape((96, 2, 6), np.float32),
                                labels=shape((96,), np.int32), mask=None),
        fit_program.RunInputs(batches=shape((runs, 24, 8), np.int32),
                              weights=shape((runs, 2), np.float32),
                              test=shape((runs, 3, 8), np.int32)),
        np.int32(0), np.int32(4), True).compile().as_text()
  found = [name for name in ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute',
                             'reduce-scatter') if name in text]
  return {'logits': [a.tolist() for a in result.logits], 'losses': result.losses.tolist(),
          'communication': found, 'while': text.count('while('),
          'own': state.params['latents'].addressable_shards[0].data.shape[0]}


def test_eight_devices_equal_one_and_have_nothing_to_tell(together, on_devices, measured):
  spread = on_devices(8, on_mesh)
  assert spread['own'] == 1 and spread['communication'] == [] and spread['while']
  worst = max(np.abs(np.array(a) - b).max() for a, b in zip(spread['logits'], together.logits))
  measured('folds on 8 devices and 1', max(
      worst, np.abs(np.array(spread['losses']) - together.losses).max()), limit=CLOSE)


def test_seeds_are_runs_of_their_own(together):
  both = train(config=dataclasses.replace(CONFIG, seeds=(0, 7)))
  assert both.losses.shape == (5, 2, 24) and both.seeds == (0, 7)
  np.testing.assert_allclose(both.losses[:, :1], together.losses, atol=CLOSE)
  assert np.abs(both.losses[:, 0] - both.losses[:, 1]).max() > 1e-2


# --- padding -----------------------------------------------------------------


def test_folds_of_any_size_train_beside_one_another(measured):
  """Padded test sets, wrapped training sets, and no leak from what fills them."""
  samples = np.arange(96)
  folds = [Fold(name='large', train=samples[17:], test=samples[:17]),
           Fold(name='small', train=samples[20:25], test=samples[40:64]),
           Fold(name='six', train=samples[90:], test=samples[30:50])]
  result = train(folds)
  assert [a.shape for a in result.logits] == [(1, 17, 2), (1, 24, 2), (1, 20, 2)]
  worst = max(difference(train([fold]), result, 0, i) for i, fold in enumerate(folds))
  measured('folds of unequal size', worst, limit=CLOSE)


def test_masked_tokens_change_nothing(measured):
  inputs, labels = task()
  mask = np.ones(inputs.shape[:2], bool)
  mask[::3, 1] = False
  options = dict(folds=leave_out(4)[:3], config=CONFIG)
  plain = fit_folds(inputs, labels, mask=mask, **options)
  rubbish = np.where(mask[:, :, None], inputs, np.nan)
  again = fit_folds(rubbish, labels, mask=mask, **options)
  assert all((a == b).all() for a, b in zip(plain.logits, again.logits))
  np.testing.assert_array_equal(plain.losses, again.losses)
  wider = np.pad(rubbish, ((0, 0), (0, 1), (0, 0)), constant_values=5)
  third = fit_folds(wider, labels, mask=np.pad(mask, ((0, 0), (0, 1))), **options)
  measured('a token of padding', max(
      difference(plain, third, i, i) for i in range(3)), limit=CLOSE)
  # The mask is seen at all.
  assert difference(plain, fit_folds(inputs, labels, **options)) > 1e-3


# --- learning ----------------------------------------------------------------

LEARNING = dataclasses.replace(CONFIG, steps=150, seeds=(0, 1))


def accuracy(result, labels, folds):
  return np.mean([(logits.argmax(-1) == labels[fold.test]).mean()
                  for logits, fold in zip(result.logits, folds)])


def test_a_task_is_learned_and_shuffled_labels_are_not():
  inputs, labels = task(samples=240, effect=1.0)
  folds = leave_out(4, samples=240)
  assert accuracy(fit_folds(inputs, labels, folds, config=LEARNING), labels, folds) > 0.85
  shuffled = np.random.default_rng(1).permutation(labels)
  chance = accuracy(fit_folds(inputs, shuffled, folds, config=LEARNING), shuffled, folds)
  assert 0.38 < chance < 0.62  # Four deviations around a half for 240 samples.


def test_balanced_weights_find_a_rare_class():
  inputs, labels = task(samples=240, effect=0.5)
  rare = (labels == 1) & (np.arange(240) % 8 > 0)
  folds = [dataclasses.replace(fold, train=fold.train[~rare[fold.train]])
           for fold in leave_out(4, samples=240)]
  recall = {}
  for weights in ('none', 'balanced'):
    config = dataclasses.replace(LEARNING, class_weights=weights)
    result = fit_folds(inputs, labels, folds, config=config)
    found = np.concatenate([logits.argmax(-1) for logits in result.logits], axis=1)
    recall[weights] = found[:, labels == 1].mean()
  assert recall['balanced'] > recall['none'] + 0.1


@pytest.mark.parametrize('change', [
    {'input_noise': 0.5}, {'token_dropout': 0.5}, {'label_smoothing': 0.0}])
def test_every_knob_is_connected(together, change):
  other = train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, **change))
  assert np.isfinite(other.losses).all()
  assert np.abs(other.losses[0] - together.losses[0]).max() > 1e-3


@pytest.mark.parametrize('change', [
    {}, {'clip_norm': 0.5}, {'weight_decay': 0.7, 'b1': 0.8, 'b2': 0.9}, {'warmup': 0.0}])
def test_the_optimizer_is_that_of_optax(change, measured):
  config = dataclasses.replace(CONFIG, learning_rate=0.1, **change)
  rng = np.random.default_rng(0)
  params = {'latents': rng.normal(size=4), 'a/kernel': rng.normal(size=(3, 2)),
            'a/bias': rng.normal(size=2), 'n/scale': rng.normal(size=2)}
  params = {path: np.float32(a) for path, a in params.items()}
  schedule = fit_program.learning_rate(config, steps=20)
  optimizer = optax.chain(
      optax.clip_by_global_norm(config.clip_norm or np.inf),
      optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay,
                  mask={path: path.endswith('kernel') for path in params}))
  zeros = {path: np.zeros_like(a) for path, a in params.items()}
  state = fit_program.RunState(params=params, first=zeros, second=zeros, key=np.zeros(2, np.uint32))
  optax_params, optax_state = params, optimizer.init(params)
  for step in range(6):
    gradients = {path: np.float32(rng.normal(size=a.shape)) for path, a in params.items()}
    state = fit_program.adamw(config, state, gradients, step=jnp.int32(step), rate=schedule(step))
    updates, optax_state = optimizer.update(gradients, optax_state, optax_params)
    optax_params = optax.apply_updates(optax_params, updates)
  assert np.abs(state.params['a/kernel'] - params['a/kernel']).max() > 0.1
  measured(f'AdamW, {change}', max(np.abs(state.params[path] - optax_params[path]).max()
                                   for path in params), limit=1e-6)


def test_learning_rate_rises_and_falls():
  schedule = fit_program.learning_rate(CONFIG, steps=100)
  rates = [float(schedule(step)) for step in range(101)]
  assert rates[0] == 0 and rates[5] == pytest.approx(2.5e-3)
  assert max(rates) == rates[10] == pytest.approx(5e-3) and rates[100] == pytest.approx(5e-5)
  assert rates[55] == pytest.approx(5e-3 * (0.01 + 0.99 / 2))


def test_every_parameter_has_a_decay_rule():
  with_encoder = dataclasses.replace(
      MODEL, encoder=dataclasses.replace(MODEL, outputs=4), encoder_tokens=1)
  decays = fit_program.decay_mask(mixer.abstract_parameters(with_encoder))
  assert decays['encoder/head/kernel'] and decays['attentions/0/q/kernel']
  assert not decays['encoder/latents'] and not decays['latents'] and not decays['norm/scale']
  with pytest.raises(ValueError, match='no rule'):
    fit_program.decay_mask(['a/weights'])


# --- what a run is made of ---------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_minibatches_are_epochs_of_the_fold_alone(size, batch, steps, seed):
  train_set = np.arange(100, 100 + size)
  fold = Fold(name='x', train=train_set, test=np.array([0]))
  rows = minibatches(Run(fold=fold, seed=seed), steps=steps, batch=batch)
  assert rows.shape == (steps, batch) and rows.dtype == np.int32
  stream = rows.ravel()
  for start in range(0, len(stream) - size + 1, size):
    assert sorted(stream[start:start + size]) == train_set.tolist()
  rest = stream[len(stream) // size * size:]
  assert len(set(rest)) == len(rest) and set(rest) <= set(train_set)
  shuffled = dataclasses.replace(fold, train=train_set[::-1])
  np.testing.assert_array_equal(
      rows, minibatches(Run(fold=shuffled, seed=seed), steps=steps, batch=batch))


def test_seed_and_name_decide_the_order():
  fold = Fold(name='a', train=np.arange(50), test=np.array([60]))
  def first(fold, seed):
    return minibatches(Run(fold=fold, seed=seed), steps=1, batch=50).tolist()
  assert first(fold, 0) != first(fold, 1)
  assert first(fold, 0) != first(dataclasses.replace(fold, name='b'), 0)


def test_steps_and_padding_and_weights():
  folds = [Fold(name='a', train=np.arange(10), test=np.array([20])),
           Fold(name='b', train=np.arange(33), test=np.array([40, 41]))]
  assert count_steps(folds, epochs=2, batch=8) == 9  # 66 samples
  np.testing.assert_array_equal(
      padded([np.array([5]), np.array([6, 7])], length=3), [[5, 0, 0], [6, 7, 0]])
  labels = np.array([0] * 8 + [1] * 2 + [0] * 31)
  weights = class_weights(Run(fold=folds[0], seed=0), labels, classes=3, balanced=True)
  np.testing.assert_allclose(weights, [10 / 16, 10 / 4, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 9), st.integers(1, 300), st.integers(1, 600))
def test_groups_fit_and_are_even(runs, devices, fit_runs, at_once):
  size = group_size(runs, bytes_a_run=10, memory=10 * fit_runs, devices=devices, at_once=at_once)
  assert size % devices == 0
  assert devices <= size <= max(devices, min(fit_runs * devices, at_once))
  groups = -(-runs // size)
  assert groups * size - runs < groups * devices + devices  # Little is filled up.


def test_memory_estimate_is_near_what_the_compiler_takes():
  mesh, runs = parallel.data_mesh(), 8
  model = dataclasses.replace(MODEL, latents=8, width=32, tokens='scalar', input_width=24)
  config = FitConfig(model=model, batch=16)
  advance = fit_program.make_advance(config, mesh, steps=24)
  keys = jax.ShapeDtypeStruct((runs, 2), np.uint32)
  state = jax.eval_shape(fit_program.make_initial(config, mesh), keys)
  shape = jax.ShapeDtypeStruct
  compiled = advance.lower(
      state, fit_program.Data(inputs=shape((50, 2, 24), np.float32),
                              labels=shape((50,), np.int32), mask=None),
      fit_program.RunInputs(batches=shape((runs, 4, 16), np.int32),
                            weights=shape((runs, 2), np.float32),
                            test=shape((runs, 1, 16), np.int32)),
      shape((), np.int32), shape((), np.int32), shape((), bool)).compile().memory_analysis()
  taken = compiled.temp_size_in_bytes + compiled.argument_size_in_bytes
  estimate = runs * cost.bytes_per_run(model, tokens=2, batch=16)
  assert 0.5 < taken / estimate < 1.3


# --- interruption and cache --------------------------------------------------


def test_an_interrupted_experiment_goes_on(tmp_path, together):
  lines = []

  def stop_in_third_group(line):
    lines.append(line)
    if 'group 3 of 3' in line:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train(at_once=2, cache=tmp_path, progress=stop_in_third_group)
  assert len(list(tmp_path.glob('folds-*.npz'))) == 2
  again = train(at_once=2, cache=tmp_path, progress=lines.append)
  assert again.trained == 1 and '4 of 5 runs are in the cache' in lines
  assert max(difference(again, together, i, i) for i in range(5)) < CLOSE
  third = train(cache=tmp_path)
  assert third.trained == 0 and third.seconds == 0
  assert max(difference(again, third, i, i) for i in range(5)) == 0
  # Other seeds, data, folds or settings are other runs.
  assert train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, seeds=(1,)),
               cache=tmp_path).trained == 1
  first = leave_out(5)[0]
  assert train([dataclasses.replace(first, test=first.test[::-1])], cache=tmp_path).trained == 1
  assert train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, learning_rate=1e-3),
               cache=tmp_path).trained == 1


def test_a_signal_stops_between_chunks(tmp_path, monkeypatch):
  def kill(line):
    if 'step 2 of' in line:
      os.kill(os.getpid(), signal.SIGINT)

  monkeypatch.setattr(fit, '_SECONDS_A_LINE', 0.0)
  lines = []
  with pytest.raises(KeyboardInterrupt):
    train(progress=lambda line: (lines.append(line), kill(line)))
  assert 'step 2 of 24' in lines[-1] and 'steps/s' in lines[-1] and 'left' in lines[-1]


def test_chunks_of_one_step_change_nothing(together, monkeypatch, measured):
  monkeypatch.setattr(fit, '_SECONDS_A_LINE', 0.0)
  lines = []
  result = train(progress=lines.append)
  assert len(lines) == 24 and lines[0].endswith('TFLOP')  # The cost, then all steps but the last.
  measured('chunks of one step', max(
      difference(result, together, i, i) for i in range(5)), limit=1e-12)


def test_a_damaged_cache_is_named(tmp_path):
  train(leave_out(5)[:1], cache=tmp_path)
  path, = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(InputError, match=f'{path.name} is damaged'):
    train(leave_out(5)[:1], cache=tmp_path)


# --- bad input ---------------------------------------------------------------

ALL = np.arange(96)


@pytest.mark.parametrize('folds, message', [
    ([Fold(name='a', train=ALL[:5], test=ALL[4:6])], "'a' trains on 1 of its own test samples, such as 4"),
    ([Fold(name='a', train=ALL[:5], test=ALL[:0])], "'a', test: needs one or more"),
    ([Fold(name='a', train=ALL[:5], test=ALL[95:] + 1)], 'index 96 is not in 0 to 95'),
    ([Fold(name='a', train=ALL[:5] - 1, test=ALL[9:])], 'index -1 is not in'),
    ([Fold(name='a', train=ALL[[1, 1]], test=ALL[9:])], 'named twice'),
    ([Fold(name='a', train=ALL[:5], test=ALL[9:])] * 2, "two folds are named 'a'"),
])
def test_bad_folds_are_one_line(folds, message):
  with pytest.raises(InputError, match=message):
    train(folds)


@pytest.mark.parametrize('change, message', [
    ({'inputs': np.zeros((96, 6), np.float32)}, 'embeddings have shape'),
    ({'inputs': np.zeros((96, 2, 7), np.float32)}, 'samples, tokens, 6'),
    ({'inputs': np.full((96, 2, 6), np.nan, np.float32)}, 'sample 0 are not finite'),
    ({'labels': np.zeros(95, int)}, 'labels have shape'),
    ({'labels': np.full(96, 2)}, 'labels go from 2 to 2'),
    ({'labels': np.zeros(96)}, 'needs an integer'),
    ({'mask': np.ones((96, 2))}, 'booleans'),
    ({'mask': np.ones((96, 3), bool)}, 'mask has shape'),
    ({'memory_limit': 1000}, 'raise memory_limit'),
    ({'at_once': 0}, 'at_once 0'),
])
def test_bad_arrays_are_one_line(change, message):
  inputs, labels = task()
  arguments = {'inputs': inputs, 'labels': labels, **change}
  with pytest.raises(InputError, match=message) as caught:
    fit_folds(folds=leave_out(5), config=CONFIG, **arguments)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('field, value', [
    ('epochs', 0), ('batch', 0), ('steps', 0), ('seeds', ()), ('seeds', (1, 1)), ('warmup', 1.5),
    ('b1', 1.0), ('token_dropout', 1.0), ('learning_rate', -1), ('class_weights', 'some')])
def test_bad_settings_are_named(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(CONFIG, **{field: value})


def test_a_diverging_fold_is_named():
  with pytest.raises(InputError, match="fold 's0', seed 0: the loss is not finite"):
    train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, learning_rate=1e30, weight_decay=1e30))
