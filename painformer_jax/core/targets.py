"""What may be written to: no file that is read, nothing that this program did not write.

Each kind of file that commands write for users is known again by its form: the name of this
package stands where no other program puts it. A file of the same kind may be replaced by a
new result; an empty file may be, since nothing is lost; every other file is refused. Files in
folders that belong to this program (runs, caches) need no mark.
"""

import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable
from typing import BinaryIO

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import file_target, is_stream
from painformer_jax.core.version import VERSION

NAME = 'painformer_jax'
# The first field of JSON objects and .npz files.
VERSION_FIELD = {NAME: VERSION}
# A folder that holds it is a weights folder, written and replaced as a whole.
WEIGHTS = 'painformer.json'

_HEAD = 8192  # Bytes that `begins` looks at.


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileKind:
  """A kind of file that a command writes.

  Attributes:
    suffixes: that its name may have, in small letters.
    is_own: whether an existing file, open for reading and not empty, is of this kind and
      written by this program. Any exception means that it is not.
  """

  suffixes: tuple[str, ...]
  is_own: Callable[[BinaryIO], bool]


def begins(pattern: bytes) -> Callable[[BinaryIO], bool]:
  """Whether a file begins with what a regular expression says."""
  return lambda file: re.match(pattern, file.read(_HEAD), re.DOTALL) is not None


def json_fields(kind: str) -> dict[str, str]:
  """The first fields of a JSON object that `json_kind(kind)` knows again."""
  return {**VERSION_FIELD, 'file': kind}


def json_kind(kind: str) -> FileKind:
  """JSON files, or lists of objects, that begin with `json_fields(kind)`."""
  pattern = rf'\s*\[?\s*{{\s*"{NAME}": "[^"]*",\s*"file": "{re.escape(kind)}"'
  return FileKind(suffixes=('.json',), is_own=begins(pattern.encode()))


def check_file_target(
  path: str | os.PathLike, kind: FileKind, *, inputs: Iterable[str | os.PathLike] = ()
) -> pathlib.Path:
  """The path that `write_atomically` would write to, links followed.

  Args:
    path: of the file to write.
    kind: of file that it will be; an existing one is replaced only by one of its kind.
    inputs: files and folders that are read; none may be the target.

  Raises:
    InputError: its suffix is of another kind; it is an input, or was not written by this
      program; it is a folder, a socket or a disk, its name is too long, or its folder is
      missing, not writable or a weights folder.
  """
  check_suffix(path, kind.suffixes)
  check_is_no_input(path, inputs)
  target = file_target(path)
  if is_stream(target):
    return target
  check_folder(target.parent, path)
  if (target.parent / WEIGHTS).exists():
    raise InputError(f'{path} lies in a weights folder, which holds nothing else: name another')
  if not _is_replaceable(target, kind):
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
    own: files that it may hold, below it, all written by this program; the caller knows
      that what holds them is its own.
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
      below = (entry.relative_to(target) for entry in target.rglob('*') if not _is_folder(entry))
      if others := sorted(str(entry) for entry in below if str(entry) not in own):
        raise InputError(
          f'{path} holds {others[0]!r}, of which is not known that painformer wrote it: '
          'name a new folder'
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


def check_lies_apart(path: str | os.PathLike, folder: str | os.PathLike) -> None:
  """Refuses a file that is, or lies in, a folder which is written as a whole.

  Raises:
    InputError: it does.
  """
  target, whole = (pathlib.Path(os.path.realpath(p)) for p in (path, folder))
  if whole in (target, *target.parents):
    raise InputError(f'{path} lies in {folder}, which is written as a whole: name another file')


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


def _is_folder(path: pathlib.Path) -> bool:
  return path.is_dir() and not path.is_symlink()


def _is_replaceable(target: pathlib.Path, kind: FileKind) -> bool:
  try:
    if not target.stat().st_size:
      return True
    with target.open('rb') as file:
      return kind.is_own(file)
  except FileNotFoundError:
    return True
  except Exception:  # Whatever a reader makes of a file that is not its own.
    return False
