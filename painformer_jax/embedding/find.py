"""Files to embed, among paths and in folders."""

import dataclasses
import errno
import os
import pathlib
import stat
from collections import Counter
from collections.abc import Iterable

from painformer_jax.core.folders import left_out_line, list_folder
from painformer_jax.core.number_layout import holds_numbers
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.modalities import images


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundFiles:
  """What was found.

  Attributes:
    files: in a stable order.
    problems: a line for each input that is not there or holds nothing, for each entry of a
      folder that cannot be read, and for images that need a package.
    left_out: kind -> how many files of the folders were left out, see `core.folders`.
  """

  files: list[str] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)
  left_out: Counter[str] = dataclasses.field(default_factory=Counter)

  @property
  def remark(self) -> str:
    """What was left out of the folders, in words; '' for nothing."""
    line = left_out_line(self.left_out)
    return f'left out of the folders: {line}' if line else ''


def find_files(
  inputs: Iterable[str | os.PathLike], *, suffixes: frozenset[str] = PictureReader.suffixes
) -> FoundFiles:
  """Files among the inputs and in their folders.

  Args:
    inputs: files of any name, and folders; of these, all files with the suffixes at any
      depth, sorted by path, also in linked folders, without hidden ones, and of .txt files
      those that hold a table of numbers.
    suffixes: lower-case, with the dot; images and videos by default.
  """
  found = FoundFiles()
  for name in map(str, inputs):
    try:
      is_folder = stat.S_ISDIR(os.stat(name).st_mode)
    except (FileNotFoundError, NotADirectoryError):
      found.problems.append(f'{name} does not exist')
    except OSError as error:
      found.problems.append(f'{name} cannot be read: {error.strerror}')
    else:
      if is_folder:
        _add_folder(name, suffixes, found)
      else:
        found.files.append(name)
  return found


def _add_folder(name: str, suffixes: frozenset[str], found: FoundFiles) -> None:
  missing = images.suffixes_without_package() & suffixes
  listing = list_folder(name, suffixes=suffixes)
  files = [str(pathlib.Path(name, path)) for path in listing.files]
  texts = [f for f in files if f.lower().endswith(('.txt', '.txt.gz')) and not holds_numbers(f)]
  if texts:
    listing.left_out['.txt without numbers'] += len(texts)
    files = [file for file in files if file not in texts]
  readable = [file for file in files if pathlib.Path(file).suffix.lower() not in missing]
  problems = [_problem(error) for error in listing.errors]
  if len(readable) < len(files):
    problems.append(
      f'{name}: {len(files) - len(readable)} HEIC images are left out; they need the package '
      f"pillow-heif: pip install '.[{images.HEIC_EXTRA}]' in the clone of painformer_jax"
    )
  found.files.extend(readable)
  found.problems.extend(problems)
  found.left_out.update(listing.left_out)
  if not readable and not problems:
    what = (
      'image or video'
      if suffixes == PictureReader.suffixes
      else f'file that ends in {", ".join(sorted(suffixes))}'
    )
    left_out = left_out_line(listing.left_out)
    found.problems.append(f'{name} holds no {what}' + (f', only {left_out}' if left_out else ''))


def _problem(error: OSError) -> str:
  if error.errno == 0:
    return f'{error.filename} is {error.strerror}'
  if error.errno == errno.ENOENT:
    return f'{error.filename} is a link to what does not exist'
  return f'{error.filename} cannot be read: {error.strerror}'
