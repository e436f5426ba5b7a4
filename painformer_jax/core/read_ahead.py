"""Reads in threads, and hands on in order."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')

ITEMS_AHEAD = 64  # Of each thread.


def read_ahead(
  items: Sequence[T], start: Callable[[], Callable[[T], Iterator]], *, threads: int
) -> Iterator:
  """What reading item after item gives, in the items' order.

  Every thread reads each `threads`-th item into a short queue of its own; the
  queues are emptied in turn. Close the iterator, and the threads end.

  Args:
    items: what to read.
    start: called once in each thread, gives the function that reads an item: an
      iterator of anything whose last part, and no other, is a list.
    threads: at most; no more than items.
  """
  threads = max(min(threads, len(items)), 1)
  queues = [queue.Queue(ITEMS_AHEAD) for _ in range(threads)]
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
    except _Stopped:
      pass
    except BaseException as error:  # Raised again in the thread that waits.
      with contextlib.suppress(_Stopped):
        put(number, error)

  workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
  for worker in workers:
    worker.start()
  try:
    for position in range(len(items)):
      while True:
        part = queues[position % threads].get()
        if isinstance(part, BaseException):
          raise part
        yield part
        if isinstance(part, list):
          break
  finally:
    stop.set()
    for worker in workers:
      worker.join()


class _Stopped(Exception):
  """Nobody waits for more."""
