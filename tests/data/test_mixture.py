"""Batches of several tasks: what is in them, in which order, and wrong arguments."""

import dataclasses
import hashlib
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tasks import encode, examples_of, store_tiny, tiny_image, tiny_task, with_examples

from painformer_jax.core.errors import InputError
from painformer_jax.data import mixture
from painformer_jax.data.builders import base, shards
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.mixture import MixtureTask, eval_batches, fingerprint, train_batches
from painformer_jax.data.prepared import open_task

SIZES = (1, 2, 3, 7, 13, 40)
# One task smaller than its batch size, one larger, one of a different policy.
TASKS = (
  MixtureTask(name='of_13', batch_size=8, augment='signal'),
  MixtureTask(name='of_3', batch_size=8),
  MixtureTask(name='of_40', batch_size=4, augment='face'),
)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  for size in SIZES:
    store_tiny(folder, f'of_{size}', train=size)
  return folder


def take(steps, tasks=TASKS, *, data_dir, **options):
  options = {'image_size': 16, 'seed': 5, 'threads': 2} | options
  with train_batches(tasks, data_dir=data_dir, **options) as batches:
    return [next(batches) for _ in range(steps)]


def keys_of(data_dir, name, images):
  """The key of each image by its pixels (for images left as they are)."""
  records = open_task(data_dir, name).records('train')
  known = {
    decode_rgb(r['image']).tobytes(): r['key'] for r in (records[i] for i in range(len(records)))
  }
  assert len(known) == len(records)
  return [known[image.tobytes()] for image in images]


def assert_same(steps, others):
  assert len(steps) == len(others)
  for step, other in zip(steps, others):
    assert step.keys() == other.keys()
    for name in step:
      for part in ('image', 'label'):
        np.testing.assert_array_equal(step[name][part], other[name][part])


@pytest.fixture(scope='module')
def reference(data_dir):
  return take(12, data_dir=data_dir, threads=1)


# The sequence.


def test_shapes_and_types(reference):
  for step in reference:
    assert list(step) == [t.name for t in TASKS]
    for task in TASKS:
      image, label = step[task.name]['image'], step[task.name]['label']
      assert image.shape == (task.batch_size, 16, 16, 3) and image.dtype == np.uint8
      assert label.shape == (task.batch_size,) and label.dtype == np.int32
      assert image.flags.c_contiguous and label.flags.c_contiguous


def test_images_and_labels_are_those_stored(data_dir, reference):
  for step in reference:
    batch = step['of_3']
    for key, label, image in zip(
      keys_of(data_dir, 'of_3', batch['image']), batch['label'], batch['image']
    ):
      assert label == int(key) % 3
      np.testing.assert_array_equal(
        image, tiny_image('of_3', int(key), label=label, classes=3, image_size=16)
      )


@pytest.mark.parametrize('threads', [1, 4])
@pytest.mark.parametrize('process_count', [1, 2, 4])
def test_neither_processes_nor_threads_change_it(data_dir, reference, process_count, threads):
  parts = [
    take(
      12,
      data_dir=data_dir,
      threads=threads,
      prefetch=3,
      process_index=p,
      process_count=process_count,
    )
    for p in range(process_count)
  ]
  joined = [
    {
      name: {part: np.concatenate([s[name][part] for s in step]) for part in ('image', 'label')}
      for name in step[0]
    }
    for step in zip(*parts)
  ]
  assert_same(joined, reference)


@pytest.mark.parametrize('start', [1, 4, 11])
def test_a_restart_goes_on_with_the_same_pixels(data_dir, reference, start):
  rest = take(12 - start, data_dir=data_dir, start_step=start, threads=3)
  assert_same(rest, reference[start:])


def test_each_epoch_holds_each_example_once_in_a_new_order(data_dir):
  tasks = [MixtureTask(name='of_40', batch_size=8), MixtureTask(name='of_13', batch_size=8)]
  steps = take(40, tasks, data_dir=data_dir)
  for name, size in (('of_40', 40), ('of_13', 13)):
    keys = keys_of(data_dir, name, np.concatenate([s[name]['image'] for s in steps]))
    epochs = [keys[i : i + size] for i in range(0, len(keys) - size + 1, size)]
    assert len(epochs) >= 8
    for epoch in epochs:
      assert sorted(map(int, epoch)) == list(range(size))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_far_steps_cost_nothing_and_epochs_stay_exact(data_dir):
  tasks = [MixtureTask(name='of_13', batch_size=13)]
  begin = time.monotonic()
  (step,) = take(1, tasks, data_dir=data_dir, start_step=10**9)
  assert time.monotonic() - begin < 5
  keys = keys_of(data_dir, 'of_13', step['of_13']['image'])
  assert sorted(map(int, keys)) == list(range(13))


@settings(
  max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
  sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3, unique=True),
  local_rows=st.lists(st.integers(1, 3), min_size=3, max_size=3),
  process_count=st.integers(1, 4),
  start=st.integers(0, 50),
  threads=st.integers(1, 3),
  seed=st.integers(0, 2**40),
)
def test_any_part_of_any_mixture_is_a_part_of_the_stream(
  data_dir, sizes, local_rows, process_count, start, threads, seed
):
  """Element n is the same, whatever batch size, processes or start reach it."""
  process = start % process_count
  tasks = [
    MixtureTask(name=f'of_{size}', batch_size=rows * process_count, augment='face')
    for size, rows in zip(sizes, local_rows)
  ]
  steps = take(
    2,
    tasks,
    data_dir=data_dir,
    seed=seed,
    start_step=start,
    threads=threads,
    process_index=process,
    process_count=process_count,
  )
  for task in tasks:
    local = task.batch_size // process_count
    for s, step in enumerate(steps, start):
      first = s * task.batch_size + process * local
      # One row a batch: the step is the number in the stream.
      alone = take(
        local,
        [dataclasses.replace(task, batch_size=1)],
        data_dir=data_dir,
        seed=seed,
        start_step=first,
        threads=1,
      )
      for part in ('image', 'label'):
        np.testing.assert_array_equal(
          step[task.name][part], np.concatenate([a[task.name][part] for a in alone])
        )


def test_other_tasks_and_their_order_change_nothing(data_dir, reference):
  turned = take(12, TASKS[::-1], data_dir=data_dir)
  assert_same([{t.name: s[t.name] for t in TASKS} for s in turned], reference)
  alone = take(12, TASKS[:1], data_dir=data_dir)
  assert_same(alone, [{'of_13': s['of_13']} for s in reference])


def test_seeds_and_names_give_other_orders(data_dir, tmp_path):
  task = [MixtureTask(name='of_40', batch_size=40)]

  def labels(**options):
    return take(1, task, data_dir=data_dir, **options)[0]['of_40']['label']

  # Neighbouring seeds must not be neighbouring epochs either.
  assert not np.array_equal(labels(seed=0), labels(seed=1))
  assert not np.array_equal(labels(seed=0, start_step=1), labels(seed=1))
  twins = tuple(store_tiny(tmp_path, n, train=40).name for n in ('a', 'b'))
  (step,) = take(1, [MixtureTask(name=n, batch_size=40) for n in twins], data_dir=tmp_path)
  assert not np.array_equal(step['a']['label'], step['b']['label'])


def test_an_example_is_augmented_anew_each_epoch(data_dir):
  task = [MixtureTask(name='of_1', batch_size=4, augment='face')]
  steps = take(5, task, data_dir=data_dir)
  images = np.concatenate([s['of_1']['image'] for s in steps])
  assert len({image.tobytes() for image in images}) == 20


def test_images_of_another_size_are_squashed(data_dir):
  (step,) = take(1, [MixtureTask(name='of_3', batch_size=3)], data_dir=data_dir, image_size=24)
  assert step['of_3']['image'].shape == (3, 24, 24, 3)


# Reading ahead.


def readers():
  return [t for t in threading.enumerate() if t.name.startswith('grain-prefetch')]


def test_it_reads_ahead_and_can_be_closed(data_dir, monkeypatch):
  wait_until(lambda: not readers())
  done = []
  decode = mixture.decode_rgb
  monkeypatch.setattr(mixture, 'decode_rgb', lambda *a, **k: (done.append(1), decode(*a, **k))[1])
  batches = train_batches(
    [MixtureTask(name='of_40', batch_size=4)],
    data_dir=data_dir,
    image_size=16,
    seed=0,
    threads=2,
    prefetch=5,
  )
  next(batches)
  wait_until(lambda: len(done) == 6 * 4)
  time.sleep(0.1)
  assert len(done) == 6 * 4, 'it reads further ahead than asked'
  batches.close()
  assert list(batches) == []
  batches.close()
  wait_until(lambda: not readers())


def wait_until(condition, seconds=10):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'waited in vain'
    time.sleep(0.01)


# What is wrong is said.


def spoiled(tmp_path, monkeypatch, image):
  """A stored task whose example '4' is not an image, past the checks."""
  monkeypatch.setattr(shards, 'decode_strictly', lambda encoded: None)
  task = tiny_task('spoiled')
  examples = [dataclasses.replace(e, image=image) if e.key == '4' else e for e in examples_of(task)]
  base.store(with_examples(task, train=examples), tmp_path, progress=lambda line: None)


@pytest.mark.parametrize('image', [b'', b'junk', encode(np.zeros((16, 16, 3), np.uint8))[:40]])
def test_a_corrupt_image_is_named(tmp_path, monkeypatch, image):
  spoiled(tmp_path, monkeypatch, image)
  message = "task 'spoiled', split 'train', example '4': not a readable image"
  with pytest.raises(InputError, match=message):
    take(3, [MixtureTask(name='spoiled', batch_size=6)], data_dir=tmp_path)
  with pytest.raises(InputError, match=message):
    list(eval_batches('spoiled', 'train', data_dir=tmp_path, image_size=16, batch_size=4))


@pytest.mark.parametrize(
  'tasks,options,message',
  [
    ([], {}, 'at least one task'),
    ([MixtureTask(name='of_3', batch_size=0)], {}, "'of_3' has a batch size of 0"),
    ([MixtureTask(name='of_3', batch_size=2)] * 2, {}, "'of_3' is in the mixture twice"),
    ([MixtureTask(name='of_4', batch_size=2)], {}, "no task 'of_4'"),
    (
      [MixtureTask(name='of_3', batch_size=2, augment='magic')],
      {},
      "no augmentation 'magic' .known: face, none, signal",
    ),
    (
      [MixtureTask(name='of_3', batch_size=6)],
      {'process_count': 4},
      "'of_3' has a batch size of 6, which 4 processes cannot share evenly",
    ),
    (TASKS, {'process_index': 2, 'process_count': 2}, 'process 2 of 2'),
    (TASKS, {'process_index': -1}, 'process -1 of 1'),
    (TASKS, {'start_step': -1}, 'first step, -1'),
    (TASKS, {'seed': -1}, 'seed, -1'),
    (TASKS, {'image_size': 0}, 'image size, 0'),
    (TASKS, {'threads': 0}, r'threads \(0\)'),
    (TASKS, {'prefetch': 0}, r'prefetch \(0\)'),
  ],
)
def test_wrong_arguments(data_dir, tasks, options, message):
  with pytest.raises(InputError, match=message):
    take(1, tasks, data_dir=data_dir, **options)


# The fingerprint.


def test_fingerprint(data_dir, tmp_path):
  def of(*tasks, **options):
    return fingerprint(
      tasks or TASKS, **({'data_dir': data_dir, 'image_size': 16, 'seed': 5} | options)
    )

  assert len(of()) == 64 and of() == of()
  assert of(*TASKS[::-1]) == of()
  changed = [
    of(seed=6),
    of(image_size=24),
    of(*TASKS[:2]),
    of(dataclasses.replace(TASKS[0], batch_size=4), *TASKS[1:]),
    of(dataclasses.replace(TASKS[0], augment='none'), *TASKS[1:]),
  ]
  assert len({of(), *changed}) == len(changed) + 1

  prepared = open_task(data_dir, 'of_13')
  part = {'name': 'of_13', 'rows': 8, 'augment': 'none', 'epochs': 0, 'size': 13}
  part |= {'sha256': prepared.sha256['train'], 'classes': list(prepared.classes)}
  stored = json.dumps({'tasks': [part], 'image_size': 16, 'seed': 5}, sort_keys=True)
  task = MixtureTask(name='of_13', batch_size=8)
  # What the checkpoints of every release hold.
  assert of(task) == hashlib.sha256(stored.encode()).hexdigest()
  for folder, image_size in (('same', 16), ('other', 20)):
    store_tiny(tmp_path / folder, 'of_13', train=13, image_size=image_size)
  assert of(task, data_dir=tmp_path / 'same') == of(task)
  assert of(task, data_dir=tmp_path / 'other') != of(task)
  with pytest.raises(InputError, match="no task 'of_4'"):
    of(MixtureTask(name='of_4', batch_size=1))


# Evaluation.


@pytest.mark.parametrize('batch_size,count', [(4, 2), (5, 1), (8, 1), (1, 5)])
def test_evaluation_is_in_order_and_padded(data_dir, batch_size, count):
  with eval_batches(
    'of_13', 'test', data_dir=data_dir, image_size=16, batch_size=batch_size, threads=2
  ) as batches:
    batches = list(batches)
  assert len(batches) == count
  for batch in batches:
    assert batch['image'].shape == (batch_size, 16, 16, 3)
    assert batch['image'].dtype == np.uint8 and batch['image'].flags.c_contiguous
    assert batch['label'].dtype == np.int32 and batch['mask'].dtype == bool
    assert not batch['image'][~batch['mask']].any()
    assert not batch['label'][~batch['mask']].any()
    assert set(batch['key'][~batch['mask']]) <= {''}
  mask, key, label, image = (
    np.concatenate([b[part] for b in batches]) for part in ('mask', 'key', 'label', 'image')
  )
  assert list(key[mask]) == [str(n) for n in range(13, 18)]
  assert list(label[mask]) == [n % 3 for n in range(13, 18)]
  for n, one in zip(range(13, 18), image[mask]):
    np.testing.assert_array_equal(
      one, tiny_image('of_13', n, label=n % 3, classes=3, image_size=16)
    )


@pytest.mark.parametrize('batch_size,count', [(4, 2), (6, 3), (8, 4), (8, 8)])
def test_evaluation_by_processes_is_that_by_one(data_dir, batch_size, count):
  """Also where the last batch has no rows for some of them."""

  def batches(**place):
    with eval_batches(
      'of_13', 'test', data_dir=data_dir, image_size=16, batch_size=batch_size, threads=1, **place
    ) as found:
      return list(found)

  parts = [batches(process_index=i, process_count=count) for i in range(count)]
  for whole, *shares in zip(batches(), *parts, strict=True):
    for name, rows in whole.items():
      np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), rows)
      assert {share[name].shape[0] for share in shares} == {batch_size // count}


def test_evaluation_of_what_is_not_there(data_dir):
  options = {'data_dir': data_dir, 'image_size': 16, 'batch_size': 2}
  with pytest.raises(InputError, match="no split 'validation'"):
    eval_batches('of_13', 'validation', **options)
  with pytest.raises(InputError, match="no task 'of_4'"):
    eval_batches('of_4', 'test', **options)
  with pytest.raises(InputError, match='at least 1'):
    eval_batches('of_13', 'test', **options | {'batch_size': 0})
  with pytest.raises(InputError, match='3 processes cannot share a batch of 2 evenly'):
    eval_batches('of_13', 'test', **options, process_count=3)
