"""Writes .pth files that PyTorch reads, with no PyTorch installed."""

import math
import os
import struct
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.targets import NAME, FileKind, begins, check_file_target
from painformer_jax.weights import trained_on
from painformer_jax.weights.model_record import KEY
from painformer_jax.weights.torch.records import STORAGES
from painformer_jax.weights.trained_on import TrainedOn

# The folder in the archive, any name to PyTorch, is also the mark of our files.
_FOLDER = NAME
KIND = FileKind(
  suffixes=('.pth', '.pt'), is_own=begins(rb'PK\x03\x04.{26}' + f'{_FOLDER}/'.encode())
)

# PyTorch pads each member so that its data begins at a multiple of this.
_ALIGNMENT = 64

# The archive format version that PyTorch 1.6 to the present write.
_VERSION = b'3\n'

_CLASSES = {dtype: storage for storage, dtype in STORAGES.items() if dtype is not None}


def check_target(path: str | os.PathLike, *, inputs: Iterable[str | os.PathLike] = ()) -> None:
  """Refuses a path that `write_pth` would refuse, or that is read.

  Raises:
    InputError: see `check_file_target`.
  """
  check_file_target(path, KIND, inputs=inputs)


def write_pth(
  path: str | os.PathLike,
  tensors: Mapping[str, np.ndarray],
  *,
  container: str = 'model_state_dict',
  record: Mapping[str, Any] | None = None,
  tuned_on: Sequence[TrainedOn] = (),
) -> None:
  """Writes a file that `torch.load(path, weights_only=True)` reads.

  The same input gives the same bytes. Every tensor has its own storage, is
  contiguous, and asks for no gradient, as in a saved state dict.

  Args:
    path: of the file, replaced as a whole or left alone.
    tensors: name -> array; floats of 16 to 64 bits, bfloat16, signed
      integers, uint8, bool, complex.
    container: top-level key to put them under; '' for a bare state dict.
    record: plain values (`model_record.to_json`) for a second top-level key, `model_record.KEY`,
      which PyTorch reads too; None for none. A bare state dict has no place for it.
    tuned_on: whom they were fine-tuned on, in a member that PyTorch does not read.

  Raises:
    InputError: an element type has no PyTorch storage class, the file exists and was not
      written by this function, or it cannot be written; nothing is left behind.
  """
  check_target(path)
  arrays = {}
  for name, array in tensors.items():
    array = np.asarray(array)
    if array.dtype.name not in _CLASSES:
      raise InputError(
        f"tensor '{name}' has the element type {array.dtype}, which a .pth "
        'file cannot hold; convert it first'
      )
    arrays[name] = array
  if record is not None and not container:
    raise ValueError('a bare state dict has no place for a record')
  program = _program(arrays, container, record)
  write_atomically(path, lambda file: _write_archive(file, program, arrays, tuned_on))


def _write_archive(
  file: BinaryIO, program: bytes, arrays: Mapping[str, np.ndarray], tuned_on: Sequence[TrainedOn]
) -> None:
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
    _add(archive, 'data.pkl', program)
    _add(archive, 'byteorder', b'little')
    for index, array in enumerate(arrays.values()):
      _add(archive, f'data/{index}', _little_endian(array))
    _add(archive, 'version', _VERSION)
    if tuned_on:
      _add(archive, trained_on.MEMBER, trained_on.to_text(tuned_on).encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
  """Adds a member whose data is aligned and whose header has no clock."""
  entry = zipfile.ZipInfo(f'{_FOLDER}/{name}')  # dated 1980-01-01
  entry.create_system = 0
  header_end = archive.fp.tell() + 30 + len(entry.filename) + 4
  padding = -header_end % _ALIGNMENT
  entry.extra = struct.pack('<2sH', b'FB', padding) + b'Z' * padding
  archive.writestr(entry, content)


def _little_endian(array: np.ndarray) -> bytes:
  if array.dtype.byteorder == '>' or (array.dtype.byteorder == '=' and sys.byteorder == 'big'):
    array = array.byteswap()
  return array.tobytes()


def _program(
  arrays: Mapping[str, np.ndarray], container: str, record: Mapping[str, Any] | None
) -> bytes:
  """The pickle of an OrderedDict of tensors, as torch.save describes them."""
  items = [
    _text(name) + _tensor(array, index) for index, (name, array) in enumerate(arrays.items())
  ]
  state = _EMPTY_ORDERED_DICT + b'(' + b''.join(items) + b'u'
  if container:
    beside = b'' if record is None else _text(KEY) + _plain(record)
    state = b'}(' + _text(container) + state + beside + b'u'
  return b'\x80\x02' + state + b'.'


def _tensor(array: np.ndarray, index: int) -> bytes:
  strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
  storage = (
    _tuple(
      _text('storage'),
      _global(_CLASSES[array.dtype.name]),
      _text(str(index)),
      _text('cpu'),
      _number(array.size),
    )
    + b'Q'
  )
  arguments = _tuple(
    storage,
    _number(0),
    _tuple(*map(_number, array.shape)),
    _tuple(*map(_number, strides)),
    b'\x89',
    _EMPTY_ORDERED_DICT,
  )
  return _global('torch._utils._rebuild_tensor_v2') + arguments + b'R'


def _plain(value: Any) -> bytes:
  """A value that JSON can hold."""
  if isinstance(value, Mapping):
    return b'}(' + b''.join(_text(key) + _plain(part) for key, part in value.items()) + b'u'
  if isinstance(value, list):
    return b'](' + b''.join(map(_plain, value)) + b'e'
  if isinstance(value, bool):
    return b'\x88' if value else b'\x89'
  if isinstance(value, float):
    return struct.pack('>cd', b'G', value)
  return _number(value) if isinstance(value, int) else _text(value)


def _global(name: str) -> bytes:
  module, _, name = name.rpartition('.')
  return f'c{module}\n{name}\n'.encode()


def _tuple(*items: bytes) -> bytes:
  return b'(' + b''.join(items) + b't'


def _text(text: str) -> bytes:
  content = text.encode('utf-8', 'surrogatepass')
  return struct.pack('<cI', b'X', len(content)) + content


def _number(value: int) -> bytes:
  if value < 1 << 31:
    return struct.pack('<ci', b'J', value)
  return struct.pack('<cBq', b'\x8a', 8, value)


_EMPTY_ORDERED_DICT = _global('collections.OrderedDict') + b')R'
