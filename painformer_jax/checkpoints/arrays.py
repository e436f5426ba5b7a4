"""Arrays in a folder, as an Orbax checkpoint: written from the host, read to the host."""

import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from painformer_jax.checkpoints.orbax_errors import first_line, reason

# What Orbax puts into one file, about.
_FILE_BYTES = 2**30


def write_arrays(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays to a new folder.

  Args:
    folder: absolute; it must not exist, its parent must.
    arrays: name -> array of numbers, of any shape.

  Raises:
    OSError: the disk is full, or the folder cannot be written; `strerror` says which.
  """
  check_space(folder.parent, sum(array.nbytes for array in arrays.values()))
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(folder, dict(arrays))
  except ValueError as error:  # Of the storage library below Orbax.
    raise OSError(errno.EIO, reason(error)) from error


def check_space(folder: pathlib.Path, size: int) -> None:
  """Asserts that a disk has room, and takes files that large.

  Where Orbax finds a full disk itself, its threads write on after the save has failed, and
  print an error for each array.

  Args:
    folder: on the disk.
    size: bytes that are to be written.

  Raises:
    OSError: there is no room.
  """
  if shutil.disk_usage(folder).free < size:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with tempfile.TemporaryFile(dir=folder) as file:
    file.truncate(min(size, _FILE_BYTES))  # Takes no space, but fails above a limit.


def read_arrays(folder: pathlib.Path, *, choose: Callable[[dict], dict] = dict) -> dict:
  """Reads an Orbax checkpoint of arrays, or some of it, to the host.

  Args:
    folder: of the checkpoint.
    choose: takes the tree of all that is stored (nested dicts; a leaf describes an
      array), and returns the part of it to read.

  Returns:
    The chosen tree with NumPy arrays as leaves, of the shapes and dtypes that are stored.

  Raises:
    ValueError: something is missing or damaged; in one line.
  """
  reader = ocp.PyTreeCheckpointHandler()
  path = epath.Path(folder.absolute())
  try:
    wanted = choose(reader.metadata(path).tree)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    return reader.restore(
      path, args=ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
    )
  except Exception as error:  # Orbax raises many kinds of errors for damaged files.
    raise ValueError(first_line(error)) from error
  finally:
    reader.close()
