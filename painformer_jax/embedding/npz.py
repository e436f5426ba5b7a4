"""A NumPy .npz written row by row, in constant memory."""

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np

from painformer_jax.core.files import check_file_target, copy_to_stream, is_stream, write_error

_CHUNK = 4096  # rows


class NpzWriter:
  """Collects rows in temporary files; `finish` assembles the .npz.

  Nothing is at `path` before the end, and nothing is left behind if the block
  is left by an exception.

  Args:
    path: of the .npz; its folder must exist. Links and pipes as in
      `write_atomically`.
    columns: name -> (shape of a row, dtype). Columns of text have dtype str.

  Raises:
    InputError: the folder does not exist or cannot be written.
  """

  def __init__(self, path: str | os.PathLike, columns: Mapping[str, tuple[tuple[int, ...], type]]):
    self._path, self._target = pathlib.Path(path), check_file_target(path)
    self._columns = {name: (shape, dtype) for name, (shape, dtype) in columns.items()}
    try:
      # Beside the target, so that it is on a disk with room and can be renamed.
      self._folder = pathlib.Path(
        tempfile.mkdtemp(
          prefix=f'.{self._path.name[:40]}.',
          dir=None if is_stream(self._target) else self._target.parent,
        )
      )
    except OSError as error:
      raise write_error(path, error) from error
    # Text repeats (a row names its source): stored as a number into a table.
    self._texts: dict[str, dict[str, int]] = {
      name: {} for name, (_, dtype) in columns.items() if dtype is str
    }
    self._files = {name: (self._folder / name).open('wb') for name in columns}
    self.rows = 0

  def append(self, **columns) -> None:
    """Adds rows: each column an array or list of the same length.

    Raises:
      InputError: the disk is full.
    """
    lengths = {len(values) for values in columns.values()}
    if columns.keys() != self._columns.keys() or len(lengths) != 1:
      raise ValueError(f'columns {sorted(columns)} of lengths {sorted(lengths)}')
    try:
      for name, values in columns.items():
        shape, dtype = self._columns[name]
        if dtype is str:
          table = self._texts[name]
          values, shape, dtype = [table.setdefault(v, len(table)) for v in values], (), np.int64
        array = np.ascontiguousarray(np.asarray(values, dtype))
        if array.shape[1:] != shape:
          raise ValueError(f'rows of {name} have shape {array.shape[1:]}, not {shape}')
        self._files[name].write(array.tobytes())
    except OSError as error:
      raise write_error(self._path, error) from error
    self.rows += lengths.pop()

  def finish(self, **scalars) -> None:
    """Writes the .npz under its name, with further small arrays in it.

    Raises:
      InputError: the disk is full.
    """
    assembled = self._folder / 'assembled.npz'
    try:
      for file in self._files.values():
        file.close()
      with zipfile.ZipFile(assembled, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (shape, dtype) in self._columns.items():
          with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
            self._copy(name, shape, dtype, member)
        for name, value in scalars.items():
          buffer = io.BytesIO()
          np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
          archive.writestr(f'{name}.npy', buffer.getvalue())
      if is_stream(self._target):
        with assembled.open('rb') as file:
          copy_to_stream(file, self._target)
      else:
        os.replace(assembled, self._target)
    except OSError as error:
      raise write_error(self._path, error) from error

  def _copy(self, name: str, shape, dtype, member) -> None:
    if dtype is not str:
      _write_header(member, np.dtype(dtype), (self.rows, *shape))
      with (self._folder / name).open('rb') as file:
        shutil.copyfileobj(file, member, 1 << 20)
      return
    texts = np.array(list(self._texts[name]) or [''])
    _write_header(member, texts.dtype, (self.rows,))
    with (self._folder / name).open('rb') as file:
      while chunk := file.read(8 * _CHUNK):
        member.write(texts[np.frombuffer(chunk, np.int64)].tobytes())

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    try:
      for file in self._files.values():
        # On a full disk what is still buffered cannot be written.
        with contextlib.suppress(OSError):
          file.close()
    finally:
      shutil.rmtree(self._folder, ignore_errors=True)


def _write_header(member, dtype: np.dtype, shape: tuple[int, ...]) -> None:
  np.lib.format.write_array_header_1_0(
    member, {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
  )
