"""Keeps what was read from the last few files, for as long as the files do not change."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from painformer_jax.core.errors import InputError

T = TypeVar('T')


class FileCache(Generic[T]):
  """Calls `read(path, **options)` unless its result is kept; safe to call from threads.

  Threads that ask for the same file at once wait for the one that reads it.

  Args:
    read: reads a file; its result is shared, so nobody may change it.
    kept: how many results stay in memory.
  """

  def __init__(self, read: Callable[..., T], *, kept: int):
    self._read, self._kept = read, kept
    self._lock = threading.Lock()
    self._entries: OrderedDict[tuple, _Entry] = OrderedDict()

  def __call__(self, path: str | os.PathLike, **options: Any) -> T:
    """The file's content.

    Raises:
      InputError: the file cannot be read; and what `read` raises.
    """
    path = os.fspath(path)
    key = (path, *sorted(options.items()))
    with self._lock:
      entry = self._entries.setdefault(key, _Entry())
      self._entries.move_to_end(key)
      while len(self._entries) > self._kept:
        self._entries.popitem(last=False)
    with entry.lock:
      try:
        status = os.stat(path)
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != entry.stamp:
          entry.content, entry.stamp = self._read(path, **options), stamp
      except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror or error}') from error
      return entry.content


class _Entry:
  """What is kept of one file."""

  def __init__(self):
    self.lock = threading.Lock()
    self.content = self.stamp = None
