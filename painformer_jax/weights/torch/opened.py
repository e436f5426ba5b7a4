"""A file of weights that was read, with its tensors still where they stand in it."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Mapping

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.weights.trained_on import TrainedOn

# The released file has 75 MB; a training state of any preset has under 1 GB.
MAX_FILE_BYTES = 4 << 30

# Tensors of a file, in whatever format. A PainFormer has 375, its optimizer twice as many.
MAX_TENSORS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedFile:
  """What one file or folder holds.

  Attributes:
    kind: its format, such as 'safetensors file'.
    root: nested dicts, lists, tuples and objects of `records`, whose tensors are arrays or
      records.
    arrays: reads the tensors of a state dict: name -> tensor to name -> array. Arrays are
      C-contiguous, in this machine's byte order, and of the file's element type.
    sha256: of the file, in hexadecimal; of a folder, of its files one after the other.
    size: bytes of the file, or of the folder's files.
    trained_on: whom the weights were fine-tuned on, where this package wrote the file.
    record: what the file says about its model, where this package wrote it: text, or plain
      values; None for nothing.
  """

  kind: str
  root: object
  arrays: Callable[[Mapping], dict[str, np.ndarray]]
  sha256: str
  size: int
  trained_on: tuple[TrainedOn, ...] = ()
  record: object = None


def content_of(path: str | os.PathLike, *, most: int = MAX_FILE_BYTES) -> bytes:
  """The content of a regular file that is not empty.

  Args:
    path: of the file.
    most: bytes that it may have.

  Raises:
    InputError: there is no such file, it cannot be read, or it is larger or empty.
  """
  try:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
      raise InputError(f'{path} is a folder; give the .pth or .safetensors file in it')
    if not stat.S_ISREG(status.st_mode):
      raise InputError(f'{path} is not a regular file; copy it to one first')
    if status.st_size > most:
      raise InputError(
        f'{path} has {status.st_size:,} bytes, more than the '
        f'{most:,} that are read; save the weights alone'
      )
    content = pathlib.Path(path).read_bytes()
  except (FileNotFoundError, NotADirectoryError) as error:
    raise InputError(f'{path} does not exist; check the path') from error
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  if not content:
    raise InputError(f'{path} is empty; download or save it again')
  return content
