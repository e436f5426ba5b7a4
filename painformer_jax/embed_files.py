"""Images, folders and videos to an .npz of embeddings, streaming."""

import dataclasses
import itertools
import math
import os
import pathlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from painformer_jax.errors import InputError
from painformer_jax.inference import Embedder
from painformer_jax.modalities import images, video
from painformer_jax.models.painformer import PainFormer
from painformer_jax.npz import NpzWriter
from painformer_jax.progress import Meter

_BATCHES_AHEAD = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One image to embed, and what locates it.

  Attributes:
    image: [size, size, 3] uint8.
    source: the file, as it was named.
    frame: number within a video, -1 for a still image.
    time: seconds within a video, nan for a still image.
  """

  image: np.ndarray
  source: str
  frame: int = -1
  time: float = math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """What became of the inputs: rows written, and a line for each bad file."""

  rows: int
  files: int
  problems: tuple[str, ...]


def find_files(inputs: Iterable[str | os.PathLike]) -> tuple[list[str], list[str]]:
  """Files among the inputs and in their folders, in a stable order.

  Args:
    inputs: files of any name, and folders; of these, all images and videos
      (told by their suffix) at any depth, sorted by path.

  Returns:
    The files, and a line for each input that is not there or holds nothing.
  """
  files, problems = [], []
  for name in map(str, inputs):
    path = pathlib.Path(name)
    if path.is_dir():
      found = sorted(str(p) for p in path.rglob('*') if p.is_file()
                     and p.suffix.lower() in images.SUFFIXES | video.SUFFIXES)
      files += found
      if not found:
        problems.append(f'{name} holds no image or video')
    elif path.exists():
      files.append(name)
    else:
      problems.append(f'{name} does not exist')
  return files, problems


def embed_files(model: PainFormer, inputs: Sequence[str | os.PathLike], out: str | os.PathLike, *,
                batch_size: int = 16, every: int = 1, description: str = '',
                say: Callable[[str], None] = lambda line: None) -> Summary:
  """Embeds everything and writes one .npz.

  Arrays: `embedding` [n, 160] float32, `source` [n] str, `frame` [n] int64 and
  `time` [n] float64 (see `Row`), and `weights`, a string.

  Args:
    model: from `load`.
    inputs: images, videos, folders.
    out: the .npz; written under its name once whole.
    batch_size: images at once.
    every: embeds every so many frames of a video.
    description: of the weights, kept with the embeddings.
    say: told about bad files and progress.

  Returns:
    What was written and what was not: unreadable files are skipped, of damaged
    videos the readable frames are kept.

  Raises:
    InputError: nothing could be read, or `out` cannot be written.
  """
  files, problems = find_files(inputs)
  for problem in problems:
    say(problem)
  columns = {'embedding': ((model.config.embedding_width,), np.float32),
             'source': ((), str), 'frame': ((), np.int64), 'time': ((), np.float64)}
  embedder = Embedder(model, batch_size=batch_size)
  with NpzWriter(out, columns) as writer:
    meter = Meter(_count(files, every=every), say)

    def report(problem: str) -> None:
      problems.append(problem)
      say(problem)

    rows = _rows(files, image_size=model.config.image_size, every=every, report=report)
    for batch in _ahead(_batched(rows, batch_size)):
      writer.append(
          embedding=embedder(np.stack([row.image for row in batch])),
          source=[row.source for row in batch], frame=[row.frame for row in batch],
          time=[row.time for row in batch])
      meter.add(len(batch))
    if not writer.rows:
      raise InputError(
          f'nothing to embed: none of the {len(files)} files could be read; {out} was not written')
    writer.finish(weights=description)
    return Summary(rows=writer.rows, files=len(files), problems=tuple(problems))


def _rows(files: Iterable[str], *, image_size: int, every: int,
          report: Callable[[str], None]) -> Iterator[Row]:
  """Decodes file after file; a file's trouble is reported and passed over."""
  for name in files:
    try:
      if _is_video(name):
        for frame in video.frames(name, every=every):
          yield Row(image=images.squash(frame.image, image_size), source=name,
                    frame=frame.number, time=frame.time)
      else:
        yield Row(image=images.read_image(name, image_size=image_size), source=name)
    except InputError as error:
      report(str(error))


def _is_video(name: str) -> bool:
  """By suffix; a file of another suffix is one if its frames can be counted."""
  suffix = pathlib.Path(name).suffix.lower()
  if suffix in images.SUFFIXES | video.SUFFIXES:
    return suffix in video.SUFFIXES
  return video.count_frames(name) > 1


def _batched(rows: Iterator[Row], size: int) -> Iterator[tuple[Row, ...]]:
  while batch := tuple(itertools.islice(rows, size)):
    yield batch


def _ahead(batches: Iterator) -> Iterator:
  """Runs an iterator in a thread, a few items ahead of its reader."""
  items, stop, end = queue.Queue(_BATCHES_AHEAD), threading.Event(), object()

  def put(item) -> bool:
    while not stop.is_set():
      try:
        items.put(item, timeout=0.1)
        return True
      except queue.Full:
        pass
    return False

  def work():
    try:
      for batch in batches:
        if not put((batch, None)):
          return
      put((end, None))
    except BaseException as error:  # Raised again in the reader's thread.
      put((end, error))

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  try:
    while True:
      batch, error = items.get()
      if error is not None:
        raise error
      if batch is end:
        return
      yield batch
  finally:
    stop.set()
    thread.join()


def _count(files: Sequence[str], *, every: int) -> int:
  """How many rows the files will make, as far as their headers say."""
  return sum(
      max(1, -(-video.count_frames(f) // every)) if _is_video(f) else 1 for f in files)
