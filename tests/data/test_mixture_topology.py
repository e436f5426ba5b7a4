"""One global sequence of samples, whatever is killed and however it is spread.

10,000 sample ids of a mixture of three tasks are read by processes that are killed
with SIGKILL and replaced by another number of processes with other threads, each time
from the first step that was not whole. The ids must be those that one process reads
without a break.
"""

import hashlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from repository import environment
from tiny_tasks import store_tiny

from painformer_jax.data.mixture import MixtureTask, train_batches

TASKS = [
  MixtureTask(name='small', batch_size=8, augment='face'),
  MixtureTask(name='large', batch_size=4),
  MixtureTask(name='middle', batch_size=8, augment='signal'),
]
SIZES = {'small': 7, 'large': 1000, 'middle': 61}
STEPS = 500  # Of 20 rows: 10,000 samples.
SEED = 11

READER = textwrap.dedent("""
    import hashlib, json, sys, time
    from painformer_jax.data.mixture import MixtureTask, train_batches
    options = json.loads(sys.argv[1])
    tasks = [MixtureTask(**task) for task in options['tasks']]
    out = open(options['out'], 'w')
    with train_batches(
        tasks, data_dir=options['data_dir'], image_size=4, seed=options['seed'],
        start_step=options['start'], process_index=options['index'],
        process_count=options['count'], threads=options['threads'],
        extra=('key',)) as batches:
      for step in range(options['start'], options['stop']):
        batch = next(batches)
        rows = {name: [[key, hashlib.sha1(image.tobytes()).hexdigest()[:8]]
                       for key, image in zip(part['key'].tolist(), part['image'])]
                for name, part in batch.items()}
        print(json.dumps({'step': step, 'rows': rows}), file=out, flush=True)
        if step - options['start'] == options['waits_after']:
          time.sleep(600)  # To be killed, however slow the others are.
    """)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mixture')
  for name, size in SIZES.items():
    store_tiny(folder, name, train=size, test=0, image_size=4)
  return folder


@pytest.fixture(scope='module')
def undisturbed(data_dir):
  """step -> task -> [[key, hash of the augmented image]], by one process."""
  found = []
  with train_batches(
    TASKS, data_dir=data_dir, image_size=4, seed=SEED, threads=2, extra=('key',)
  ) as batches:
    for _ in range(STEPS):
      found.append(
        {
          name: [
            [key, hashlib.sha1(image.tobytes()).hexdigest()[:8]]
            for key, image in zip(part['key'].tolist(), part['image'])
          ]
          for name, part in next(batches).items()
        }
      )
  return found


def sha256(sequence) -> str:
  digest = hashlib.sha256()
  for step in sequence:
    for task in TASKS:
      digest.update(json.dumps(step[task.name]).encode())
  return digest.hexdigest()


def start(folder, data_dir, *, first, count, threads, waits_after=STEPS):
  """Processes that read from step `first` on."""
  return [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        READER,
        json.dumps(
          {
            'tasks': [vars(task) for task in TASKS],
            'data_dir': str(data_dir),
            'seed': SEED,
            'start': first,
            'stop': STEPS,
            'waits_after': waits_after,
            'index': i,
            'count': count,
            'threads': threads,
            'out': str(folder / f'{first}-{i}'),
          }
        ),
      ],
      env=environment(),
    )
    for i in range(count)
  ]


def read(folder, *, first, count):
  """The steps that all processes have finished, their rows joined in order."""
  parts = []
  for i in range(count):
    lines = []
    for line in (folder / f'{first}-{i}').read_text().splitlines():
      try:
        lines.append(json.loads(line))
      except ValueError:  # Killed in the middle of it.
        break
    parts.append(lines)
  whole = min(map(len, parts))
  for step in range(whole):
    assert {part[step]['step'] for part in parts} == {first + step}
  return [
    {task.name: sum((part[step]['rows'][task.name] for part in parts), []) for task in TASKS}
    for step in range(whole)
  ]


def wait_for(path, lines):
  end = time.monotonic() + 120
  while not path.exists() or path.read_bytes().count(b'\n') < lines:
    assert time.monotonic() < end, f'{path} does not get its {lines} lines'
    time.sleep(0.002)


def test_ten_thousand_ids_under_kills_and_other_topologies(data_dir, undisturbed, tmp_path):
  chance = random.Random(3)
  sequence = []
  for count, threads in ((2, 3), (4, 1), (1, 2)):
    first = len(sequence)
    processes = start(
      tmp_path,
      data_dir,
      first=first,
      count=count,
      threads=threads,
      waits_after=150 if count > 1 else STEPS,
    )
    try:
      if count > 1:  # The last topology is left to finish.
        for i in range(count):
          wait_for(tmp_path / f'{first}-{i}', chance.randint(40, 120))
        for process in processes:
          process.send_signal(signal.SIGKILL)
      for process in processes:
        assert process.wait(timeout=120) == (-signal.SIGKILL if count > 1 else 0)
    finally:
      for process in processes:
        process.kill()
    found = read(tmp_path, first=first, count=count)
    assert len(found) >= 40, 'nothing was read before the kill'
    sequence += found
  assert (
    len(sequence) == STEPS
    and sum(len(rows) for step in sequence for rows in step.values()) == 10_000
  )
  assert sequence == undisturbed
  assert sha256(sequence) == sha256(undisturbed)


def test_every_epoch_is_exact(undisturbed):
  """Each task's ids are whole permutations, one after another, not all alike."""
  for task in TASKS:
    keys = [key for step in undisturbed for key, _ in step[task.name]]
    size = SIZES[task.name]
    epochs = [keys[i : i + size] for i in range(0, len(keys) - size + 1, size)]
    assert len(epochs) >= 2
    for epoch in epochs:
      assert sorted(epoch, key=int) == [str(i) for i in range(size)]
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_every_window_has_the_exact_proportions(undisturbed):
  for first, last in ((0, 1), (3, 50), (17, 18), (0, STEPS)):
    counts = {
      task.name: sum(len(step[task.name]) for step in undisturbed[first:last]) for task in TASKS
    }
    assert counts == {task.name: task.batch_size * (last - first) for task in TASKS}


def test_an_image_differs_from_epoch_to_epoch(undisturbed):
  """Augmentation goes by the place in the stream, not by the image."""
  looks = {}
  for step in undisturbed:
    for key, look in step['small']:
      looks.setdefault(key, set()).add(look)
  assert all(len(found) > 50 for found in looks.values())


def test_finite_tasks_end_the_mixture(data_dir):
  tasks = [
    MixtureTask(name='large', batch_size=4),
    MixtureTask(name='middle', batch_size=4, epochs=3),
  ]
  options = dict(data_dir=data_dir, image_size=4, seed=SEED, extra=('key',))
  with train_batches(tasks, **options) as batches:
    found = list(batches)
  assert len(found) == 3 * SIZES['middle'] // 4
  keys = [key for step in found for key in step['middle']['key'].tolist()]
  assert all(keys.count(key) in (2, 3) for key in set(keys)) and len(set(keys)) == 61
  with train_batches(tasks, start_step=len(found) - 1, **options) as batches:
    rest = list(batches)
  assert len(rest) == 1
  assert rest[0]['large']['key'].tolist() == found[-1]['large']['key'].tolist()
  with train_batches(tasks, start_step=2, process_index=1, process_count=2, **options) as batches:
    assert len(list(batches)) == len(found) - 2
