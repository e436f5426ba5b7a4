"""Reads items in threads, ahead of who uses them, and yields what they hold in order."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')
Part = TypeVar('Part')

PARTS_AHEAD = 64  # Of each thread.
_END = object()  # Of an item's parts.


def read_ahead(
  items: Sequence[T],
  start: Callable[[], Callable[[T], Iterable[Part]]],
  *,
  threads: int,
  ahead: int = PARTS_AHEAD,
) -> Iterator[Part]:
  """Yields the parts of every item: all parts of the first, then those of the second, ...

  Every thread reads each `threads`-th item into a short queue of its own; the queues are
  emptied in turn. Closing the iterator ends the threads.

  Args:
    items: what to read.
    start: called once in each thread; returns the function that reads an item and gives
      its parts, such as the frames of a video. An iterable of one part will do.
    threads: at most; no more than items.
    ahead: parts that each thread may have ready.

  Raises:
    BaseException: whatever `start` or a read raises, in the item's place.
  """
  threads = max(min(threads, len(items)), 1)
  queues = [queue.Queue(ahead) for _ in range(threads)]
  stop = threading.Event()

  def put(number: int, part) -> None:
    while not stop.is_set():
      try:
        return queues[number].put(part, timeout=0.1)
      except queue.Full:
        pass
    raise _Stopped

  def work(number: int) -> None:
    try:
      read = start()
      for position in range(number, len(items), threads):
        for part in read(items[position]):
          put(number, part)
        put(number, _END)
    except _Stopped:
      pass
    except BaseException as error:  # Raised again in the thread that waits.
      with contextlib.suppress(_Stopped):
        put(number, _Failed(error))

  workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
  for worker in workers:
    worker.start()
  try:
    for position in range(len(items)):
      while (part := queues[position % threads].get()) is not _END:
        if isinstance(part, _Failed):
          raise part.error
        yield part
  finally:
    stop.set()
    for worker in workers:
      worker.join()


class _Stopped(Exception):
  """Nobody waits for more."""


class _Failed:
  """What a thread raised."""

  def __init__(self, error: BaseException):
    self.error = error
