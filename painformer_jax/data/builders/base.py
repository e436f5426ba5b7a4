"""Stores a task as a TFDS dataset in ArrayRecord files, without TensorFlow.

TFDS's usual builder (`GeneratorBasedBuilder`) holds a split in memory and, past
1 GB, spills it through TensorFlow's file system, which is not installed here.
Its `SequentialWriter` streams instead, in the order the reader yields; the
mixture shuffles at reading time. It writes ArrayRecord with a group size of 1,
so that any record can be read alone.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from painformer_jax.data.batch import decode_strictly
from painformer_jax.data.example import Example, TaskSource
from painformer_jax.data.prepared import (
    PreparedTask, open_task, update_digest)
from painformer_jax.errors import InputError

# Of the layout on disk, not of a task's content.
VERSION = '1.0.0'
EXAMPLES_PER_SHARD = 8192
# The writer rewrites the dataset's metadata after every call.
EXAMPLES_PER_CALL = 256
SECONDS_BETWEEN_REPORTS = 2.0

Progress = Callable[[str], None]


def store(
    task: TaskSource, data_dir: str | Path, *, progress: Progress = print,
) -> PreparedTask:
  """Writes a task to `data_dir`/<name>/<version>/, or finds it there.

  Every image is decoded once, strictly. What is written becomes visible under
  its name only when it is complete; what an interrupted run left is cleared.

  Args:
    task: what to store.
    data_dir: where prepared tasks live; made if it is not there.
    progress: takes lines of text to show: rates, sizes, what was skipped.

  Raises:
    InputError: the task or one of its examples is malformed (names it), another
      process is storing the same task, a task of that name is already there
      and differs, or `data_dir` cannot be written (no space, no permission).
  """
  _check_declaration(task)
  home = Path(data_dir) / task.name
  final, work = home / VERSION, home / '.incomplete'
  with _written(home):
    home.mkdir(parents=True, exist_ok=True)
  with _only_writer(home, task.name):
    if final.exists():
      prepared = open_task(data_dir, task.name)
      _check_unchanged(task, prepared)
      progress(f'{task.name}: already in {final}, skipped')
      return prepared
    with _written(home):
      if work.exists():
        progress(f'{task.name}: clearing what an interrupted run left')
        shutil.rmtree(work)
      work.mkdir()
    try:
      _write(task, work, progress)
      with _written(home):
        os.replace(work, final)
    except BaseException:
      shutil.rmtree(work, ignore_errors=True)
      raise
  return open_task(data_dir, task.name)


def _write(task: TaskSource, folder: Path, progress: Progress) -> None:
  metadata = tfds.core.MetadataDict(
      modality=task.modality, description=task.description,
      licence=task.licence)
  info = tfds.core.DatasetInfo(
      builder=tfds.core.DatasetIdentity(
          name=task.name, version=tfds.core.Version(VERSION),
          data_dir=str(folder), module_name=__name__),
      description=task.description,
      license=task.licence,
      metadata=metadata,
      features=tfds.features.FeaturesDict({
          'image': tfds.features.Image(shape=(None, None, 3)),
          'label': tfds.features.ClassLabel(names=list(task.classes)),
          'key': tfds.features.Text(),
          'source': tfds.features.Text(),
      }))
  with _written(folder.parent):
    writer = tfds.core.SequentialWriter(
        info, EXAMPLES_PER_SHARD, file_format='array_record')
    writer.initialize_splits(list(task.splits))
  meter = _Meter(task, progress)
  keys = set()
  digests = {}
  for split in task.splits:
    digest = hashlib.sha256()
    examples = _checked(task, split, keys)
    while chunk := list(itertools.islice(examples, EXAMPLES_PER_CALL)):
      for e in chunk:
        update_digest(digest, key=e.key, label=e.label, image=e.image)
      with _written(folder.parent):
        writer.add_examples({split: [
            {'image': e.image, 'label': e.label, 'key': e.key, 'source': e.source}
            for e in chunk]})
      meter.add(split, chunk)
    if split not in meter.images:
      raise InputError(f"task '{task.name}': split '{split}' has no image")
    digests[split] = digest.hexdigest()
  metadata['sha256'] = digests
  with _written(folder.parent):
    writer.close_all()
  meter.close()


class _Meter:
  """Tells how many images were stored and how quickly."""

  def __init__(self, task: TaskSource, progress: Progress):
    self.images = {}
    self._bytes = 0
    self._task = task
    self._progress = progress
    self._start = self._told = time.monotonic()

  def add(self, split: str, examples: Sequence[Example]) -> None:
    self.images[split] = self.images.get(split, 0) + len(examples)
    self._bytes += sum(len(e.image) for e in examples)
    if time.monotonic() - self._told > SECONDS_BETWEEN_REPORTS:
      self._told = time.monotonic()
      self._progress(f'{self._task.name}: {self}')

  def close(self) -> None:
    self._progress(
        f'{self._task.name}: stored {self}, {len(self._task.classes)} classes')

  def __str__(self):
    rate = sum(self.images.values()) / (time.monotonic() - self._start)
    counts = ' + '.join(f'{n:,} {split}' for split, n in self.images.items())
    return f'{counts} images, {self._bytes / 1e6:.1f} MB, {rate:,.0f} images/s'


def _checked(
    task: TaskSource, split: str, keys: set[bytes]) -> Iterator[Example]:
  """Yields the split's examples, each found sound; fills `keys`."""
  for example in task.splits[split]():
    where = (f"task '{task.name}', split '{split}', example '{example.key}' "
             f'({example.source})')
    if not 0 <= example.label < len(task.classes):
      raise InputError(
          f'{where}: label {example.label} is outside 0 to '
          f'{len(task.classes) - 1}')
    # Eight bytes a key: a task may have millions.
    digest = hashlib.blake2b(example.key.encode(), digest_size=8).digest()
    if digest in keys:
      raise InputError(f'{where}: its key occurs twice in the task')
    keys.add(digest)
    try:
      decode_strictly(example.image)
    except ValueError as error:
      raise InputError(f'{where}: {error}') from error
    yield example


def _check_declaration(task: TaskSource) -> None:
  """Refuses names that the files on disk could not give back."""
  if not re.fullmatch(r'[a-z][a-z0-9_]*', task.name):
    raise InputError(
        f"'{task.name}' is no name for a task: use lower-case letters, digits "
        'and _, starting with a letter')
  if not task.splits:
    raise InputError(f"task '{task.name}' has no split")
  for split in task.splits:
    if not re.fullmatch(r'[a-z][a-z0-9_]*', split):
      raise InputError(f"task '{task.name}': '{split}' is no name for a split")
  if len(task.classes) < 2:
    raise InputError(
        f"task '{task.name}' has {len(task.classes)} class, needs 2 or more")
  if len(set(task.classes)) < len(task.classes):
    raise InputError(f"task '{task.name}': a class name occurs twice")
  for name in task.classes:
    # TFDS keeps the names one a line, and strips them when it reads them.
    if not name or name != name.strip() or len(name.splitlines()) > 1:
      raise InputError(
          f"task '{task.name}': {name!r} is no name for a class: it is empty, "
          'has spaces around it or spans lines')


def _check_unchanged(task: TaskSource, prepared: PreparedTask) -> None:
  """Raises InputError where what is stored is not what `task` says or yields.

  Compares what is declared, and the first example of every split by key, label
  and size in pixels (not by bytes: encoders change between releases).
  """
  differs = [
      field for field in ('classes', 'modality', 'description', 'licence')
      if getattr(task, field) != getattr(prepared, field)]
  if set(task.splits) != set(prepared.sizes):
    differs.append('splits')
  for split in set(task.splits) & set(prepared.sizes):
    first = next(iter(task.splits[split]()), None)
    stored = prepared.records(split)[0]
    if first is None or (first.key, first.label) != (
        stored['key'], stored['label']):
      differs.append(f'first {split} example')
    elif (decode_strictly(first.image).shape
          != decode_strictly(stored['image']).shape):
      differs.append('image size')
  if differs:
    raise InputError(
        f"{prepared.path} holds another '{task.name}' (it differs in: "
        f"{', '.join(sorted(set(differs)))}); delete it to store this one, or "
        'use another data folder')


@contextlib.contextmanager
def _only_writer(home: Path, name: str):
  """Holds the task's lock, which the system frees even if we are killed."""
  with _written(home):
    file = open(home / '.lock', 'w')
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise InputError(
          f"another process is storing task '{name}' in {home}") from error
    yield


@contextlib.contextmanager
def _written(home: Path):
  """Tells of what keeps a folder from being written as InputError."""
  try:
    yield
  # ArrayRecord reports a full disk as a RuntimeError of several clauses.
  except (OSError, RuntimeError) as error:
    reason = getattr(error, 'strerror', None) or str(error).split(';')[0]
    raise InputError(
        f'{home} cannot be written: {reason}; free some space, mend its '
        'permissions or choose another data folder') from error
