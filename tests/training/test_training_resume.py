"""Runs of the command line that are killed, or asked to stop, and go on.

However often that happens, the run ends with the bits of one that was left
alone: every array of the last checkpoint, every row of metrics.jsonl. The quick
tests train two stages of painformer_nano, the slow ones all of it.
"""

import dataclasses
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from event_reader import read_scalars
from training_runs import (
  QUICK_COMPILE,
  SMALL_OVERRIDES,
  CommandLine,
  depends_on_speed,
  rows,
  shared_folder,
)

from painformer_jax.checkpoints import read as checkpoints

# Saves, rows and evaluations fall on different steps, so that each is
# interrupted between the others.
OVERRIDES = {
  'steps': 24,
  'log_every': 4,
  'checkpoint_every': 5,
  'eval_every': 9,
  'model.drop_path_rate': 0.2,
  'optimizer.learning_rate': 3e-3,
}


def state_of(workdir):
  """The last step, and path -> array of everything in its checkpoint."""
  folder = workdir / 'checkpoints'
  step = checkpoints.latest_step(folder)
  path, reader = epath.Path(folder / str(step) / 'state'), ocp.PyTreeCheckpointHandler()
  tree = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).tree
  )
  tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=tree))
  reader.close()
  return step, ocp.tree.to_flat_dict(tree, sep='/')


def assert_same_run(workdir, reference):
  (step, found), (expected_step, expected) = state_of(workdir), state_of(reference)
  assert step == expected_step == OVERRIDES['steps']
  assert found.keys() == expected.keys()
  kinds = {path.split('/')[0] for path in found}
  assert kinds == {'params', 'stats', 'opt_state', 'key', 'step'}
  different = [
    path
    for path in found
    if np.asarray(found[path]).tobytes() != np.asarray(expected[path]).tobytes()
  ]
  assert different == []
  assert rows(workdir) == rows(reference)
  scalars, reference_scalars = (
    {
      name: values
      for name, values in read_scalars(w / 'tensorboard').items()
      if not depends_on_speed(name)
    }
    for w in (workdir, reference)
  )
  assert scalars == reference_scalars
  positions = [checkpoints.read_record(w / 'checkpoints', step) for w in (workdir, reference)]
  assert all(record['clock']['steps'] == 24 for record in positions)
  assert positions[0]['position'] == positions[1]['position']
  assert (workdir / 'report.json').is_file()


def newest_row(workdir):
  """The last step of metrics.jsonl, 0 without one."""
  file = workdir / 'metrics.jsonl'
  return rows(workdir)[-1]['step'] if file.exists() and file.stat().st_size else 0


def interrupted(command, workdir, moment, number):
  """Starts a run, sends it a signal at a moment; returns status and messages."""
  process = command.start(workdir)
  try:
    while not moment() and process.poll() is None:
      time.sleep(0.001)
    process.send_signal(number)
    _, messages = process.communicate(timeout=300)
  finally:
    process.kill()
  return process.returncode, messages


def row_at(workdir, step):
  def moment():
    try:
      return newest_row(workdir) >= step
    except ValueError:  # Read while it was being written.
      return False

  return moment


def saving(workdir, step):
  """While the checkpoint of that step is being written."""
  return lambda: any((workdir / 'checkpoints').glob(f'{step}.*tmp*'))


def saved(workdir, step):
  """Just when the checkpoint of that step is whole."""
  return (workdir / 'checkpoints' / str(step)).exists


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return shared_folder(tmp_path_factory)


def uninterrupted(command, workdir):
  done = command.run(workdir)
  assert done.returncode == 0, done.stderr
  assert done.stdout == ''
  return done.stderr.splitlines()


@pytest.fixture(scope='module')
def one_device(folder):
  return CommandLine(folder=folder, overrides=OVERRIDES | SMALL_OVERRIDES, flags=QUICK_COMPILE)


@pytest.fixture(scope='module')
def reference(one_device, tmp_path_factory):
  """A run that nothing disturbed, with nothing compiled before."""
  workdir = tmp_path_factory.mktemp('reference')
  lines = uninterrupted(dataclasses.replace(one_device, cache=False), workdir)
  return workdir, lines


def test_a_run_says_what_it_does(reference):
  """Its lines, and no word of the libraries under it."""
  workdir, lines = reference
  assert lines[0] == (
    'painformer_nano: 7,892 parameters in the backbone, 7,979 in all (parameters.txt); '
    '2 tasks, 16 images a step, 1 cpu device(s)'
  )
  assert lines[1] == 'compiles the training step'
  assert lines[2].startswith('the first step took ')
  *progress, last = lines[3:]
  assert last == (f'finished at step 24: {workdir}/report.json; next: painformer report {workdir}')
  steps = [line.split()[1] for line in progress]
  assert steps == ['4/24', '8/24', '9', '12/24', '16/24', '18', '20/24', '24/24', '24']
  for line in progress:
    assert ('images/s  eta ' in line) == ('/24' in line)
    assert ('held-out accuracy: alpha ' in line) != ('/24' in line)
  overview = (workdir / 'parameters.txt').read_text()
  assert 'backbone/patch_embed1' in overview and 'Total: 7,979' in overview


def test_rows_of_metrics(reference):
  workdir, _ = reference
  found = rows(workdir)
  assert [row['step'] for row in found if 'loss' in row] == [4, 8, 12, 16, 20, 24]
  assert [row['step'] for row in found if 'loss' not in row] == [9, 18, 24]
  for row in found:
    tasks = [
      {f'task/{t}/{name}' for name in ('loss', 'accuracy', 'log_variance')}
      for t in ('alpha', 'beta')
    ]
    if 'loss' in row:
      assert row.keys() == {'step', 'loss', 'gradient_norm', 'parameter_norm', *set.union(*tasks)}
    else:
      assert row.keys() == {
        'step',
        *(f'eval/{t}/{n}' for t in ('alpha', 'beta') for n in ('accuracy', 'loss')),
      }
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  for name in ('images_per_second', 'images_per_second_per_chip', 'seconds/compute'):
    assert sum(f'"{name}": ' in line for line in lines) == 6
  scalars = read_scalars(workdir / 'tensorboard')
  for name in ('loss', 'task/alpha/loss', 'eval/beta/accuracy'):
    expected = [(row['step'], pytest.approx(row[name], rel=1e-6)) for row in found if name in row]
    assert scalars[name] == expected


def test_it_learns_what_can_be_learned(reference):
  """Chance is a third and a half."""
  workdir, _ = reference
  last = rows(workdir)[-2]
  assert last['step'] == 24
  assert last['task/alpha/accuracy'] > 0.9 and last['task/beta/accuracy'] > 0.9
  assert rows(workdir)[-1]['eval/alpha/accuracy'] > 0.9
  assert last['task/alpha/log_variance'] != 0


@pytest.mark.parametrize(
  'number', [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_stopped_while_it_compiles(folder, tmp_path, number):
  """Nothing is to be saved, and clouds do not wait for a compiler."""
  command = CommandLine(folder=folder, overrides=OVERRIDES, cache=False)
  process = command.start(tmp_path / 'run')
  try:
    for line in process.stderr:
      if line.startswith('compiles the training step'):
        break
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(timeout=5) == 128 + number
  finally:
    process.kill()
  assert checkpoints.latest_step(tmp_path / 'run/checkpoints') is None


def test_killed_and_then_stopped(one_device, reference, tmp_path):
  """Also: the same seed twice, with and without a cache of compiled programs."""
  workdir = tmp_path / 'run'
  status, _ = interrupted(one_device, workdir, saving(workdir, 5), signal.SIGKILL)
  assert status == -signal.SIGKILL

  status, messages = interrupted(one_device, workdir, row_at(workdir, 8), signal.SIGTERM)
  lines = messages.splitlines()
  assert status == 130 and lines[-1] == 'painformer: interrupted', messages
  stopped = int(lines[-2].split()[2].rstrip(';'))
  assert lines[-2] == f'saved step {stopped}; run the same command again to resume'
  assert 8 <= stopped < 24 and checkpoints.latest_step(workdir / 'checkpoints') == stopped

  lines = uninterrupted(one_device, workdir)
  assert lines[0] == f'resumes from step {stopped} of {workdir}'
  assert_same_run(workdir, reference[0])


@pytest.mark.slow
def test_processes_that_read_come_and_go(one_device, reference, tmp_path):
  """Killed with two of them, stopped with one, ended with none."""
  workdir = tmp_path / 'run'
  two, one = (
    dataclasses.replace(one_device, overrides=one_device.overrides | {'workers': count})
    for count in (2, 1)
  )
  status, _ = interrupted(two, workdir, saved(workdir, 5), signal.SIGKILL)
  assert status == -signal.SIGKILL
  status, messages = interrupted(one, workdir, row_at(workdir, 12), signal.SIGTERM)
  assert status == 130 and messages.splitlines()[-1] == 'painformer: interrupted', messages
  uninterrupted(one_device, workdir)
  assert_same_run(workdir, reference[0])


def test_killed_on_eight_devices(folder, tmp_path):
  command = CommandLine(
    folder=folder, devices=8, overrides=OVERRIDES | SMALL_OVERRIDES, flags=QUICK_COMPILE
  )
  lines = uninterrupted(command, tmp_path / 'reference')
  assert '8 cpu device(s)' in lines[0]
  workdir = tmp_path / 'run'
  status, _ = interrupted(command, workdir, saving(workdir, 10), signal.SIGKILL)
  assert status == -signal.SIGKILL
  uninterrupted(command, workdir)
  assert_same_run(workdir, tmp_path / 'reference')


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 8])
def test_killed_at_any_moment(devices, folder, tmp_path):
  """Fourteen kills: around every checkpoint, and at random, from the start on.

  The model is painformer_nano, compiled as it is for users.
  """
  command = CommandLine(folder=folder, devices=devices, overrides=OVERRIDES)
  uninterrupted(command, tmp_path / 'reference')
  workdir, rng = tmp_path / 'run', random.Random(devices)
  began = time.perf_counter()
  uninterrupted(command, tmp_path / 'again')
  whole = time.perf_counter() - began
  assert_same_run(tmp_path / 'again', tmp_path / 'reference')
  moments = [
    *(make(workdir, step) for step in (5, 10, 15, 20) for make in (saving, saved)),
    *[None] * 6,
  ]
  rng.shuffle(moments)
  for moment in moments:
    end = time.perf_counter() + rng.uniform(0.2, 1.1) * whole
    interrupted(
      command, workdir, moment or (lambda end=end: time.perf_counter() > end), signal.SIGKILL
    )
  uninterrupted(command, workdir)
  assert_same_run(workdir, tmp_path / 'reference')


@pytest.mark.slow
def test_stopped_while_it_evaluates(folder, tmp_path):
  """It does not wait for the end; the evaluation is made up for first."""
  overrides = OVERRIDES | {'eval_every': 6, 'eval_batch_size': 1}
  command = CommandLine(folder=folder, overrides=overrides)
  uninterrupted(command, tmp_path / 'reference')
  workdir = tmp_path / 'run'
  status, messages = interrupted(command, workdir, row_at(workdir, 24), signal.SIGINT)
  assert status == 130, messages
  assert rows(workdir)[-1]['step'] == 24 and 'eval/alpha/loss' not in rows(workdir)[-1]
  uninterrupted(command, workdir)
  assert_same_run(workdir, tmp_path / 'reference')


def test_skipped_steps_in_a_row_are_counted_on(tmp_path_factory, tmp_path):
  """A step that leaves no finite parameters is skipped; three may be, wherever it stopped."""
  command = CommandLine(
    folder=shared_folder(tmp_path_factory),
    flags=QUICK_COMPILE,
    overrides={
      **SMALL_OVERRIDES,
      'steps': 20,
      'checkpoint_every': 2,
      'log_every': 1,
      'eval_every': 0,
      'optimizer.learning_rate': 1e30,
      'optimizer.warmup_steps': 0,
      'non_finite': 'skip',
      'max_skipped': 3,
    },
  )
  ends = []
  for _ in range(2):
    done = command.run(tmp_path / 'run')
    assert done.returncode == 2, done.stderr[-2000:]
    ends.append(done.stderr.splitlines()[-1])
    saved = checkpoints.latest_step(tmp_path / 'run' / 'checkpoints')
    assert checkpoints.read_record(tmp_path / 'run' / 'checkpoints', saved)['skipped'] == saved == 2
  assert ends[0] == ends[1] and '3 steps were skipped and the loss of step 4' in ends[0]
