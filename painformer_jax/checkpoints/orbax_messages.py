"""What Orbax says of errors: nothing by itself, and the reason in one line.

What it raises, its threads have printed before, page by page.
"""

import contextlib
import gc
import logging
import re
import sys
import time
import traceback
import warnings


@contextlib.contextmanager
def quiet():
  """Drops what is printed of errors in Orbax, its threads and coroutines.

  In here an error of theirs is raised, or waits for the next call.
  """

  def of_others(log: logging.LogRecord) -> bool:
    return not _OF_ORBAX(f'{log.pathname} {log.getMessage()}')

  def hook(unraisable):
    trace = traceback.extract_tb(unraisable.exc_traceback)
    if not _OF_ORBAX(' '.join([repr(unraisable.object), *(f.filename for f in trace)])):
      previous(unraisable)

  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  previous, sys.unraisablehook = sys.unraisablehook, hook
  for logger in loggers:
    logger.addFilter(of_others)
  try:
    yield
  except Exception:
    gc.collect()
    time.sleep(0.2)  # Reads that are still under way end in this time.
    raise
  finally:
    sys.unraisablehook = previous
    for logger in loggers:
      logger.removeFilter(of_others)


# What `quiet_for_good` was given: where a generator goes, its filters go.
_KEPT = []


def quiet_for_good(entered: contextlib.ExitStack) -> None:
  """Keeps a `quiet` that was entered until the process ends.

  After a save that failed: futures and coroutines that nobody asked for speak when they
  go, which may be as late as that.
  """
  _KEPT.append(entered)
  warnings.filterwarnings('ignore', r"coroutine '.*' was never awaited", RuntimeWarning)


# Where messages come from or what they are about: Orbax, the storage library
# below it, the event loops that run both.
_OF_ORBAX = re.compile(r'orbax|tensorstore|OCDBT|asyncio').search


def first_line(error: Exception) -> str:
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  if isinstance(error, KeyError):
    return f'{line} is missing'
  # Of the storage layer: 'DATA_LOSS: Error opening ... "params.a/.zarray" in ...'.
  if found := re.match(r'([A-Z_]+): .*?Error reading "([^"]+?)(/\.z\w+|/[\d.]+)?" in ', line):
    return f'{found[1].lower().replace("_", " ")} in {found[2]}'
  return line[:300]


def reason(error: Exception) -> str:
  """'No space left on device' out of what the storage layer says."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  found = re.search(r': ([^:\[\]]+) \[os_error_code=', str(error))
  return found[1] if found else first_line(error)
