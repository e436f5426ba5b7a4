"""Writing of files and folders that are either whole or absent."""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from painformer_jax.core.errors import InputError

# Held while a finished file or folder gets its name, and by whoever ends the process.
COMMIT = threading.RLock()
_UNFINISHED: set[pathlib.Path] = set()

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
  """Writes a temporary file in the same folder, and renames it when it is complete.

  Args:
    path: of the file; an existing one is replaced, a link is followed. A pipe, a
      terminal or a device like /dev/null is written to and not replaced.
    write: writes the content to the open file that is its argument.

  Raises:
    InputError: the disk is full, the folder is missing or not writable. What was at
      `path` before is unchanged, and no temporary file remains.
  """
  target = file_target(path)
  try:
    if is_stream(target):
      with tempfile.TemporaryFile() as file:
        write(file)
        file.seek(0)
        copy_to_stream(file, target)
      return
    with _unfinished(target) as partial:
      with partial.open('xb') as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
      with COMMIT:
        os.replace(partial, target)
  except OSError as error:
    raise write_error(path, error) from error


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes text as UTF-8, see `write_atomically`; a line break ends it."""
  content = text if text.endswith('\n') else text + '\n'
  write_atomically(path, lambda file: file.write(content.encode()))


def write_json(path: str | os.PathLike, value: object) -> None:
  """Writes what JSON can hold, see `write_atomically`."""
  write_text(path, json.dumps(value, indent=2))


@contextlib.contextmanager
def new_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields an empty temporary folder, and renames it to `target` when the block is done.

  Args:
    target: path of the folder; an existing folder is replaced, but not if the block raises.

  Raises:
    OSError: the folder cannot be made or renamed.
  """
  with _unfinished(target) as partial:
    partial.mkdir(parents=True)
    yield partial
    with COMMIT:
      old = _partial(target)
      if target.exists():
        os.replace(target, old)
      try:
        os.replace(partial, target)
      except BaseException:
        if old.exists():
          os.replace(old, target)
        raise
      _UNFINISHED.add(old)
    _delete(old)
    _UNFINISHED.discard(old)


def is_partial(path: pathlib.Path) -> bool:
  """Whether a file or folder is what a killed process left of one not yet complete."""
  return path.name.startswith('.') and path.suffix == '.partial'


@contextlib.contextmanager
def _unfinished(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a new name beside a file or folder; what has it afterwards is deleted."""
  partial = _partial(target)
  with COMMIT:
    _UNFINISHED.add(partial)
  try:
    yield partial
  finally:
    _delete(partial)
    _UNFINISHED.discard(partial)


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike | None = None) -> Iterator[pathlib.Path]:
  """An empty folder that is deleted after the block, and where a signal ends the process.

  Args:
    parent: where it is made; by default where the system keeps temporary files.
  """
  with _unfinished(pathlib.Path(parent or tempfile.gettempdir(), 'any')) as folder:
    folder.mkdir()
    yield folder


def delete_unfinished() -> None:
  """Deletes what is being written, before the process ends at once; `COMMIT` must be held."""
  for partial in tuple(_UNFINISHED):
    for _ in range(20):
      _delete(partial)
      if not partial.exists():
        break
      time.sleep(0.05)  # Threads may still add to a folder.


def _delete(partial: pathlib.Path) -> None:
  if partial.is_dir() and not partial.is_symlink():
    shutil.rmtree(partial, ignore_errors=True)
  else:
    partial.unlink(missing_ok=True)


def _partial(target: pathlib.Path) -> pathlib.Path:
  """A new name in the folder of a file or folder."""
  return target.with_name(f'.{secrets.token_hex(8)}.partial')


def is_stream(target: pathlib.Path) -> bool:
  """Whether a target is written to in place, since a file cannot replace it.

  Such are pipes, terminals, devices, and files to which standard output or standard
  error is redirected.
  """
  status = _status(target)
  return status is not None and (
    not stat.S_ISREG(status.st_mode) or _standard_stream(status) is not None
  )


def copy_to_stream(file: BinaryIO, target: pathlib.Path) -> None:
  """Copies an open file, from its current position, to a target for which `is_stream` holds.

  Raises:
    OSError: it cannot be written.
  """
  standard = _standard_stream(os.stat(target))
  if standard is None:
    stream = target.open('wb')
  else:
    # Opening the file again would overwrite it from its start.
    sys.stdout.flush()
    stream = os.fdopen(os.dup(standard), 'wb')
  with stream:
    shutil.copyfileobj(file, stream, 1 << 20)


def write_error(path: str | os.PathLike, error: OSError) -> InputError:
  """The error that `path` could not be written, with advice."""
  advice = (
    'free some space or choose another place' if error.errno in _FULL else 'choose another place'
  )
  return InputError(f'{path} cannot be written: {error.strerror or error}; {advice}')


def file_target(path: str | os.PathLike) -> pathlib.Path:
  """The path that `write_atomically` writes to, links followed; nothing is written.

  Raises:
    InputError: it is a folder, a socket or a disk, its name is too long, or its folder is
      missing.
  """
  try:
    status = _status(pathlib.Path(path))
  except OSError as error:
    raise write_error(path, error) from error
  if status is not None:
    if stat.S_ISDIR(status.st_mode):
      raise InputError(f'{path} is a folder; name a file to write')
    if stat.S_ISSOCK(status.st_mode) or stat.S_ISBLK(status.st_mode):
      raise InputError(f'{path} is a socket or a disk; name a file to write')
    if is_stream(pathlib.Path(path)):
      return pathlib.Path(path)  # The target of /dev/stdout may have no path.
  target = pathlib.Path(os.path.realpath(path))
  if not target.parent.is_dir():
    raise InputError(f'{path} cannot be written: there is no folder {target.parent}; make it first')
  return target


def _status(path: pathlib.Path) -> os.stat_result | None:
  """None if nothing is there."""
  try:
    return path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None


def _standard_stream(status: os.stat_result) -> int | None:
  """The descriptor of standard output or error if it is this file, else None."""
  for descriptor in (1, 2):
    with contextlib.suppress(OSError):  # Closed.
      if os.path.samestat(status, os.fstat(descriptor)):
        return descriptor
  return None
