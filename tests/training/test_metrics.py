import json
import math
import os
import resource
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics as clu_metrics
from event_reader import read_events, read_scalars
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.training import metrics
from painformer_jax.training.clock import Clock
from painformer_jax.training.event_file import EventFile


def step_metrics(loss, correct=(1, 0), *, gradient=1.0, task_loss=None):
  """What a compiled step gives, in its types."""

  def average(value):
    value = np.asarray(value, np.float32)
    return clu_metrics.Average(total=value.sum(), count=np.int32(value.size))

  return {
    'loss': average(loss),
    'gradient_norm': average(gradient),
    'task/a/loss': average(loss if task_loss is None else task_loss),
    'task/a/accuracy': average(correct),
  }


def filled(*losses, window=None, start=0):
  window = window or metrics.Window()
  for step, loss in enumerate(losses, start + 1):
    window.add(step, step_metrics(loss), in_flight=2)
  return window


# Steps that were skipped.


def skipping(*losses, window):
  for step, loss in enumerate(losses, 1):
    row = step_metrics(loss)
    window.add(
      step,
      row
      | {
        'skipped': clu_metrics.Average(total=np.float32(not math.isfinite(loss)), count=np.int32(1))
      },
      in_flight=2,
    )
  return window


def test_a_skipped_step_leaves_no_figure_but_that_it_was_skipped():
  window = skipping(1.0, math.nan, 3.0, math.inf, window=metrics.Window(most_skipped=1))
  found = window.averages()
  assert found['loss'] == found['task/a/loss'] == 2.0 and found['skipped'] == 0.5


def test_too_many_skipped_in_a_row_end_the_run():
  window = skipping(math.nan, 1.0, math.nan, math.nan, window=metrics.Window(most_skipped=2))
  window.check()
  window.add(
    5,
    step_metrics(math.nan)
    | {'skipped': clu_metrics.Average(total=np.float32(1), count=np.int32(1))},
    in_flight=2,
  )
  with pytest.raises(
    metrics.NonFiniteLoss,
    match=(r'^2 steps were skipped and the loss of step 5 is not finite \(tasks: a\)'),
  ):
    window.check()


def test_a_resumed_run_counts_skipped_steps_on():
  window = skipping(1.0, math.nan, math.nan, window=metrics.Window(most_skipped=2))
  window.check()
  assert window.skipped == 2
  resumed = metrics.Window(window.record(), most_skipped=2, skipped=window.skipped)
  with pytest.raises(metrics.NonFiniteLoss, match='^2 steps were skipped and'):
    skipping(math.nan, window=resumed).check()


def test_a_line_of_nothing_but_skipped_steps():
  values = skipping(math.nan, window=metrics.Window()).averages()
  line = metrics.progress_line(values, clock=Clock(steps=1), steps=9, images_per_step=4)
  assert line.startswith('step 1/9  loss ? (100% of steps skipped)  ')


# Averages over steps.


def test_a_window_averages_and_is_empty_afterwards():
  window = metrics.Window()
  window.add(1, step_metrics(1.0, [1, 1]), in_flight=2)
  window.add(2, step_metrics(2.0, [1, 0]), in_flight=2)
  assert window.averages() == {
    'gradient_norm': 1.0,
    'loss': 1.5,
    'task/a/accuracy': 0.75,
    'task/a/loss': 1.5,
  }
  assert window.averages() == {}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=12), st.data())
def test_a_window_that_went_through_a_record_averages_to_the_same_bits(losses, data):
  whole = filled(*losses).averages()
  cut = data.draw(st.integers(0, len(losses)))
  record = json.loads(json.dumps(filled(*losses[:cut]).record()))
  resumed = filled(*losses[cut:], window=metrics.Window(record), start=cut)
  assert resumed.averages() == whole


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=9), st.integers(1, 9))
def test_checking_on_the_way_changes_nothing(losses, every):
  window = metrics.Window()
  for step, loss in enumerate(losses, 1):
    window.add(step, step_metrics(loss), in_flight=2)
    if step % every == 0:
      window.check()
  assert window.averages() == filled(*losses).averages()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_the_first_step_that_is_not_finite_is_named(bad):
  window = filled(1.0, 2.0, bad, 3.0, bad)
  with pytest.raises(metrics.NonFiniteLoss, match=r'loss of step 3 is not finite \(tasks: a\)$'):
    window.averages()
  with pytest.raises(metrics.NonFiniteLoss):
    filled(bad).record()


def test_what_is_not_finite_is_named():
  window = metrics.Window()
  window.add(7, step_metrics(math.nan, task_loss=1.0), in_flight=2)
  with pytest.raises(metrics.NonFiniteLoss, match=r'loss of step 7 .*\(tasks: none\)'):
    window.check()
  window = metrics.Window()
  window.add(8, step_metrics(1.0, gradient=math.inf), in_flight=2)
  with pytest.raises(metrics.NonFiniteLoss, match='step 8 is finite, but not its gradient_norm'):
    window.check()


def test_no_more_steps_are_in_flight_than_allowed(monkeypatch):
  waited = []
  monkeypatch.setattr(metrics.jax, 'block_until_ready', waited.append)
  window, steps = metrics.Window(), [step_metrics(float(i)) for i in range(5)]
  for number, step in enumerate(steps):
    window.add(number, step, in_flight=2)
  assert [id(w) for w in waited] == [id(s) for s in steps[:3]]


# Files.


def write(workdir, start_step, *steps):
  writer = metrics.MetricsWriter(workdir, start_step=start_step)
  for step in steps:
    writer.write(step, {'loss': step / 8, 'task/a/loss': 1.0})
  writer.close()


def test_rows_and_events_say_the_same(tmp_path):
  write(tmp_path, 0, 5, 10, 15)
  assert metrics.read_metrics(tmp_path) == [
    {'step': step, 'loss': step / 8, 'task/a/loss': 1.0} for step in (5, 10, 15)
  ]
  assert read_scalars(tmp_path / 'tensorboard') == {
    'loss': [(5, 0.625), (10, 1.25), (15, 1.875)],
    'task/a/loss': [(5, 1.0), (10, 1.0), (15, 1.0)],
  }


def test_each_step_is_there_once_after_restarts(tmp_path):
  write(tmp_path, 0, 5, 10, 15)
  write(tmp_path, 10, 15, 20)  # Killed after 15, the last checkpoint was of 10.
  write(tmp_path, 20)
  write(tmp_path, 5, 10)
  steps = [row['step'] for row in metrics.read_metrics(tmp_path)]
  assert steps == [5, 10]
  assert [s for s, _ in read_scalars(tmp_path / 'tensorboard')['loss']] == [5, 10]
  write(tmp_path, 0, 5)  # Killed before the first checkpoint.
  assert [row['step'] for row in metrics.read_metrics(tmp_path)] == [5]
  assert read_scalars(tmp_path / 'tensorboard')['loss'] == [(5, 0.625)]


def test_an_evaluation_that_is_due_again_is_there_once(tmp_path):
  """Killed after it, with a checkpoint of that step from before it."""

  def evaluated(start_step, **options):
    writer = metrics.MetricsWriter(tmp_path, start_step=start_step, **options)
    if not start_step:
      writer.write(5, {'loss': 0.5})
    writer.write(5, {'eval/a/loss': 1.0})
    writer.close()

  evaluated(0)
  for _ in range(2):
    evaluated(5, evaluation_due=True)
    assert metrics.read_metrics(tmp_path) == [
      {'step': 5, 'loss': 0.5},
      {'step': 5, 'eval/a/loss': 1.0},
    ]
    assert read_scalars(tmp_path / 'tensorboard') == {'loss': [(5, 0.5)], 'eval/a/loss': [(5, 1.0)]}
  write(tmp_path, 5, 10)  # Not due: what is there stays.
  assert read_scalars(tmp_path / 'tensorboard')['eval/a/loss'] == [(5, 1.0)]
  assert len(metrics.read_metrics(tmp_path)) == 3


def test_restarts_within_a_second_keep_their_own_files(tmp_path):
  for step in range(5):
    write(tmp_path, step, step + 1)
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 5
  assert [s for s, _ in read_scalars(tmp_path / 'tensorboard')['loss']] == [1, 2, 3, 4, 5]


def test_a_half_written_line_is_left_out_and_written_over(tmp_path):
  write(tmp_path, 0, 5, 10)
  file = tmp_path / 'metrics.jsonl'
  file.write_text(file.read_text()[:-9])
  assert [row['step'] for row in metrics.read_metrics(tmp_path)] == [5]
  write(tmp_path, 5, 10)
  assert [row['step'] for row in metrics.read_metrics(tmp_path)] == [5, 10]


def test_events_are_whole_at_every_moment(tmp_path):
  """Without closing: a killed run loses nothing that it wrote."""
  events = EventFile(tmp_path)
  for step in range(3):
    events.write(step, {'a': 1.0, 'bücher': -2.5, 'huge': 3e38})
    (file,) = tmp_path.iterdir()
    found = read_events(file)
    assert [event.step for event in found[1:]] == list(range(step + 1))
  assert {v.tag: v.simple_value for v in found[-1].summary.value} == {
    'a': 1.0,
    'bücher': -2.5,
    'huge': pytest.approx(3e38),
  }
  assert all(abs(event.wall_time - time.time()) < 60 for event in found)
  events.close()


@settings(max_examples=30, deadline=None)
@given(
  st.integers(0, 2**62),
  st.dictionaries(
    st.text(min_size=1, max_size=200), st.floats(width=32, allow_nan=False), max_size=5
  ),
)
def test_any_scalars_are_read_back(tmp_path_factory, step, values):
  folder = tmp_path_factory.mktemp('events')
  events = EventFile(folder)
  events.write(step, values)
  events.close()
  event = read_events(next(folder.iterdir()))[-1]
  assert event.step == step
  assert {v.tag: v.simple_value for v in event.summary.value} == values


def write_until_full(folder):
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  writer = metrics.MetricsWriter(folder, start_step=0)
  try:
    for step in range(1000):
      writer.write(step, {f'task/{i}/loss': 1 / 3 for i in range(20)})
  except InputError as error:
    print(error)
  writer.close()


def test_a_full_disk_is_one_clear_line(tmp_path):
  """And no thread that hangs: the process ends."""
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      f'import test_metrics; test_metrics.write_until_full({str(tmp_path)!r})',
    ],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == (
    f'cannot write to {tmp_path}: File too large; make room, then run the same command again\n'
  )
  assert len(metrics.read_metrics(tmp_path)) > 10


def test_a_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'tensorboard').write_text('')
  with pytest.raises(InputError, match='cannot write to .*: File exists'):
    metrics.MetricsWriter(tmp_path, start_step=0)


def test_other_processes_write_nothing(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, start_step=0, enabled=False)
  writer.write(1, {'loss': 1.0})
  writer.close()
  assert not list(tmp_path.iterdir())


def test_what_was_there_before_rows_were_dropped(tmp_path):
  write(tmp_path, 0, 5, 10, 15)
  writer = metrics.MetricsWriter(tmp_path, start_step=5)
  assert writer.found == {'trained': 15}
  writer.write(5, {'eval/a/loss': 1.0})
  writer.write(10, {'loss': 1.0})
  writer.close()
  writer = metrics.MetricsWriter(tmp_path, start_step=5)
  assert writer.found == {'trained': 10, 'evaluated': 5}
  writer.close()
  assert metrics.MetricsWriter(tmp_path / 'new', start_step=0, enabled=False).found == {}


def test_rows_are_on_disk_after_sync(tmp_path, monkeypatch):
  """What a machine that dies would keep: what the system was told to put on disk."""
  synced, fsync = [], os.fsync
  monkeypatch.setattr(
    os, 'fsync', lambda file: (synced.append(os.fstat(file).st_size), fsync(file))
  )
  writer = metrics.MetricsWriter(tmp_path, start_step=0)
  writer.write(5, {'loss': 0.5})
  writer.sync()
  (events,) = (tmp_path / 'tensorboard').iterdir()
  assert synced == [(tmp_path / 'metrics.jsonl').stat().st_size, events.stat().st_size]
  assert min(synced) > 20
  writer.close()
  metrics.MetricsWriter(tmp_path, start_step=5, enabled=False).sync()
  assert len(synced) == 2


def test_no_run(tmp_path):
  with pytest.raises(InputError, match='is not the folder of a run'):
    metrics.read_metrics(tmp_path)


def test_no_torch_and_no_tensorflow_are_imported():
  code = (
    'import sys, painformer_jax.training.loop; '
    'print([m for m in ("torch", "tensorflow", "tensorboardX") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], env=environment(), capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


# The line to watch.


def test_progress_line():
  values = {
    'loss': 1.23456,
    'task/b/loss': 0.5,
    'task/b/accuracy': 0.875,
    'task/a/loss': 2.0,
    'task/a/accuracy': 1.0,
    'images_per_second': 32.0,
    'images_per_second_per_chip': 32.0,
  }
  line = metrics.progress_line(values, clock=Clock(steps=40), steps=100, images_per_step=16)
  assert line == (
    'step 40/100  loss 1.235  32.0 images/s  eta 30s  loss/accuracy: a 2.000/100% b 0.500/88%'
  )
  values |= {'seconds/compute': 8.0, 'seconds/input': 1.9, 'seconds/host': 0.1}
  line = metrics.progress_line(values, clock=Clock(steps=40), steps=100, images_per_step=16)
  assert '  eta 30s  (compute 80%, input 19%, host 1%)  loss/accuracy: ' in line
  del values['images_per_second']  # After the first step, which compiled.
  line = metrics.progress_line(values, clock=Clock(steps=1), steps=100, images_per_step=16)
  assert line.startswith('step 1/100  loss 1.235  eta ?  loss/')


def test_averages_of_device_arrays():
  window = metrics.Window()
  window.add(1, {'loss': clu_metrics.Average.from_model_output(jnp.arange(4.0))}, in_flight=0)
  assert window.averages() == {'loss': 1.5}
