"""Speed of reading, decoding, augmenting and batching images, stage by stage.

Each stage is compared with the bare decoder on the same images. Stages take turns within
one run, so that other work on the machine slows all of them alike.
"""

import dataclasses
import os
import pathlib
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.progress import Log
from painformer_jax.core.tables import aligned
from painformer_jax.data import mixture
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.prepared import open_task
from painformer_jax.data.task_source import Item, TaskSource

# Augmentations that are timed, besides none.
AUGMENTED = ('trivial_augment', 'paper')
_BATCH = 32


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
  progress: Log = lambda line: None,
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
    progress: takes lines about what is being done.

  Raises:
    InputError: no such task, or a number below 1.
  """
  if min(threads, batches, rounds, image_size) < 1:
    raise InputError('threads, batches, rounds and the image size must be at least 1')
  records = open_task(data_dir, task).records('train')
  count = batches * _BATCH
  chosen = np.random.default_rng(0).integers(0, len(records), count)
  encoded = [records[i]['image'] for i in chosen]

  def bare(image: bytes) -> None:
    cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)

  def spread(function, items):
    # Blocks, so that the pool's own cost does not count against the stage.
    blocks = [items[i : i + _BATCH] for i in range(0, len(items), _BATCH)]
    with ThreadPoolExecutor(threads) as pool:
      list(pool.map(lambda block: [function(item) for item in block], blocks))

  def pipeline(augment: str):
    with mixture.train_batches(
      [mixture.MixtureTask(name=task, batch_size=_BATCH, augment=augment)],
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
  progress: Log = lambda line: None,
) -> Memory:
  """Runs the augmented pipeline for a while and watches its memory."""
  images = 0
  with mixture.train_batches(
    [mixture.MixtureTask(name=task, batch_size=_BATCH, augment='trivial_augment')],
    data_dir=data_dir,
    image_size=image_size,
    seed=0,
    threads=threads,
  ) as iterator:
    next(iterator)  # Starts the threads.
    early = largest = resident()
    start = last_line = time.perf_counter()
    while (past := time.perf_counter() - start) < seconds:
      next(iterator)
      images += _BATCH
      if past > seconds / 10:
        largest = max(largest, resident())
      else:
        early = largest = resident()
      if time.perf_counter() - last_line > 10:
        last_line = time.perf_counter()
        progress(f'{past:.0f} of {seconds:.0f} s, {images:,} images, {resident():.0f} MiB')
  return Memory(early=early, largest=largest, images=images, seconds=past)


def resident() -> float:
  """MiB of memory that this process uses; where /proc is missing, the most it has used."""
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
