"""How far long work is, how fast it goes and when it ends: bars on a terminal, lines elsewhere.

Commands pass `log`, which writes to standard error. Where that is a terminal, `Meter` and
`waiting` draw bars there, by rich; NO_COLOR in the environment leaves the colours out.
Everywhere else, and for any other `report`, they give a line every few seconds.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 5.0

# Gets a line of text, such as progress or a warning.
Log = Callable[[str], None]


def log(line: str) -> None:
  """Prints a line on standard error, above the bars if there are any."""
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
def waiting(what: str, report: Log) -> Iterator[None]:
  """Shows, while the block runs, that work without a known end continues.

  Args:
    what: the work, such as 'lists photos/'.
    report: takes the lines.
  """
  start, over = time.monotonic(), threading.Event()

  def lines():
    while not over.wait(SECONDS_BETWEEN_LINES):
      report(f'{what}, for {duration(time.monotonic() - start)}')

  def bar(display):
    task = display.add_task(what, total=None, text='')
    while not over.wait(1.0):
      display.update(task, text=duration(time.monotonic() - start))

  with _display(report) as display:
    thread = threading.Thread(
      target=bar if display else lines, args=(display,) if display else (), daemon=True
    )
    thread.start()
    try:
      yield
    finally:
      over.set()
      thread.join()


class Meter:
  """Counts what is done of a known number; a context manager, within which it is shown.

  The rate starts with the first call of `add`, since what comes before it often compiles
  a program or opens files.

  Args:
    total: how many there are to do, as far as is known.
    report: takes the lines.
    what: plural noun of what is counted.
    prefix: begins every line, such as 'tiny: '.
    done: how many an earlier run did; they count as done, not for the rate.

  Attributes:
    done: how many are done.
  """

  def __init__(
    self, total: int, report: Log, *, what: str = 'images', prefix: str = '', done: int = 0
  ):
    self.done = done
    self._total, self._report = total, report
    self._what, self._prefix = what, prefix
    self._start, self._last_line = None, time.monotonic()
    self._closing, self._bar = contextlib.ExitStack(), None

  def __enter__(self) -> 'Meter':
    if display := self._closing.enter_context(_display(self._report)):
      name = self._prefix.rstrip(': ')
      bar = display.add_task(name, total=self._total or None, completed=self.done, text='')
      self._closing.callback(display.remove_task, bar)
      self._bar = lambda text: display.update(bar, completed=self.done, text=text)
    return self

  def __exit__(self, *exc_info) -> None:
    self._closing.close()

  def add(self, count: int = 1) -> None:
    """Counts `count` more as done."""
    self.done += count
    now = time.monotonic()
    if self._start is None:
      self._start, self._first = now, self.done
    elif self._bar:
      self._bar(self._text(now))
    elif now - self._last_line >= SECONDS_BETWEEN_LINES:
      self._last_line = now
      self._report(self._prefix + self._text(now))

  def _text(self, now: float) -> str:
    rate = (self.done - self._first) / max(now - self._start, 1e-9)
    speed = f'{rate:,.1f} {self._what}/s'
    if self.done > self._total:  # Files that do not say how long they are have more.
      return f'{self.done:,} {self._what}  {speed}'
    left = (self._total - self.done) / rate if rate else float('inf')
    return f'{self.done:,} of {self._total:,} {self._what}  {speed}  eta {duration(left)}'


@contextlib.contextmanager
def _display(report: Log) -> Iterator:
  """A rich.progress.Progress while the block runs; None where lines are due."""
  global _shown
  if report is not log or not sys.stderr.isatty() or os.environ.get('TERM') == 'dumb':
    yield None
  elif _shown:  # A second bar joins the first one's display.
    yield _shown
  else:
    # Imported here because it takes a while and is of use on terminals only.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn('{task.description}', markup=False), BarColumn())
    text = TextColumn('{task.fields[text]}', markup=False)
    # What standard output gets may go to a file: it stays as it is.
    with Progress(
      *columns, text, console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as _shown:
      try:
        yield _shown
      finally:
        _shown = None


_shown = None
