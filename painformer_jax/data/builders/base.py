"""Stores a task as a TFDS dataset in ArrayRecord files, without TensorFlow.

TFDS's usual builder (`GeneratorBasedBuilder`) needs TensorFlow's file system for splits
above 1 GB, and starts again from the beginning after a kill. Here a split is cut into
shards of about 16,000 images. Each shard is written whole (`shards.py`), by this process
or by many machines (`beam.py`); TFDS's metadata is written when all shards are there.
Images stay in the order of the listing; the mixture shuffles them when it reads.
"""

import contextlib
import errno
import fcntl
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log, Meter
from painformer_jax.data.builders.shards import (
  Shard,
  WrittenShard,
  finished_shard,
  read_images,
  write_shard,
  written,
)
from painformer_jax.data.prepared import UNFINISHED, PreparedTask, mounted, open_task, split_sha256
from painformer_jax.data.task_source import Item, TaskSource, listing_sha256

# Version of the layout on disk, not of a task's content.
VERSION = '1.1.0'
# About 300 MB at 224 pixels. All files of a mixture are open at once: the whole corpus
# has about 670, fewer than the 1,024 that many systems allow.
IMAGES_PER_SHARD = 16_384

# Of a task, in its folder.
_LOCK = '.lock'


def store(
  task: TaskSource,
  data_dir: str | Path,
  *,
  progress: Log = print,
  max_unreadable: float = 0.0,
  threads: int | None = None,
) -> PreparedTask:
  """Writes a task to `data_dir`/<name>/<version>/, unless it is there already.

  Every image is decoded once, strictly, by the reader or here. The task appears under its
  name only when it is complete. Shards that an interrupted run finished are kept if they
  were made from the same images and settings.

  Args:
    task: what to store.
    data_dir: folder of prepared tasks; created if it does not exist.
    progress: takes lines of text to show: rates, sizes, what was skipped.
    max_unreadable: share of a split that may be unreadable and is then left out, in
      [0, 1); above 0, one image may always be. 0 allows none.
    threads: that read and decode; by default one a core.

  Raises:
    InputError: the task or one of its items is malformed (names it), too many
      are unreadable, another process is storing the same task, a task of that
      name is already there and differs, or `data_dir` cannot be written (no
      space, no permission).
  """
  shards = plan_shards(task)
  with opened(task, shards, data_dir, progress=progress) as work:
    if work is None:
      progress(f'{task.name}: already in {data_dir}, skipped')
      return open_task(data_dir, task.name)
    done = {s.name: finished_shard(s, work) for s in shards}
    kept = sum(w.records + len(w.skipped) for w in done.values() if w)
    if kept:
      progress(f'{task.name}: resumes an interrupted run, {kept:,} images are stored')
    total = sum(len(s.items) for s in shards)
    allowance = Allowance(task, max_unreadable=max_unreadable, progress=progress)
    with Meter(total, progress, prefix=f'{task.name}: ', done=kept) as meter:
      for shard in shards:
        if found := done[shard.name]:
          allowance.add(shard.split, len(found.skipped))
          continue
        done[shard.name] = write_shard(
          shard,
          work,
          read_images(
            shard.items, task.read, threads=threads or os.cpu_count() or 1, checked=task.checked
          ),
          wrote=meter.add,
          skip=lambda item, reason, split=shard.split: allowance.skip(split, item, reason),
        )
    finish(task, shards, done, work, progress=progress)
  return open_task(data_dir, task.name)


def check_settings(name: str, *, max_unreadable: float) -> None:
  """Checks arguments of `store` before a long listing.

  Raises:
    InputError: no name for a task, or a share out of range.
  """
  if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
    raise InputError(
      f"'{name}' is no name for a task: use lower-case letters, digits "
      'and _, starting with a letter'
    )
  if not 0 <= max_unreadable < 1:
    raise InputError(f'the share of unreadable images, {max_unreadable}, is not in [0, 1)')


def plan_shards(task: TaskSource) -> list[Shard]:
  """Checks a task's declaration and items, and cuts its splits into shards.

  Raises:
    InputError: something in it is malformed; names it.
  """
  _check_declaration(task)
  _check_items(task)
  shards = []
  for split, items in task.splits.items():
    count = math.ceil(len(items) / IMAGES_PER_SHARD)
    for index in range(count):
      part = items[index * len(items) // count : (index + 1) * len(items) // count]
      shards.append(
        Shard(
          split=split, index=index, items=part, listing=listing_sha256(part, settings=task.settings)
        )
      )
  return shards


@contextlib.contextmanager
def opened(task: TaskSource, shards: Sequence[Shard], data_dir: str | Path, *, progress: Log):
  """A context with the folder to write shards to; None if the task is stored already.

  Holds the task's lock. Shards of another listing or of other settings are removed
  first. If the block fails before any shard is finished, the folder is removed.

  Raises:
    InputError: see `store`.
  """
  home = mounted(data_dir) / task.name
  final, work = home / VERSION, home / UNFINISHED
  with written(home):
    home.mkdir(parents=True, exist_ok=True)
    _check_home(home)
  with _only_writer(home, task.name, progress):
    if final.exists():
      _check_unchanged(task, shards, open_task(data_dir, task.name))
      yield None
      return
    try:
      with written(home):
        _open_work(task, shards, work, progress)
      yield work
    except BaseException:
      if work.exists() and not any(work.glob('*.json*')):
        shutil.rmtree(work, ignore_errors=True)
      raise
    if work.exists():
      with written(home):
        os.replace(work, final)


def _check_home(home: Path) -> None:
  """Refuses a folder that holds what no preparation wrote."""
  own = re.compile(rf'\d+\.\d+\.\d+|{re.escape(UNFINISHED)}|{re.escape(_LOCK)}')
  if others := sorted(p.name for p in home.iterdir() if not own.fullmatch(p.name)):
    raise InputError(
      f'{home} holds {others[0]!r}, which is no prepared task: name another --data-dir'
    )


def _open_work(task: TaskSource, shards: Sequence[Shard], work: Path, progress: Log) -> None:
  """Creates the folder, or keeps in it the finished shards of an earlier run."""
  known = {f'{s.name}.json': s for s in shards}
  if work.exists():
    kept = 0
    for path in work.iterdir():
      shard = known.get(path.with_suffix('.json').name)
      if shard is not None and finished_shard(shard, work):
        kept += 1
      else:
        path.unlink() if not path.is_dir() else shutil.rmtree(path)
    if not kept:
      progress(f'{task.name}: removed what an interrupted run left')
  work.mkdir(exist_ok=True)


class Allowance:
  """Counts unreadable images; raises where a split has more than its allowed share."""

  def __init__(self, task: TaskSource, *, max_unreadable: float, progress: Log):
    check_settings(task.name, max_unreadable=max_unreadable)
    self._share = max_unreadable
    self._task, self._progress = task, progress
    self._count = dict.fromkeys(task.splits, 0)

  def add(self, split: str, count: int) -> None:
    self._count[split] += count

  def skip(self, split: str, item: Item, reason: str) -> None:
    """Counts one unreadable item.

    Raises:
      InputError: it is one too many.
    """
    self.add(split, 1)
    total = len(self._task.splits[split])
    source = f' ({item.source})' if item.source else ''
    where = f"task '{self._task.name}', split '{split}', example '{item.key}'{source}: {reason}"
    if not self._share:
      raise InputError(where)
    if self._count[split] > max(1, self._share * total):
      raise InputError(
        f'more than {self._share:.2%} of the {total:,} images of the split are '
        f'unreadable (--max-unreadable allows more), the last: {where}'
      )
    self._progress(f'skipped: {where}')


def finish(
  task: TaskSource,
  shards: Sequence[Shard],
  done: Mapping[str, WrittenShard],
  work: Path,
  *,
  progress: Log,
) -> None:
  """Gives finished shards their final names, and writes TFDS's metadata.

  Raises:
    InputError: a split or a shard has no readable image, the folder cannot be
      written.
  """
  counts = {split: [s for s in shards if s.split == split] for split in task.splits}
  for shard in shards:
    if not done[shard.name].records:
      raise InputError(
        f"task '{task.name}', split '{shard.split}': none of the {len(shard.items):,} "
        f"images from '{shard.items[0].key}' on can be read"
      )
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=task.name, version=tfds.core.Version(VERSION), data_dir=str(work), module_name=__name__
    ),
    description=task.description,
    license=task.licence,
    metadata=tfds.core.MetadataDict(
      modality=task.modality,
      description=task.description,
      licence=task.licence,
      settings=task.settings,
      listing={s.name: s.listing for s in shards},
      sha256={
        split: split_sha256([done[s.name].sha256 for s in of]) for split, of in counts.items()
      },
    ),
    features=tfds.features.FeaturesDict(
      {
        'image': tfds.features.Image(shape=(None, None, 3)),
        'label': tfds.features.ClassLabel(names=list(task.classes)),
        'key': tfds.features.Text(),
        'source': tfds.features.Text(),
        'identity': tfds.features.Text(),
      }
    ),
  )
  splits = []
  with written(work.parent):
    for left in (*work.glob('*.tmp'), *work.glob('.*.partial')):
      left.unlink()
    skipped = [f'{key}: {reason}' for s in shards for key, reason in done[s.name].skipped.items()]
    if skipped:
      (work / 'skipped.txt').write_text('\n'.join(skipped) + '\n')
    for split, of in counts.items():
      template = tfds.core.ShardedFileTemplate(
        data_dir=str(work), dataset_name=task.name, split=split, filetype_suffix='array_record'
      )
      splits.append(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[done[s.name].records for s in of],
          num_bytes=sum(done[s.name].bytes for s in of),
          filename_template=template,
        )
      )
    info.set_file_format('array_record')
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(str(work))
    # Last: a run that is killed earlier resumes from the names above.
    for split, of in zip(splits, counts.values()):
      for shard, path in zip(of, split.filepaths, strict=True):
        os.replace(work / f'{shard.name}.array_record', work / Path(path).name)
    for shard in shards:
      (work / f'{shard.name}.json').unlink()
  images = ' + '.join(f'{s.num_examples:,} {s.name}' for s in splits)
  size = sum(s.num_bytes for s in splits) / 1e6
  left_out = f', {len(skipped)} left out' if skipped else ''
  progress(
    f'{task.name}: stored {images} images, {size:,.1f} MB, {len(task.classes):,} classes{left_out}'
  )


def _check_declaration(task: TaskSource) -> None:
  """Raises InputError for names that could not be read back from disk."""
  check_settings(task.name, max_unreadable=0.0)
  if not task.splits:
    raise InputError(f"task '{task.name}' has no split")
  for split in task.splits:
    if not re.fullmatch(r'[a-z][a-z0-9_]*', split):
      raise InputError(f"task '{task.name}': '{split}' is no name for a split")
  if len(task.classes) < 2:
    raise InputError(f"task '{task.name}' has {len(task.classes)} class, needs 2 or more")
  if len(set(task.classes)) < len(task.classes):
    raise InputError(f"task '{task.name}': a class name occurs twice")
  for name in task.classes:
    # TFDS stores one name a line, and strips them when it reads them.
    if not name or name != name.strip() or len(name.splitlines()) > 1:
      raise InputError(
        f"task '{task.name}': {name!r} is no name for a class: it is empty, "
        'has spaces around it or spans lines'
      )


def _check_items(task: TaskSource) -> None:
  keys = set()
  for split, items in task.splits.items():
    if not len(items):
      raise InputError(f"task '{task.name}': split '{split}' has no image")
    for item in items:
      where = f"task '{task.name}', split '{split}', example '{item.key}'"
      if not 0 <= item.label < len(task.classes):
        raise InputError(f'{where}: label {item.label} is outside 0 to {len(task.classes) - 1}')
      if item.key in keys:
        raise InputError(f'{where}: its key occurs twice in the task')
      keys.add(item.key)


def _check_unchanged(task: TaskSource, shards: Sequence[Shard], prepared: PreparedTask) -> None:
  """Raises InputError where what is stored is not what `task` says or lists."""
  differs = [
    # Not the description: another release may word it differently.
    field
    for field in ('classes', 'modality', 'licence', 'settings')
    if getattr(task, field) != getattr(prepared, field)
  ]
  if set(task.splits) != set(prepared.sizes):
    differs.append('splits')
  elif 'settings' not in differs and {s.name: s.listing for s in shards} != dict(prepared.listing):
    differs.append('images')
  if differs:
    raise InputError(
      f"{prepared.path} holds another '{task.name}' (it differs in: "
      f'{", ".join(sorted(differs))}); delete it to store this one, or '
      'use another data folder'
    )


# Errors of file systems without locks, such as Lustre mounted without `flock`.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextlib.contextmanager
def _only_writer(home: Path, name: str, progress: Log):
  """Holds the task's lock; the system releases it even if this process is killed."""
  with written(home):
    file = open(home / _LOCK, 'w')
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise InputError(f"another process is storing task '{name}' in {home}") from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise InputError(
          f'{home} cannot be written: {error.strerror}; choose another data folder'
        ) from error
      progress(
        f'{name}: {home} is on a file system without locks: make sure that no '
        'other process stores the same task'
      )
    yield
