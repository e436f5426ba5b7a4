"""Runs of the command line that are laid out in one way and go on in another."""

import dataclasses
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
from command_line import assert_refused
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, rows, shared_folder

import painformer_jax as pj
from painformer_jax.checkpoints.read import restore_arrays

FIELDS = {
  **SMALL_OVERRIDES,
  'steps': 4,
  'optimizer.warmup_steps': 1,
  'checkpoint_every': 2,
  'log_every': 1,
  'eval_batch_size': 8,
  'tasks.alpha.batch_size': 16,
  'tasks.beta.batch_size': 16,
  'ema_decay': 0.9,
  'non_finite': 'skip',
  'optimizer.layer_decay': 0.9,
  'model.drop_path_rate': 0.2,
}


@pytest.fixture(scope='module')
def lines(tmp_path_factory):
  """Command lines for one device as it is, and for eight with everything divided."""
  folder = shared_folder(tmp_path_factory)
  plain = CommandLine(folder=folder, overrides=FIELDS, flags=QUICK_COMPILE)
  divided = dataclasses.replace(
    plain,
    devices=8,
    overrides={
      **FIELDS,
      'sharding.state': 'fsdp',
      'sharding.dcn_parallelism': 2,
      'grad_accum_steps': 2,
      'remat': 'full',
    },
  )
  return {'plain': plain, 'divided': divided}


@pytest.fixture(scope='module')
def runs(lines, tmp_path_factory):
  """One run on one device, and one that changes to eight after two steps."""
  folder = tmp_path_factory.mktemp('layouts')
  done = lines['plain'].run(folder / 'one')
  assert done.returncode == 0, done.stderr[-2000:]
  # As if it had been killed before its second checkpoint.
  shutil.copytree(folder / 'one', folder / 'changed')
  shutil.rmtree(folder / 'changed' / 'checkpoints' / '4')
  (folder / 'changed' / 'report.json').unlink()
  done = lines['divided'].run(folder / 'changed')
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'on 8 device(s) now, 1 before' in done.stderr
  return folder


@pytest.mark.slow
def test_it_goes_on_as_if_nothing_had_changed(runs):
  one, changed = rows(runs / 'one'), rows(runs / 'changed')
  assert [row['step'] for row in one] == [row['step'] for row in changed]
  for a, b in zip(one, changed, strict=True):
    assert a.keys() == b.keys() and 'skipped' in one[0]
    for name in a:
      # Adam turns gradients that are 0 but for rounding into steps of full size.
      rel = 1e-3 if name == 'gradient_norm' else 2e-5
      assert a[name] == pytest.approx(b[name], rel=rel, abs=2e-6), name
  a, b = (restore_arrays(runs / name / 'checkpoints')[1] for name in ('one', 'changed'))
  assert a.keys() == b.keys() == {'params', 'stats'}
  for path, array in {**a['params'], **a['stats']}.items():
    other = {**b['params'], **b['stats']}[path]
    np.testing.assert_allclose(other, array, rtol=1e-3, atol=2e-6, err_msg=path)


@pytest.mark.slow
def test_what_is_loaded_from_a_run_are_its_averages(runs):
  """Not the parameters of the last step, which differ."""
  _, arrays = restore_arrays(runs / 'one' / 'checkpoints')
  stored = ocp.PyTreeCheckpointer().restore(runs / 'one' / 'checkpoints' / '4' / 'state')
  different = 0
  for path, array in arrays['params'].items():
    np.testing.assert_array_equal(array, stored['ema'][path])
    different += not np.array_equal(array, stored['params'][path])
  assert different > len(arrays['params']) / 2
  model = pj.load(runs / 'one')
  np.testing.assert_array_equal(
    model.patch_embed1.conv1.kernel[...], stored['ema']['backbone/patch_embed1/conv1/kernel']
  )


@pytest.mark.parametrize(
  'overrides,message',
  [
    (
      {'grad_accum_steps': 3},
      'task alpha has the batch size 16, which does not divide over 1 devices and '
      '3 microbatches: make config.tasks.alpha.batch_size a multiple of 3',
    ),
    (
      {'sharding.model_parallelism': 4},
      '1 devices do not divide into 1 group(s) with model parallelism 4: '
      'change config.sharding.dcn_parallelism or config.sharding.model_parallelism',
    ),
    ({'remat': 'full-none-none'}, "config.remat names 3 stages of 2: 'full-none-none'"),
    (
      {'optimizer.frozen': '("nothing",)'},
      "config.optimizer.frozen: 'nothing' matches no parameter",
    ),
  ],
)
def test_what_does_not_fit_is_one_line(lines, overrides, message, tmp_path):
  line = dataclasses.replace(lines['plain'], overrides={**FIELDS, **overrides})
  assert_refused(line.run_here(tmp_path / 'run'), message)
  assert not (tmp_path / 'run').exists()
