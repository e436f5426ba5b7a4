"""Files that are either whole or absent."""

import os
import pathlib
import secrets
from collections.abc import Callable
from typing import BinaryIO

from painformer_jax.errors import InputError


def write_atomically(
    path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
  """Writes a file beside its place and moves it there when it is complete.

  Args:
    path: of the file; an existing one is replaced, a link is followed.
    write: writes the content to the open file that it is given.

  Raises:
    InputError: the disk is full, the folder is missing or may not be written
      to; what was at `path` before is untouched and nothing new remains.
  """
  target = check_file_target(path)
  partial = target.with_name(f'.{secrets.token_hex(8)}.partial')
  try:
    try:
      with partial.open('xb') as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
      os.replace(partial, target)
    finally:
      partial.unlink(missing_ok=True)
  except OSError as error:
    raise InputError(
        f'{path} cannot be written: {error.strerror}; free some space or '
        'choose another place') from error


def check_file_target(path: str | os.PathLike) -> pathlib.Path:
  """The place that `write_atomically` would write to, links followed.

  Raises:
    InputError: it is a folder, or lies in one that does not exist.
  """
  target = pathlib.Path(os.path.realpath(path))
  if target.is_dir():
    raise InputError(f'{path} is a folder; name a file to write')
  if not target.parent.is_dir():
    raise InputError(
        f'{path} cannot be written: there is no folder {target.parent}; make '
        'it first')
  return target
