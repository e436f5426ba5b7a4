"""All folds at once: each as if alone, on any devices, in any groups; interrupted, cached."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest
from fit_tasks import CLOSE, CONFIG, MODEL, difference, leave_out, task, train

from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.mixers import cost, fit_program, trainer
from painformer_jax.assessment.mixers.fit import fit_folds
from painformer_jax.core.errors import InputError
from painformer_jax.parallel.mesh import data_mesh


@pytest.fixture(scope='module')
def together():
  return train()


def test_each_fold_equals_itself_alone(together, measured):
  worst = 0
  for number, fold in enumerate(leave_out(5)):
    alone = train([fold])
    assert alone.names == (fold.name,)
    np.testing.assert_array_equal(alone.logits[0].argmax(-1), together.logits[number].argmax(-1))
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
  result = train(leave_out(5))
  mesh, runs, shape = data_mesh(), 8, jax.ShapeDtypeStruct
  program = dataclasses.replace(CONFIG, seeds=(0,), epochs=1)
  state = fit_program.make_initial(program, mesh)(
    fit_program.put_runs(mesh, np.zeros((runs, 2), np.uint32))
  )
  text = (
    fit_program.make_advance(program, mesh, steps=24, microbatch_size=program.batch)
    .lower(
      state,
      fit_program.Data(
        inputs=shape((96, 2, 6), np.float32), labels=shape((96,), np.int32), mask=None
      ),
      fit_program.RunInputs(
        batches=shape((runs, 24, 8), np.int32),
        weights=shape((runs, 2), np.float32),
        test=shape((runs, 3, 8), np.int32),
      ),
      np.int32(0),
      np.int32(4),
      True,
    )
    .compile()
    .as_text()
  )
  found = [
    name
    for name in ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'reduce-scatter')
    if name in text
  ]
  return {
    'logits': [a.tolist() for a in result.logits],
    'losses': result.losses.tolist(),
    'communication': found,
    'while': text.count('while('),
    'own': state.params['latents'].addressable_shards[0].data.shape[0],
  }


def test_eight_devices_equal_one_and_have_nothing_to_tell(together, on_devices, measured):
  spread = on_devices(8, on_mesh)
  assert spread['own'] == 1 and spread['communication'] == [] and spread['while']
  worst = max(np.abs(np.array(a) - b).max() for a, b in zip(spread['logits'], together.logits))
  measured(
    'folds on 8 devices and 1',
    max(worst, np.abs(np.array(spread['losses']) - together.losses).max()),
    limit=CLOSE,
  )


def test_seeds_are_runs_of_their_own(together):
  both = train(config=dataclasses.replace(CONFIG, seeds=(0, 7)))
  assert both.losses.shape == (5, 2, 24) and both.seeds == (0, 7)
  np.testing.assert_allclose(both.losses[:, :1], together.losses, atol=CLOSE)
  assert np.abs(both.losses[:, 0] - both.losses[:, 1]).max() > 1e-2


def test_folds_of_any_size_train_beside_one_another(measured):
  """Padded test sets, wrapped training sets, and no leak from what fills them."""
  samples = np.arange(96)
  folds = [
    Fold(name='large', train=samples[17:], test=samples[:17]),
    Fold(name='small', train=samples[20:25], test=samples[40:64]),
    Fold(name='six', train=samples[90:], test=samples[30:50]),
  ]
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
  measured('a token of padding', max(difference(plain, third, i, i) for i in range(3)), limit=CLOSE)
  # The mask is seen at all.
  assert difference(plain, fit_folds(inputs, labels, **options)) > 1e-3


LEARNING = dataclasses.replace(CONFIG, steps=150, seeds=(0, 1))


def accuracy(result, labels, folds):
  return np.mean(
    [(logits.argmax(-1) == labels[fold.test]).mean() for logits, fold in zip(result.logits, folds)]
  )


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
  folds = [
    dataclasses.replace(fold, train=fold.train[~rare[fold.train]])
    for fold in leave_out(4, samples=240)
  ]
  recall = {}
  for weights in ('none', 'balanced'):
    config = dataclasses.replace(LEARNING, class_weights=weights)
    result = fit_folds(inputs, labels, folds, config=config)
    found = np.concatenate([logits.argmax(-1) for logits in result.logits], axis=1)
    recall[weights] = found[:, labels == 1].mean()
  assert recall['balanced'] > recall['none'] + 0.1


@pytest.mark.parametrize(
  'change', [{'input_noise': 0.5}, {'token_dropout': 0.5}, {'label_smoothing': 0.0}]
)
def test_every_knob_is_connected(together, change):
  other = train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, **change))
  assert np.isfinite(other.losses).all()
  assert np.abs(other.losses[0] - together.losses[0]).max() > 1e-3


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
  assert (
    train(leave_out(5)[:1], config=dataclasses.replace(CONFIG, seeds=(1,)), cache=tmp_path).trained
    == 1
  )
  first = leave_out(5)[0]
  assert train([dataclasses.replace(first, test=first.test[::-1])], cache=tmp_path).trained == 1
  assert (
    train(
      leave_out(5)[:1], config=dataclasses.replace(CONFIG, learning_rate=1e-3), cache=tmp_path
    ).trained
    == 1
  )


def test_a_signal_stops_between_chunks(tmp_path, monkeypatch):
  def kill(line):
    if 'step 2 of' in line:
      os.kill(os.getpid(), signal.SIGINT)

  monkeypatch.setattr(trainer, '_SECONDS_A_LINE', 0.0)
  lines = []
  with pytest.raises(KeyboardInterrupt):
    train(progress=lambda line: (lines.append(line), kill(line)))
  assert 'step 2 of 24' in lines[-1] and 'steps/s' in lines[-1] and 'left' in lines[-1]


def test_chunks_of_one_step_change_nothing(together, monkeypatch, measured):
  monkeypatch.setattr(trainer, '_SECONDS_A_LINE', 0.0)
  lines = []
  result = train(progress=lines.append)
  assert len(lines) == 24 and lines[0].endswith('TFLOP')  # The cost, then all steps but the last.
  measured(
    'chunks of one step', max(difference(result, together, i, i) for i in range(5)), limit=1e-12
  )


@pytest.mark.parametrize('masked', [False, True])
def test_pieces_of_a_batch_change_rounding_alone(monkeypatch, measured, masked):
  inputs, labels = task()
  mask = np.ones(inputs.shape[:2], bool)
  mask[::3, 1] = False
  config = dataclasses.replace(
    CONFIG, steps=8, model=dataclasses.replace(MODEL, dropout=0.0), class_weights='balanced'
  )

  def result(most):
    activations = 4 * cost.size(config.model, tokens=2).activations
    monkeypatch.setattr(cost, '_MICROBATCH_BYTES', most * activations)
    return fit_folds(inputs, labels, leave_out(5), config=config, mask=mask if masked else None)

  whole = result(config.batch)
  for most in (1, 3):  # The latter in pieces of 2.
    pieces = result(most)
    measured(
      'batch whole and in pieces',
      max(difference(whole, pieces, i, i) for i in range(5)),
      limit=CLOSE,
    )


def test_pieces_draw_dropout_each_for_itself(monkeypatch, together):
  monkeypatch.setattr(cost, '_MICROBATCH_BYTES', 1)
  first, again = train(), train()
  assert all(np.array_equal(a, b) for a, b in zip(first.logits, again.logits))
  assert difference(first, together) > CLOSE


def test_a_damaged_cache_is_named(tmp_path):
  train(leave_out(5)[:1], cache=tmp_path)
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(InputError, match=f'{path.name} is damaged'):
    train(leave_out(5)[:1], cache=tmp_path)


def test_a_diverging_fold_is_named():
  with pytest.raises(InputError, match="fold 's0', seed 0: the loss is not finite"):
    train(
      leave_out(5)[:1], config=dataclasses.replace(CONFIG, learning_rate=1e30, weight_decay=1e30)
    )
