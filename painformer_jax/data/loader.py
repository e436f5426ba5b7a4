"""Loads batches ahead of time, in threads or in processes with threads of their own."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator

import grain
import numpy as np
from absl import flags

from painformer_jax.core.errors import InputError
from painformer_jax.core.memory import LARGEST_IMAGE, keep_freed_memory

Batch = dict[str, dict[str, np.ndarray]] | dict[str, np.ndarray]


class Batches(Iterator):
  """An iterator over the batches of consecutive steps; close it, or use it in `with`.

  The number of threads and processes changes neither a batch nor the order of batches.
  From here on the process keeps memory that it frees for its next arrays, up to about
  60 MiB a thread.

  Args:
    batch: makes the batch of a step; must be picklable where there are workers.
    start, stop: the steps, in [start, stop).
    threads: of this process, or of each worker; each makes one batch at a time. By
      default one a core, at most 16; of a worker one.
    prefetch: batches that are ready or being made, in this process or each worker; by
      default threads + 2.
    workers: processes that make batches. Python runs one thread at a time, so a process
      makes about a thousand images a second, however many cores there are.

  Raises:
    InputError: a number out of range; while iterating, what `batch` raises, and where a
      worker process was killed.
  """

  def __init__(
    self,
    batch: Callable[[int], Batch],
    *,
    start: int,
    stop: int,
    threads: int | None = None,
    prefetch: int | None = None,
    workers: int = 0,
  ):
    if threads is None:
      threads = 1 if workers else min(16, os.cpu_count() or 1)
    prefetch = threads + 2 if prefetch is None else prefetch
    if threads < 1 or prefetch < 1 or workers < 0:
      raise InputError(
        f'threads ({threads}) and prefetch ({prefetch}) must be at least 1, workers '
        f'({workers}) at least 0'
      )
    self._closed, self._shared = False, workers > 0
    keep_freed_memory(blocks=LARGEST_IMAGE)
    steps = (
      grain.MapDataset.range(start, stop)
      .map(batch)
      .to_iter_dataset(
        grain.ReadOptions(num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch)
      )
    )
    if workers:
      if not flags.FLAGS.is_parsed():  # Grain asks for its own, which stay as they are.
        flags.FLAGS.mark_as_parsed()
      steps = steps.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1),
        worker_init_fn=_begin_worker,
      )
    self._iterator = iter(steps)

  def __next__(self) -> Batch:
    if self._closed:
      raise StopIteration
    try:
      batch = next(self._iterator)
      return _copied(batch) if self._shared else batch
    except RuntimeError as error:
      if 'terminated unexpectedly' not in str(error):
        raise
      raise InputError(
        f'a worker process was killed ({str(error).split(". ")[0]}): batches take space in '
        '/dev/shm, which is small in containers, and in memory; enlarge it (docker run '
        '--shm-size=8g) or take fewer workers'
      ) from error

  def close(self) -> None:
    """Ends the iterator; threads and processes end after the batch that they are making."""
    self._closed = True
    if self._iterator is not None:
      self._iterator.close()
    # Grain's iterators print errors where they are garbage-collected at exit.
    self._iterator = None

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()


def _copied(batch: dict) -> dict:
  """A copy of the batch, so that its shared memory is free again at once."""
  return {
    name: _copied(part) if isinstance(part, dict) else np.array(part)
    for name, part in batch.items()
  }


def _begin_worker(index: int, count: int) -> None:
  """Leaves signals, which shells and schedulers send to every process of a job, to the
  process that waits for batches, and ends with it."""
  del index, count
  keep_freed_memory(blocks=LARGEST_IMAGE)
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os._exit(1)
