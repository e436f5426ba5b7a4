"""What training of folds is made of: optimizer, batches, groups, memory; bad input."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from fit_tasks import CONFIG, MODEL, leave_out, task, train
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.folds.batches import (
  Fold,
  FoldRun,
  class_weights,
  count_steps,
  minibatches,
  padded,
)
from painformer_jax.assessment.mixers import cost, fit_program
from painformer_jax.assessment.mixers.fit import fit_folds, group_size
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer, embedding_mixer_config
from painformer_jax.parallel.mesh import data_mesh
from painformer_jax.training import parameter_groups


@pytest.mark.parametrize(
  'change', [{}, {'clip_norm': 0.5}, {'weight_decay': 0.7, 'b1': 0.8, 'b2': 0.9}, {'warmup': 0.0}]
)
def test_steps_are_those_of_adamw_with_the_schedule(change, measured):
  config = dataclasses.replace(CONFIG, learning_rate=0.1, **change)
  rng = np.random.default_rng(0)
  params = {
    'latents': rng.normal(size=4),
    'a/kernel': rng.normal(size=(3, 2)),
    'a/bias': rng.normal(size=2),
    'n/scale': rng.normal(size=2),
  }
  params = {path: np.float32(a) for path, a in params.items()}
  schedule = fit_program.learning_rate(config, steps=20)
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.clip_norm or np.inf),
    optax.adamw(
      schedule,
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask={path: path.endswith('kernel') for path in params},
    ),
  )
  own = fit_program.make_optimizer(config, steps=20)
  own_params, own_state = params, own.init(params)
  optax_params, optax_state = params, optimizer.init(params)
  for _ in range(6):
    gradients = {path: np.float32(rng.normal(size=a.shape)) for path, a in params.items()}
    updates, own_state = own.update(gradients, own_state, own_params)
    own_params = optax.apply_updates(own_params, updates)
    updates, optax_state = optimizer.update(gradients, optax_state, optax_params)
    optax_params = optax.apply_updates(optax_params, updates)
  assert np.abs(own_params['a/kernel'] - params['a/kernel']).max() > 0.1
  measured(
    f'AdamW, {change}',
    max(np.abs(own_params[path] - optax_params[path]).max() for path in params),
    limit=1e-6,
  )


def test_learning_rate_rises_and_falls():
  schedule = fit_program.learning_rate(CONFIG, steps=100)
  rates = [float(schedule(step)) for step in range(101)]
  assert rates[0] == 0 and rates[5] == pytest.approx(2.5e-3)
  assert max(rates) == rates[10] == pytest.approx(5e-3) and rates[100] == pytest.approx(5e-5)
  assert rates[55] == pytest.approx(5e-3 * (0.01 + 0.99 / 2))


def test_every_parameter_has_a_decay_rule():
  with_encoder = dataclasses.replace(
    MODEL, encoder=dataclasses.replace(MODEL, outputs=4), encoder_tokens=1
  )
  decays = parameter_groups.decay_mask(embedding_mixer.abstract_parameters(with_encoder))
  assert decays['encoder/head/kernel'] and decays['attentions/0/q/kernel']
  assert not decays['encoder/latents'] and not decays['latents'] and not decays['norm/scale']
  with pytest.raises(ValueError, match='no rule'):
    parameter_groups.decay_mask(['a/weights'])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_minibatches_are_epochs_of_the_fold_alone(size, batch, steps, seed):
  train_set = np.arange(100, 100 + size)
  fold = Fold(name='x', train=train_set, test=np.array([0]))
  rows = minibatches(FoldRun(fold=fold, seed=seed), steps=steps, batch=batch)
  assert rows.shape == (steps, batch) and rows.dtype == np.int32
  stream = rows.ravel()
  for start in range(0, len(stream) - size + 1, size):
    assert sorted(stream[start : start + size]) == train_set.tolist()
  rest = stream[len(stream) // size * size :]
  assert len(set(rest)) == len(rest) and set(rest) <= set(train_set)
  shuffled = dataclasses.replace(fold, train=train_set[::-1])
  np.testing.assert_array_equal(
    rows, minibatches(FoldRun(fold=shuffled, seed=seed), steps=steps, batch=batch)
  )


def test_seed_and_name_decide_the_order():
  fold = Fold(name='a', train=np.arange(50), test=np.array([60]))

  def first(fold, seed):
    return minibatches(FoldRun(fold=fold, seed=seed), steps=1, batch=50).tolist()

  assert first(fold, 0) != first(fold, 1)
  assert first(fold, 0) != first(dataclasses.replace(fold, name='b'), 0)


def test_steps_and_padding_and_weights():
  folds = [
    Fold(name='a', train=np.arange(10), test=np.array([20])),
    Fold(name='b', train=np.arange(33), test=np.array([40, 41])),
  ]
  assert count_steps(folds, epochs=2, batch=8) == 9  # 66 samples
  np.testing.assert_array_equal(
    padded([np.array([5]), np.array([6, 7])], length=3), [[5, 0, 0], [6, 7, 0]]
  )
  labels = np.array([0] * 8 + [1] * 2 + [0] * 31)
  weights = class_weights(FoldRun(fold=folds[0], seed=0), labels, classes=3, balanced=True)
  np.testing.assert_allclose(weights, [10 / 16, 10 / 4, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 9), st.integers(1, 300), st.integers(1, 600))
def test_groups_fit_and_are_even(runs, devices, fit_runs, at_once):
  size = group_size(runs, bytes_a_run=10, memory=10 * fit_runs, devices=devices, at_once=at_once)
  assert size % devices == 0
  assert devices <= size <= max(devices, min(fit_runs * devices, at_once))
  groups = -(-runs // size)
  assert groups * size - runs < groups * devices + devices  # Little is filled up.


def test_pieces_are_for_cpus_and_large_networks():
  published, laptop = (
    embedding_mixer_config.make_config(f'mixer_{name}') for name in ('published', 'laptop')
  )

  def piece(model, batch, platform='cpu'):
    return cost.microbatch_size(model, tokens=1, batch=batch, platform=platform)

  assert [piece(published, batch) for batch in (4, 8, 12, 31, 32)] == [4, 8, 6, 1, 8]
  assert piece(published, 32, 'gpu') == piece(laptop, 32) == 32


@pytest.mark.parametrize('microbatch_size', [16, 4])
def test_memory_estimate_is_near_what_the_compiler_takes(microbatch_size):
  mesh, runs = data_mesh(), 8
  model = dataclasses.replace(MODEL, latents=8, width=32, tokens='scalar', input_width=24)
  config = FitConfig(model=model, batch=16)
  advance = fit_program.make_advance(config, mesh, steps=24, microbatch_size=microbatch_size)
  keys = jax.ShapeDtypeStruct((runs, 2), np.uint32)
  state = jax.eval_shape(fit_program.make_initial(config, mesh), keys)
  shape = jax.ShapeDtypeStruct
  compiled = (
    advance.lower(
      state,
      fit_program.Data(
        inputs=shape((50, 2, 24), np.float32), labels=shape((50,), np.int32), mask=None
      ),
      fit_program.RunInputs(
        batches=shape((runs, 4, 16), np.int32),
        weights=shape((runs, 2), np.float32),
        test=shape((runs, 1, microbatch_size), np.int32),
      ),
      shape((), np.int32),
      shape((), np.int32),
      shape((), bool),
    )
    .compile()
    .memory_analysis()
  )
  taken = compiled.temp_size_in_bytes + compiled.argument_size_in_bytes
  estimate = runs * cost.bytes_per_run(model, tokens=2, batch=16, microbatch_size=microbatch_size)
  assert 0.5 < taken / estimate < 1.3


ALL = np.arange(96)


@pytest.mark.parametrize(
  'folds, message',
  [
    (
      [Fold(name='a', train=ALL[:5], test=ALL[4:6])],
      "'a' trains on 1 of its own test samples, such as 4",
    ),
    ([Fold(name='a', train=ALL[:5], test=ALL[:0])], "'a', test: needs one or more"),
    ([Fold(name='a', train=ALL[:5], test=ALL[95:] + 1)], 'index 96 is not in 0 to 95'),
    ([Fold(name='a', train=ALL[:5] - 1, test=ALL[9:])], 'index -1 is not in'),
    ([Fold(name='a', train=ALL[[1, 1]], test=ALL[9:])], 'named twice'),
    ([Fold(name='a', train=ALL[:5], test=ALL[9:])] * 2, "two folds are named 'a'"),
  ],
)
def test_bad_folds_are_one_line(folds, message):
  with pytest.raises(InputError, match=message):
    train(folds)


@pytest.mark.parametrize(
  'change, message',
  [
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
  ],
)
def test_bad_arrays_are_one_line(change, message):
  inputs, labels = task()
  arguments = {'inputs': inputs, 'labels': labels, **change}
  with pytest.raises(InputError, match=message) as caught:
    fit_folds(folds=leave_out(5), config=CONFIG, **arguments)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'field, value',
  [
    ('epochs', 0),
    ('batch', 0),
    ('steps', 0),
    ('seeds', ()),
    ('seeds', (1, 1)),
    ('warmup', 1.5),
    ('b1', 1.0),
    ('token_dropout', 1.0),
    ('learning_rate', -1),
    ('class_weights', 'some'),
  ],
)
def test_bad_settings_are_named(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(CONFIG, **{field: value})
