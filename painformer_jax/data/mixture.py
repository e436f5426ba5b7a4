"""Batches of several tasks at once, a pure function of the seed and the step.

Every task has its own stream: its training records in a new order each epoch, no record
twice in an epoch, without end or for a number of epochs. Example i of a task in step s is
element s * batch_size + i of the task's stream, augmented with a generator seeded by that
number. So neither the number of threads, workers or processes, nor the other tasks, nor a
restart changes what a step holds, and starting at any step costs nothing.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.data import augment
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.loader import Batches
from painformer_jax.data.order import EpochOrder
from painformer_jax.data.prepared import PreparedTask, Records, open_task
from painformer_jax.data.seeds import NumberedGenerators, derived_seed

# Steps of a mixture without end; no run has so many.
MAX_STEPS = 2**40


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureTask:
  """A task's part of every batch.

  Attributes:
    name: of a prepared task.
    batch_size: its examples in the global batch, the same number in every step.
    augment: an augmentation policy, see `data.augment`.
    epochs: how often each of the task's images is used; 0 for without end. The
      mixture ends with the last full batch of the first task to end.
  """

  name: str
  batch_size: int
  augment: str = 'none'
  epochs: int = 0


def train_batches(
  tasks: Sequence[MixtureTask],
  *,
  data_dir: str | Path,
  image_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  threads: int | None = None,
  prefetch: int | None = None,
  workers: int = 0,
  extra: Sequence[str] = (),
) -> Batches:
  """Training batches of all the tasks, from `start_step` on.

  Args:
    tasks: what every batch is made of; their order changes nothing.
    data_dir: where the prepared tasks are.
    image_size: side of the square that images of another size are resized to, without
      keeping their aspect ratio, pixels.
    seed: of the orders and of the augmentation, 0 or above.
    start_step: the first step wanted.
    process_index: number of this process. It reads examples [index * b / count,
      (index + 1) * b / count) of each task, b being the task's batch size.
    process_count: how many processes share a batch.
    threads, prefetch, workers: see `loader.Batches`; each thread decodes a whole step.
    extra: further fields of the records to include: 'key', 'source', 'identity'
      ([b / process_count] str).

  Returns:
    An iterator over {task name: {'image': [b / process_count, size, size, 3]
    uint8 RGB, 'label': [b / process_count] int32}}, C-contiguous. It ends
    only where a task has `epochs`.

  Raises:
    InputError: no task, a task twice or not there, a batch size that the processes
      cannot share evenly, a number out of range; while iterating, a damaged
      record (names the task and the key).
  """
  _check(tasks, image_size=image_size, seed=seed)
  if start_step < 0:
    raise InputError(f'the first step, {start_step}, is below 0')
  if not 0 <= process_index < process_count:
    raise InputError(f'process {process_index} of {process_count} does not exist')
  for task in tasks:
    if task.batch_size % process_count:
      raise InputError(
        f"task '{task.name}' has a batch size of {task.batch_size}, which "
        f'{process_count} processes cannot share evenly'
      )
  end = steps_available(tasks, data_dir=data_dir) or MAX_STEPS
  steps = _Steps(
    tasks=tuple(tasks),
    data_dir=str(data_dir),
    image_size=image_size,
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    extra=tuple(extra),
  )
  return Batches(
    steps, start=min(start_step, end), stop=end, threads=threads, prefetch=prefetch, workers=workers
  )


class _Steps:
  """Makes a process's part of the batch of any step.

  Pickling it keeps its arguments alone; the process that unpickles it opens the tasks.
  """

  def __init__(
    self,
    *,
    tasks: Sequence[MixtureTask],
    data_dir: str,
    image_size: int,
    seed: int,
    process_index: int,
    process_count: int,
    extra: Sequence[str],
  ):
    self._settings = {
      'tasks': tasks,
      'data_dir': data_dir,
      'image_size': image_size,
      'seed': seed,
      'process_index': process_index,
      'process_count': process_count,
      'extra': extra,
    }
    self._tasks, self._image_size = tasks, image_size
    self._index, self._count = process_index, process_count
    self._streams = {
      task.name: _Stream(
        open_task(data_dir, task.name), task, image_size=image_size, seed=seed, extra=extra
      )
      for task in tasks
    }

  def __reduce__(self):
    return functools.partial(_Steps, **self._settings), ()

  def __call__(self, step: int) -> dict[str, dict[str, np.ndarray]]:
    parts = {}
    for task in self._tasks:
      count = task.batch_size // self._count
      first = int(step) * task.batch_size + self._index * count
      elements = map(self._streams[task.name].__getitem__, range(first, first + count))
      parts[task.name] = _stacked(elements, count, self._image_size)
    return parts


def _stacked(elements: Iterable[dict], count: int, image_size: int) -> dict[str, np.ndarray]:
  """Up to `count` elements as a batch of `count`, the rest of it zeros.

  Every image is copied as soon as it is decoded, while it is in the processor's cache:
  1.5 times as quick as decoding all of them first.
  """
  image = np.empty((count, image_size, image_size, 3), np.uint8)
  others, found = {}, 0
  for element in elements:
    image[found] = element.pop('image')
    for name, value in element.items():
      others.setdefault(name, []).append(value)
    found += 1
  image[found:] = 0
  columns = {name: np.array(values) for name, values in others.items()}
  for name, values in columns.items():
    if found < count:
      columns[name] = np.concatenate([values, np.zeros(count - found, values.dtype)])
  return {'image': image, **columns}


def steps_available(tasks: Sequence[MixtureTask], *, data_dir: str | Path) -> int | None:
  """Full batches until the first task ends its `epochs`; None where no task has any."""
  ends = [
    task.epochs * open_task(data_dir, task.name).sizes['train'] // task.batch_size
    for task in tasks
    if task.epochs
  ]
  return min(ends, default=None)


def eval_batches(
  task: str,
  split: str,
  *,
  data_dir: str | Path,
  image_size: int,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  threads: int | None = None,
) -> Batches:
  """One pass over a split, in the order it is stored, without augmentation.

  Args:
    task, split: of the prepared tasks in `data_dir`.
    data_dir: where they are.
    image_size: as for `train_batches`.
    batch_size: of all processes together.
    process_index: number of this process. It reads examples [index * batch_size / count,
      (index + 1) * batch_size / count) of each batch.
    process_count: how many processes share a batch.
    threads: see `loader.Batches`.

  Returns:
    An iterator over {'image': [b, size, size, 3] uint8 RGB, 'label': [b] int32,
    'key': [b] str, 'mask': [b] bool}, where b is batch_size / process_count.
    The last batch is filled up with zeros and empty keys, where the mask is False;
    every process gets the same number of batches.

  Raises:
    InputError: the task or split is not there, a number is out of range; while
      iterating, a damaged record (names the task and the key).
  """
  if image_size < 1 or batch_size < 1:
    raise InputError(f'image size ({image_size}) and batch size ({batch_size}) must be at least 1')
  if batch_size % process_count:
    raise InputError(f'{process_count} processes cannot share a batch of {batch_size} evenly')
  records, own = open_task(data_dir, task).records(split), batch_size // process_count
  none = {'label': np.zeros(own, np.int32), 'key': np.zeros(own, str)}

  def batch(number: int) -> dict[str, np.ndarray]:
    first = int(number) * batch_size + process_index * own
    count = min(own, max(0, len(records) - first))
    elements = (
      _decoded(records, record, image_size) | {'key': record['key']}
      for record in map(records.__getitem__, range(first, first + count))
    )
    return none | _stacked(elements, own, image_size) | {'mask': np.arange(own) < count}

  return Batches(batch, start=0, stop=-(-len(records) // batch_size), threads=threads)


def fingerprint(
  tasks: Sequence[MixtureTask], *, data_dir: str | Path, image_size: int, seed: int
) -> str:
  """Hex SHA-256 of everything that decides what `train_batches` yields.

  Two runs with one fingerprint read the same images, labels and augmentation in
  every step (with the same releases of Grain, NumPy and OpenCV).
  """
  _check(tasks, image_size=image_size, seed=seed)
  parts = []
  for task in sorted(tasks, key=lambda t: t.name):
    prepared = open_task(data_dir, task.name)
    _policy(task, prepared)
    parts.append(
      {
        'name': task.name,
        'rows': task.batch_size,  # So named in every checkpoint that there is.
        'augment': task.augment,
        'epochs': task.epochs,
        'size': len(prepared.records('train')),
        'sha256': prepared.sha256['train'],
        'classes': prepared.classes,
      }
    )
  content = {'tasks': parts, 'image_size': image_size, 'seed': seed}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Stream:
  """A task's stream: element n is {'image', 'label', ...}; safe to use from threads."""

  def __init__(
    self,
    prepared: PreparedTask,
    task: MixtureTask,
    *,
    image_size: int,
    seed: int,
    extra: Sequence[str],
  ):
    self._records = prepared.records('train')
    self._order = EpochOrder(len(self._records), seed=seed, name=task.name)
    self._image_size, self._extra = image_size, extra
    self._change = None
    if task.augment != 'none':
      self._change = _policy(task, prepared)
      self._chance = NumberedGenerators(derived_seed(seed, task.name, 'augment'))

  def __getitem__(self, number: int) -> dict:
    record = self._records[self._order(number)]
    element = _decoded(self._records, record, self._image_size)
    if self._change is not None:
      element['image'] = self._change(element['image'], self._chance.generator(number))
    for name in self._extra:
      element[name] = record[name]
    return element


def _policy(task: MixtureTask, prepared: PreparedTask) -> augment.Policy:
  try:
    return augment.policy(task.augment, modality=prepared.modality)
  except InputError as error:
    raise InputError(f"augmentation of task '{task.name}': {error}") from error


def _decoded(records: Records, record: dict, image_size: int) -> dict:
  try:
    image = decode_rgb(record['image'], image_size=image_size)
  except ValueError as error:
    raise InputError(
      f"task '{records.task}', split '{records.split}', example "
      f"'{record['key']}': {error}; delete the task's folder and prepare it "
      'again'
    ) from error
  return {'image': image, 'label': np.int32(record['label'])}


def _check(tasks: Sequence[MixtureTask], *, image_size: int, seed: int) -> None:
  if not tasks:
    raise InputError('a mixture needs at least one task')
  names = [task.name for task in tasks]
  for task in tasks:
    if names.count(task.name) > 1:
      raise InputError(f"task '{task.name}' is in the mixture twice")
    if task.batch_size < 1:
      raise InputError(f"task '{task.name}' has a batch size of {task.batch_size}, below 1")
    if task.epochs < 0:
      raise InputError(f"task '{task.name}' has {task.epochs} epochs, below 0")
    augment.policy(task.augment)
  if image_size < 1:
    raise InputError(f'the image size, {image_size}, is below 1')
  if seed < 0:
    raise InputError(f'the seed, {seed}, is below 0')
