"""How fast images come from disk to a batch, stage by stage, and at what size.

`stages` measures reading, decoding, augmenting and batching beside the bare decoder
on the same images, in turns within one run, so that ratios hold on busy machines.
`scale` measures what a sample costs in corpora of growing size.
"""

import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.progress import Meter
from painformer_jax.core.tables import aligned
from painformer_jax.data import mixture
from painformer_jax.data.builders import base
from painformer_jax.data.builders.shards import write_shard
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.prepared import list_tasks, open_task
from painformer_jax.data.task_source import Item, TaskSource

# Chains of `data.augment` that are timed, beside none.
AUGMENTED = ('trivial_augment', 'paper')
_ROWS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """One row of the table.

  Attributes:
    name: of the stage, or of the whole pipeline.
    images_per_second: of all threads, median over the rounds.
    per_core: the same for each thread.
    ratio: to the bare decoder, median over the rounds.
  """

  name: str
  images_per_second: float
  per_core: float
  ratio: float


def photo_task(images: int, image_size: int) -> TaskSource:
  """Crops of a photograph as JPEG of quality 95: what a face dataset weighs.

  The photograph (512 x 512 pixels, public domain) comes with scikit-image.
  """
  photo = import_extra('skimage.data', extra='demo').astronaut()

  def read(item: Item) -> bytes:
    rng = np.random.default_rng(item.detail)
    side = int(rng.integers(160, 400))
    top, left = rng.integers(0, 512 - side, 2)
    crop = cv2.resize(
      photo[top : top + side, left : left + side],
      (image_size, image_size),
      interpolation=cv2.INTER_AREA if side > image_size else cv2.INTER_CUBIC,
    )
    return cv2.imencode(
      '.jpg', cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )[1].tobytes()

  return TaskSource(
    name='photo_crops',
    classes=('even', 'odd'),
    modality='face',
    description='Crops of one photograph, for timing.',
    licence='public domain',
    splits={'train': [Item(key=str(i), label=i % 2, detail=i) for i in range(images)]},
    read=read,
    settings=f'{image_size}',
  )


def stages(
  data_dir: str | os.PathLike,
  task: str,
  *,
  image_size: int,
  threads: int,
  batches: int,
  rounds: int,
  workers: int = 0,
  progress: Callable[[str], None] = lambda line: None,
) -> list[Stage]:
  """Times each stage on a prepared task, all with the same number of threads.

  Args:
    data_dir: of the prepared task.
    task: its name.
    image_size: side of the images that leave the pipeline, pixels.
    threads: of every stage.
    batches: batches of 32 images that a stage is timed over, in a round.
    rounds: how often each stage runs; they take turns.
    workers: processes of one thread each that are the pipeline, instead of threads.
    progress: told what is going on.

  Raises:
    InputError: no such task, or a number below 1.
  """
  if min(threads, batches, rounds, image_size) < 1:
    raise InputError('threads, batches, rounds and the image size must be at least 1')
  records = open_task(data_dir, task).records('train')
  count = batches * _ROWS
  chosen = np.random.default_rng(0).integers(0, len(records), count)
  encoded = [records[i]['image'] for i in chosen]

  def bare(image: bytes) -> None:
    cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)

  def spread(function, items):
    # Blocks, so that the pool's own cost does not count against the stage.
    blocks = [items[i : i + _ROWS] for i in range(0, len(items), _ROWS)]
    with ThreadPoolExecutor(threads) as pool:
      list(pool.map(lambda block: [function(item) for item in block], blocks))

  def pipeline(augment: str):
    with mixture.train_batches(
      [mixture.MixtureTask(name=task, batch_size=_ROWS, augment=augment)],
      data_dir=data_dir,
      image_size=image_size,
      seed=0,
      threads=1 if workers else threads,
      workers=workers,
    ) as iterator:
      for _ in range(max(1, workers)):
        next(iterator)  # Starts threads and processes.
      start = time.perf_counter()
      for _ in range(batches):
        next(iterator)
      return time.perf_counter() - start

  def timed(function, items):
    start = time.perf_counter()
    spread(function, items)
    return time.perf_counter() - start

  works = {
    'bare decode': lambda: timed(bare, encoded),
    'read': lambda: timed(lambda i: records[i], list(chosen)),
    'decode to RGB': lambda: timed(lambda e: decode_rgb(e, image_size=image_size), encoded),
    'pipeline': lambda: pipeline('none'),
    **{f'pipeline, {name}': lambda name=name: pipeline(name) for name in AUGMENTED},
  }
  seconds = {name: [] for name in works}
  for work in works.values():
    work()  # Warms caches.
  for number in range(rounds):
    progress(f'round {number + 1} of {rounds}')
    for name, work in works.items():
      seconds[name].append(work())
  return [
    Stage(
      name=name,
      images_per_second=count / statistics.median(times),
      per_core=count / statistics.median(times) / threads,
      ratio=statistics.median(b / t for b, t in zip(seconds['bare decode'], times)),
    )
    for name, times in seconds.items()
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
  """Resident memory of a running pipeline, MiB: after a tenth of the time, and at most
  from then on."""

  early: float
  largest: float
  images: int
  seconds: float


def memory(
  data_dir: str | os.PathLike,
  task: str,
  *,
  image_size: int,
  threads: int,
  seconds: float,
  progress: Callable[[str], None] = lambda line: None,
) -> Memory:
  """Runs the augmented pipeline for a while and watches its memory."""
  images = 0
  with mixture.train_batches(
    [mixture.MixtureTask(name=task, batch_size=_ROWS, augment='trivial_augment')],
    data_dir=data_dir,
    image_size=image_size,
    seed=0,
    threads=threads,
  ) as iterator:
    next(iterator)  # Starts the threads.
    early = largest = _resident()
    start = said = time.perf_counter()
    while (past := time.perf_counter() - start) < seconds:
      next(iterator)
      images += _ROWS
      if past > seconds / 10:
        largest = max(largest, _resident())
      else:
        early = largest = _resident()
      if time.perf_counter() - said > 10:
        said = time.perf_counter()
        progress(f'{past:.0f} of {seconds:.0f} s, {images:,} images, {_resident():.0f} MiB')
  return Memory(early=early, largest=largest, images=images, seconds=past)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """What a corpus of so many records costs.

  Attributes:
    records: how many.
    files: in how many files.
    open_seconds: until the first batch is there.
    resident: MiB that opening and reading added.
    random_read: microseconds a record, at random places, one thread, once every file
      has been opened; much of a large corpus comes from the disk.
    cached_read: the same places once more, from memory.
    next_batch: microseconds a record of the shuffled pipeline, one thread, after the
      first 20,000.
    first_batches: the same over the first 10,000, when files are opened.
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
  progress: Callable[[str], None] = lambda line: None,
) -> list[Scale]:
  """Measures corpora of tiny records (an image of 1 x 1 pixel), each in a process.

  Args:
    sizes: numbers of records.
    folder: where the corpora are written and kept; a temporary one by default.
      A record takes about 230 bytes.
    progress: told what is going on.

  Raises:
    InputError: no such folder, or a number below 1.
  """
  if folder is not None and not pathlib.Path(folder).is_dir():
    raise InputError(f'there is no folder {folder}; make it first')
  if min(sizes) < 1:
    raise InputError(f'a corpus of {min(sizes)} records cannot be measured')
  results = []
  with tempfile.TemporaryDirectory(dir=folder) as scratch:
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


def _write_tiny_records(
  data_dir: pathlib.Path, count: int, progress: Callable[[str], None]
) -> None:
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
  before, start = _resident(), time.perf_counter()
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
  resident = _resident() - before
  numbers = np.array(keys, np.int64)
  counts = np.histogram(numbers, bins=100, range=(0, len(records)))[0]
  expected = len(numbers) / 100
  print(
    json.dumps(
      {
        'files': len(task.shards['train']),
        'open_seconds': opened,
        'resident': resident,
        'random_read': reads[0] * 1e6,
        'cached_read': reads[1] * 1e6,
        'next_batch': following * 1e6,
        'first_batches': beginning * 1e6,
        'shuffle': float(np.abs(counts - expected).max() / np.sqrt(expected)),
        'repeats': len(numbers) - len(np.unique(numbers)),
      }
    )
  )


def _resident() -> float:
  """MiB in memory now; the most there ever was where /proc is not there."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20
  except OSError:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(rows: Sequence[Stage]) -> str:
  """The stages as aligned text."""
  header = ('stage', 'images/s', 'per core', 'of bare decode')
  cells = [
    (r.name, f'{r.images_per_second:,.0f}', f'{r.per_core:,.0f}', f'{r.ratio:.0%}') for r in rows
  ]
  return '\n'.join(aligned([header, *cells], right=(1, 2, 3)))


def scale_table(rows: Sequence[Scale]) -> str:
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
