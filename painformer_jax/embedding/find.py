"""Files to embed, among paths and in folders."""

import os
import pathlib
import stat
from collections.abc import Iterable

from painformer_jax.embedding.pictures import PictureReader


def find_files(
  inputs: Iterable[str | os.PathLike], *, suffixes: frozenset[str] = PictureReader.suffixes
) -> tuple[list[str], list[str]]:
  """Files among the inputs and in their folders, in a stable order.

  Args:
    inputs: files of any name, and folders; of these, all files with the suffixes
      at any depth, sorted by path.
    suffixes: lower-case, with the dot; images and videos by default.

  Returns:
    The files, and a line for each input that is not there or holds nothing, and
    for each entry of a folder that cannot be read.
  """
  files, problems = [], []
  for name in map(str, inputs):
    try:
      is_folder = stat.S_ISDIR(os.stat(name).st_mode)
    except (FileNotFoundError, NotADirectoryError):
      problems.append(f'{name} does not exist')
    except OSError as error:
      problems.append(f'{name} cannot be read: {error.strerror}')
    else:
      if not is_folder:
        files.append(name)
        continue
      found, faults = _in_folder(name, suffixes)
      files += found
      problems += faults
      if not found and not faults:
        what = (
          'image or video'
          if suffixes == PictureReader.suffixes
          else f'file that ends in {", ".join(sorted(suffixes))}'
        )
        problems.append(f'{name} holds no {what}')
  return files, problems


def _in_folder(name: str, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
  """The files at any depth, and a line for each entry that cannot be one."""
  found, problems = [], []

  def unreadable(error: OSError) -> None:
    problems.append(f'{error.filename} cannot be read: {error.strerror}')

  for folder, _, entries in os.walk(name, onerror=unreadable):
    for path in (pathlib.Path(folder, entry) for entry in entries):
      if path.suffix.lower() not in suffixes:
        continue
      try:
        if stat.S_ISREG(os.stat(path).st_mode):
          found.append(str(path))
        else:
          problems.append(f'{path} is no regular file')
      except FileNotFoundError:
        problems.append(f'{path} is a link to what does not exist')
      except OSError as error:
        unreadable(error)
  return sorted(found), sorted(problems)
