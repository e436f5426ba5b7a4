"""Runs whose state no process holds all of, which go on in one process as a whole."""

import dataclasses
import shutil

import pytest
from process_runs import ProcessRun, Topology
from tiny_tasks import store_tiny
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, rows

FIELDS = {
  **SMALL_OVERRIDES,
  'steps': 4,
  'optimizer.warmup_steps': 1,
  'log_every': 1,
  'checkpoint_every': 2,
  'eval_every': 2,
  'eval_batch_size': 4,
  'ema_decay': 0.5,
  'model.drop_path_rate': 0.2,
}


@pytest.fixture(scope='module')
def command(tmp_path_factory):
  folder = tmp_path_factory.mktemp('split')
  for name, classes in {'alpha': 3, 'beta': 1100}.items():
    store_tiny(folder / 'data', name, train=24, test=7, classes=classes, image_size=32)
  return CommandLine(folder=folder, overrides=FIELDS, flags=QUICK_COMPILE)


def finish(command, workdir, topology, **overrides):
  command = dataclasses.replace(command, overrides={**FIELDS, **overrides})
  with ProcessRun(command, workdir, topology) as run:
    assert run.finish() == [0] * topology.processes, run.messages()
    return run.messages()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
  'how',
  [
    {'sharding.state': 'fsdp'},
    {'sharding.state': 'fsdp', 'sharding.model_parallelism': 2, 'grad_accum_steps': 2},
  ],
  ids=str,
)
def test_a_state_that_processes_share(command, how, tmp_path):
  """Trained, evaluated, saved and told of by two; gone on with by one."""
  finish(command, tmp_path / 'shared', Topology(2), **how)
  listed = (tmp_path / 'shared' / 'parameters.txt').read_text()
  head = next(line for line in listed.splitlines() if 'heads/beta/kernel' in line)
  assert ("'model'" if 'sharding.model_parallelism' in how else "'data'") in head

  shutil.copytree(tmp_path / 'shared', tmp_path / 'moved')
  shutil.rmtree(tmp_path / 'moved' / 'checkpoints' / '4')
  (tmp_path / 'moved' / 'report.json').unlink()
  said = finish(command, tmp_path / 'moved', Topology())
  assert 'resumes from step 2 of' in said and 'on 1 device(s) now, 2 before' in said

  finish(command, tmp_path / 'whole', Topology())
  expected = rows(tmp_path / 'whole')
  assert [row['step'] for row in expected] == [1, 2, 2, 3, 4, 4]
  for name in ('shared', 'moved'):
    for row, other in zip(rows(tmp_path / name), expected, strict=True):
      assert row == pytest.approx(other, rel=1e-4, abs=1e-5), name
