"""Lines that say how far long work is, how fast it goes and when it ends."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 5.0


def log(line: str) -> None:
  """Prints a line where people look while a command works: standard error."""
  print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  """'47s', '3m12s', '5h07m', '2d04h'; '?' where unknown."""
  if seconds != seconds or seconds == float('inf'):
    return '?'
  seconds = int(seconds)
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  if seconds < 86400:
    return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
  return f'{seconds // 86400}d{seconds % 86400 // 3600:02d}h'


@contextlib.contextmanager
def waiting(what: str, report: Callable[[str], None]):
  """Says every few seconds that something whose end is not known goes on."""
  start, over = time.monotonic(), threading.Event()

  def tell():
    while not over.wait(SECONDS_BETWEEN_LINES):
      report(f'{what}, for {duration(time.monotonic() - start)}')

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()


class Meter:
  """Says every few seconds how many of a known number are done.

  The rate is that since the first call of `add`, since what comes before it
  often compiles or opens files.

  Args:
    total: how many there are to do.
    report: takes the lines.
    what: plural noun of what is counted.
    prefix: begins every line, such as 'tiny: '.
    done: how many an earlier run did; part of the share done, not of the rate.
  """

  def __init__(
    self,
    total: int,
    report: Callable[[str], None],
    *,
    what: str = 'images',
    prefix: str = '',
    done: int = 0,
  ):
    self.done = done
    self._total, self._report = total, report
    self._what, self._prefix = what, prefix
    self._start, self._told = None, time.monotonic()

  def add(self, count: int = 1) -> None:
    self.done += count
    now = time.monotonic()
    if self._start is None:
      self._start, self._first = now, self.done
    elif now - self._told >= SECONDS_BETWEEN_LINES:
      self._told = now
      rate = (self.done - self._first) / (now - self._start)
      left = max(self._total - self.done, 0) / rate if rate else float('inf')
      self._report(
        f'{self._prefix}{self.done:,} of {self._total:,} {self._what}  '
        f'{rate:,.1f} {self._what}/s  eta {duration(left)}'
      )
