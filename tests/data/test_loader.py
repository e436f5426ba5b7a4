"""Batches made by worker processes: the same ones, and nothing is left of the workers."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from repository import environment
from test_prepared import damage_record
from tiny_tasks import store_tiny

from painformer_jax.core.errors import InputError
from painformer_jax.data.loader import Batches
from painformer_jax.data.mixture import MixtureTask, train_batches

TASKS = [
  MixtureTask(name='one', batch_size=4, augment='trivial_augment'),
  MixtureTask(name='two', batch_size=2, epochs=3),
]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('workers')
  store_tiny(folder, 'one', train=30, image_size=8)
  store_tiny(folder, 'two', train=14, image_size=8)
  return folder


def read(data_dir, *, tasks=TASKS, seed=5, **options):
  with train_batches(
    tasks, data_dir=data_dir, image_size=8, seed=seed, extra=('key',), **options
  ) as batches:
    return list(batches)


def assert_same(ours, theirs):
  assert len(ours) == len(theirs)
  for a, b in zip(ours, theirs):
    assert a.keys() == b.keys()
    for task in a:
      for field in a[task]:
        np.testing.assert_array_equal(a[task][field], b[task][field])


def test_workers_change_nothing(data_dir):
  alone = read(data_dir)
  assert len(alone) == 3 * 14 // 2
  assert_same(read(data_dir, workers=2), alone)
  assert not multiprocessing.active_children()


@pytest.mark.slow  # Each worker takes seconds to start.
@pytest.mark.parametrize(
  'options',
  [
    {'workers': 1},
    {'workers': 3, 'threads': 2},
    {'workers': 2, 'start_step': 7},
    {'workers': 2, 'start_step': 3, 'process_index': 1, 'process_count': 2},
    {'workers': 4, 'start_step': 20},
    {'workers': 2, 'start_step': 99},
  ],
  ids=str,
)
def test_any_number_of_workers_from_any_step(data_dir, options):
  threads = {k: v for k, v in options.items() if k not in ('workers', 'threads')}
  assert_same(read(data_dir, **options), read(data_dir, threads=1, **threads))


@pytest.mark.slow
def test_closing_ends_the_workers(data_dir):
  batches = train_batches(TASKS[:1], data_dir=data_dir, image_size=8, seed=1, workers=2)
  next(batches)
  assert len(multiprocessing.active_children()) == 2
  batches.close()
  assert not multiprocessing.active_children()
  batches.close()
  with pytest.raises(StopIteration):
    next(batches)


@pytest.mark.slow
def test_nothing_is_said_nor_left_at_the_end(data_dir):
  """Also where batches are kept until then."""
  script = (
    'import sys; from painformer_jax.data.mixture import MixtureTask, train_batches\n'
    "with train_batches([MixtureTask(name='one', batch_size=4)], data_dir=sys.argv[1], "
    'image_size=64, seed=1, workers=2) as batches:\n'
    '  kept = [next(batches) for _ in range(5)]\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', script, str(data_dir)],
    capture_output=True,
    text=True,
    env=environment(),
    timeout=120,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


@pytest.mark.slow
def test_damage_is_told_as_without_workers(tmp_path):
  damage_record(store_tiny(tmp_path, 'one', train=40, image_size=64), 20)
  with pytest.raises(InputError, match="split 'train': record 20 of 40 is damaged"):
    read(tmp_path, tasks=[MixtureTask(name='one', batch_size=4, epochs=1)], workers=2)
  assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_that_was_ended_is_named(data_dir):
  with train_batches(TASKS[:1], data_dir=data_dir, image_size=8, seed=1, workers=2) as batches:
    next(batches)
    for worker in multiprocessing.active_children():
      os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InputError, match='exit code -9.*/dev/shm.*fewer workers'):
      for _ in range(20):
        next(batches)


SCRIPT = textwrap.dedent("""
    import multiprocessing, sys, time
    from painformer_jax.data.mixture import MixtureTask, train_batches
    with train_batches([MixtureTask(name='one', batch_size=4)], data_dir=sys.argv[1], image_size=8,
                       seed=1, workers=2) as batches:
      next(batches)
      print(*[child.pid for child in multiprocessing.active_children()], flush=True)
      try:
        while True:
          next(batches)
          time.sleep(0.01)
      except KeyboardInterrupt:
        for _ in range(10):
          next(batches)  # A checkpoint may still be written, and steps done.
    """)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_process_and_not_before(data_dir, number):
  """SIGINT goes to all processes of a terminal, and does not end the workers."""
  process = subprocess.Popen(
    [sys.executable, '-c', SCRIPT, str(data_dir)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment(),
    start_new_session=True,
  )
  workers = list(map(int, process.stdout.readline().split()))
  assert len(workers) == 2
  if number == signal.SIGINT:
    os.killpg(process.pid, number)
  else:
    process.send_signal(number)
  _, said = process.communicate(timeout=120)
  assert process.returncode == (0 if number == signal.SIGINT else -number), said
  end = time.monotonic() + 60
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in workers):
    assert time.monotonic() < end, 'workers are left'
    time.sleep(0.1)


@pytest.mark.parametrize('options', [{'threads': 0}, {'prefetch': 0}, {'workers': -1}])
def test_numbers_out_of_range(options):
  with pytest.raises(InputError, match='must be at least 1, workers .* at least 0'):
    Batches(lambda step: {}, start=0, stop=1, **options)
