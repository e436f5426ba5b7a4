"""What may be written to: no file that is read, nothing that this program did not write.

The files that commands write for users begin with a mark, such as the name of this package
in a PNG's `Software` field. A file that has it may be replaced by a new result of the same
kind; an empty file may be, since nothing is lost; every other file is refused. Files in
folders that belong to this program (runs, caches) need no mark.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterable

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import file_target, is_stream
from painformer_jax.core.version import VERSION

NAME = 'painformer_jax'
# The first field of JSON objects and .npz files, and the mark of the former.
JSON_MARK = f'"{NAME}": "'.encode()
VERSION_FIELD = {NAME: VERSION}

_HEAD = 8192  # Bytes in which a mark must be.


def check_file_target(
  path: str | os.PathLike, *, mark: bytes, inputs: Iterable[str | os.PathLike] = ()
) -> pathlib.Path:
  """The path that `write_atomically` would write to, links followed.

  Args:
    path: of the file to write.
    mark: what the first 8 KiB of an existing file must contain if it is to be replaced.
    inputs: files and folders that are read; none may be the target.

  Raises:
    InputError: it is an input, or was not written by this program; it is a folder, a
      socket or a disk, its name is too long, or its folder is missing or not writable.
  """
  check_is_no_input(path, inputs)
  target = file_target(path)
  if is_stream(target):
    return target
  check_folder(target.parent, path)
  if not _is_replaceable(target, mark):
    raise InputError(
      f'{path} exists and is no such file of painformer: name another, or delete it first'
    )
  return target


def check_folder_target(
  path: str | os.PathLike, *, own: Iterable[str], inputs: Iterable[str | os.PathLike] = ()
) -> pathlib.Path:
  """The path of a folder that is to be written or replaced as a whole, links followed.

  Args:
    path: of the folder.
    own: names that it may hold, all written by this program; the caller knows that what
      holds them is its own.
    inputs: files and folders that are read; the folder may neither be nor hold one.

  Raises:
    InputError: it is or holds an input or something else; it is a file, or cannot be
      written.
  """
  target = pathlib.Path(os.path.realpath(path))
  try:
    for name in inputs:
      read = pathlib.Path(os.path.realpath(name))
      if target.is_dir() and read.exists() and target in (read, *read.parents):
        raise InputError(f'{path} holds {name}, which is read: name another folder to write')
    if target.is_dir():
      if others := sorted(entry.name for entry in target.iterdir() if entry.name not in own):
        raise InputError(
          f'{path} holds {others[0]!r}, which painformer did not write: name a new folder'
        )
    elif target.exists():
      raise InputError(f'{path} is a file; name a folder to write')
  except OSError as error:
    raise InputError(f'{path} cannot be written: {error.strerror}; choose another place') from error
  check_folder(target.parent, path)
  return target


def check_is_no_input(path: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
  """Refuses a file to write that is read as well, by whatever name.

  Raises:
    InputError: it is one of `inputs`.
  """
  for name in inputs:
    try:
      same = os.path.samefile(path, name) and not is_stream(pathlib.Path(path))
    except OSError:  # One of them does not exist.
      same = False
    if same:
      raise InputError(f'{path} is read as {name}: name another file to write')


def check_suffix(path: str | os.PathLike, suffixes: Iterable[str]) -> None:
  """Refuses a file whose ending says another format than it would have.

  Streams, such as /dev/stdout, need no ending.

  Args:
    path: of the file to write.
    suffixes: allowed, in small letters.

  Raises:
    InputError: it has another suffix.
  """
  suffixes = tuple(suffixes)
  path = pathlib.Path(path)
  if path.suffix.lower() not in suffixes and not (path.exists() and is_stream(path)):
    named = ' or '.join(filter(None, (', '.join(suffixes[:-1]), suffixes[-1])))
    raise InputError(f'{path} must end in {named}')


def check_folder(folder: pathlib.Path, path: str | os.PathLike) -> None:
  """Asserts that files can be created in the folder of `path`.

  Raises:
    InputError: they cannot, or there is no such folder.
  """
  try:
    if not folder.is_dir():
      raise InputError(f'{path} cannot be written: there is no folder {folder}; make it first')
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise InputError(
      f'{path} cannot be written: no file can be made in {folder} '
      f'({error.strerror}); choose another place'
    ) from error


def _is_replaceable(target: pathlib.Path, mark: bytes) -> bool:
  try:
    with target.open('rb') as file:
      head = file.read(_HEAD)
  except FileNotFoundError:
    return True
  except OSError:
    return False
  return not head or mark in head
