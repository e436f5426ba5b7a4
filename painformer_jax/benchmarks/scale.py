"""What reading costs in datasets of growing size, up to millions of records.

Each dataset holds tiny records, images of 1 x 1 pixel, and is measured in a process of
its own.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np

from painformer_jax.benchmarks.data import resident
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import temporary_folder
from painformer_jax.core.progress import Log, Meter
from painformer_jax.core.tables import aligned
from painformer_jax.data import mixture
from painformer_jax.data.builders import base
from painformer_jax.data.builders.shards import write_shard
from painformer_jax.data.prepared import list_tasks, open_task
from painformer_jax.data.task_source import Item, TaskSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """What reading a dataset of some size costs.

  Attributes:
    records: number of records.
    files: number of files.
    open_seconds: seconds until the first batch.
    resident: MiB of memory that opening and reading took.
    random_read: microseconds to read a record at a random index in one thread, when every
      file has been opened; records of a large dataset come from the disk.
    cached_read: microseconds to read the same records again, from memory.
    next_batch: microseconds a record in the shuffled pipeline with one thread, after the
      first 20,000 records.
    first_batches: the same for the first 10,000 records, while files are opened.
    shuffle: largest deviation from the expected count over 100 bins of where
      10,000 samples in a row come from, in standard deviations; 2.5 to 3.5 is
      what chance gives.
    repeats: records that occur twice in 10,000 in a row, 0 within an epoch.
  """

  records: int
  files: int
  open_seconds: float
  resident: float
  random_read: float
  cached_read: float
  next_batch: float
  first_batches: float
  shuffle: float
  repeats: int


def scale(
  sizes: Sequence[int],
  *,
  folder: str | os.PathLike | None = None,
  progress: Log = lambda line: None,
) -> list[Scale]:
  """Measures datasets of tiny records, each in a process of its own.

  Args:
    sizes: numbers of records.
    folder: where the datasets are written and kept; a temporary folder by default. A
      record takes about 230 bytes.
    progress: takes lines about what is being done.

  Raises:
    InputError: no such folder, or a number below 1.
  """
  if folder is not None and not pathlib.Path(folder).is_dir():
    raise InputError(f'there is no folder {folder}; make it first')
  if min(sizes) < 1:
    raise InputError(f'a corpus of {min(sizes)} records cannot be measured')
  results = []
  with temporary_folder(folder) as scratch:
    for size in sizes:
      place = pathlib.Path(folder or scratch, f'records-{size}')
      if not (place.is_dir() and list_tasks(place)):
        progress(f'writes {size:,} records')
        _write_tiny_records(place, size, progress)
      progress(f'measures {size:,} records')
      done = subprocess.run(
        [sys.executable, '-c', f'from {__name__} import _measure; _measure({str(place)!r})'],
        capture_output=True,
        text=True,
      )
      if done.returncode:
        raise InputError(f'measuring {size} records failed: {done.stderr.strip()[-300:]}')
      results.append(Scale(records=size, **json.loads(done.stdout.splitlines()[-1])))
  return results


class _Numbers(Sequence):
  """Items made when they are asked for, since ten million would not fit."""

  def __init__(self, start: int, stop: int):
    self._range = range(start, stop)

  def __len__(self):
    return len(self._range)

  def __getitem__(self, index):
    if isinstance(index, slice):
      part = self._range[index]
      return _Numbers(part.start, part.stop)
    number = self._range[index]
    return Item(key=str(number), label=number % 2)


def _write_tiny_records(data_dir: pathlib.Path, count: int, progress: Log) -> None:
  """What `store` writes, without reading and decoding each image."""
  image = cv2.imencode('.png', np.zeros((1, 1), np.uint8))[1].tobytes()
  task = TaskSource(
    name='tiny_records',
    classes=('even', 'odd'),
    modality='noise',
    description='Records of one pixel, for timing.',
    licence='public domain',
    splits={'train': _Numbers(0, count)},
    read=lambda item: image,
  )
  shards = base.plan_shards(task)
  with (
    base.opened(task, shards, data_dir, progress=progress) as work,
    Meter(count, progress, what='records') as meter,
  ):
    done = {
      shard.name: write_shard(shard, work, ((item, image) for item in shard.items), wrote=meter.add)
      for shard in shards
    }
    base.finish(task, shards, done, work, progress=progress)


def _measure(data_dir: str) -> None:
  """Prints the fields of `Scale` as JSON; runs in a process of its own."""
  before, start = resident(), time.perf_counter()
  rows = [mixture.MixtureTask(name='tiny_records', batch_size=100)]
  with mixture.train_batches(
    rows, data_dir=data_dir, image_size=1, seed=0, threads=1, extra=('key',)
  ) as iterator:
    first = next(iterator)
    opened = time.perf_counter() - start
    keys = list(first['tiny_records']['key'])
    start = time.perf_counter()
    while len(keys) < 10_000:
      keys += list(next(iterator)['tiny_records']['key'])
    beginning = (time.perf_counter() - start) / (len(keys) - 100)
    for _ in range(100):
      next(iterator)
    start = time.perf_counter()
    for _ in range(100):
      next(iterator)
    following = (time.perf_counter() - start) / 10_000
  task = open_task(data_dir, 'tiny_records')
  records = task.records('train')
  for place in np.cumsum(task.shards['train']):
    records[place - 1]
  places = np.random.default_rng(0).integers(0, len(records), 10_000)
  reads = []
  for _ in range(2):
    start = time.perf_counter()
    for place in places:
      records[place]
    reads.append((time.perf_counter() - start) / len(places))
  added = resident() - before
  numbers = np.array(keys, np.int64)
  counts = np.histogram(numbers, bins=100, range=(0, len(records)))[0]
  expected = len(numbers) / 100
  print(
    json.dumps(
      {
        'files': len(task.shards['train']),
        'open_seconds': opened,
        'resident': added,
        'random_read': reads[0] * 1e6,
        'cached_read': reads[1] * 1e6,
        'next_batch': following * 1e6,
        'first_batches': beginning * 1e6,
        'shuffle': float(np.abs(counts - expected).max() / np.sqrt(expected)),
        'repeats': len(numbers) - len(np.unique(numbers)),
      }
    )
  )


def table(rows: Sequence[Scale]) -> str:
  """The sizes as aligned text."""
  columns = {
    'records': lambda r: f'{r.records:,}',
    'files': lambda r: f'{r.files:,}',
    'start': lambda r: f'{r.open_seconds:.2f} s',
    'memory': lambda r: f'{r.resident:.0f} MiB',
    'random read': lambda r: f'{r.random_read:.1f} us',
    'once more': lambda r: f'{r.cached_read:.1f} us',
    'next sample': lambda r: f'{r.next_batch:.1f} us',
    'at first': lambda r: f'{r.first_batches:.1f} us',
    'shuffle': lambda r: f'{r.shuffle:.1f}',
    'repeats': lambda r: f'{r.repeats:,}',
  }
  cells = [[show(row) for show in columns.values()] for row in rows]
  return '\n'.join(aligned([list(columns), *cells], right=range(len(columns))))
