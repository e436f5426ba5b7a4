"""Orbax's errors in one line, and no pages of its log before them.

Orbax logs every error with its call stack and then raises it. This package reports the
error itself, so commands drop whatever Orbax logs below a critical error. When several
arrays of a checkpoint fail at the same time, the storage library below Orbax may still
print the call stacks of all but the first.
"""

import logging
import re


def _keep(record: logging.LogRecord) -> bool:
  return record.levelno >= logging.CRITICAL or 'orbax' not in record.pathname


def drop_log() -> None:
  """Drops what Orbax logs in this process; for programs, not for libraries."""
  logging.getLogger('absl').addFilter(_keep)


def first_line(error: Exception) -> str:
  """What an error says, in one line without call stacks and long paths."""
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  if isinstance(error, KeyError):
    return f'{line} is missing'
  # Of the storage library: 'DATA_LOSS: Error opening ... "params.a/.zarray" in ...'.
  if found := re.match(r'([A-Z_]+): .*?Error reading "([^"]+?)(/\.z\w+|/[\d.]+)?" in ', line):
    return f'{found[1].lower().replace("_", " ")} in {found[2]}'
  return line[:300]


def reason(error: Exception) -> str:
  """The operating system's reason why a save failed, such as 'No space left on device'."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # Of the storage library: '...: No space left on device [os_error_code=28] ...'.
  found = re.search(r': ([^:\[\]]+) \[os_error_code=', str(error))
  return found[1] if found else first_line(error)
