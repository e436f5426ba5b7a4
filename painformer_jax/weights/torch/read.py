"""Reads PyTorch and safetensors weights without PyTorch.

`read` recognises the two formats by their content, never by the file's name. A
PyTorch file must be what `torch.save` has written since version 1.6 (a zip
archive). Its pickle is interpreted, never executed (see `pickle`), and every
size is checked against the file before anything is allocated.
"""

import dataclasses
import hashlib
import math
import os
import pathlib
import stat

import ml_dtypes
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.weights import safetensors_file, trained_on
from painformer_jax.weights.torch import pickle as torch_pickle
from painformer_jax.weights.torch.records import DTYPES, TensorRecord, printable
from painformer_jax.weights.torch.zip import TorchArchive
from painformer_jax.weights.trained_on import TrainedOn

# The released file has 75 MB; a training state of any preset has under 1 GB.
MAX_FILE_BYTES = 4 << 30

# Top-level keys that may hold the state dict, in order of preference.
CONTAINERS = ('model_state_dict', 'state_dict', 'model')

# What wrappers (DataParallel, torch.compile) add to every name.
_WRAPPERS = ('module', '_orig_mod')

_DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in DTYPES.values()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchCheckpoint:
  """The weights of one file.

  Attributes:
    tensors: name -> array, in the order of the file, the names without
      `module.` and `_orig_mod.`. Arrays are C-contiguous, in this machine's
      byte order, and of the file's element type.
    container: top-level key that held the weights, '' for a bare state dict
      or a safetensors file.
    ignored: the other top-level keys.
    sha256: of the whole file, in hexadecimal.
    trained_on: whom the weights were fine-tuned on, where this package wrote the file.
  """

  tensors: dict[str, np.ndarray]
  container: str
  ignored: list[str]
  sha256: str
  trained_on: tuple[TrainedOn, ...] = ()


def read(path: str | os.PathLike) -> TorchCheckpoint:
  """Reads a .pth or .safetensors file, recognised by its content.

  Args:
    path: of a file of at most 4 GiB. Memory use is bounded by about six times
      its size and the few hundred MB that a list of tensors can take.

  Raises:
    InputError: there is no such file, it is of another format, damaged,
      or holds anything besides plain weights that would have to be executed;
      in one line, beginning with the path.
  """
  content = _content(path)
  try:
    if content[:4] in (b'PK\x03\x04', b'PK\x05\x06'):
      tensors, container, ignored = _read_zip(content)
      tuned_on = _tuned_on(content)
    elif safetensors_file.looks_like(content):
      tensors, container, ignored = safetensors_file.parse(content), '', []
      tuned_on = safetensors_file.read_tuned_on(content)
    else:
      raise InputError(_other_format(content))
    tensors = _without_wrappers(tensors)
  except InputError as error:
    raise InputError(f'{path} {error}') from error
  return TorchCheckpoint(
    tensors=tensors,
    container=container,
    ignored=ignored,
    sha256=hashlib.sha256(content).hexdigest(),
    trained_on=tuned_on,
  )


def _content(path: str | os.PathLike) -> bytes:
  try:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
      raise InputError(f'{path} is a folder; give the .pth or .safetensors file in it')
    if not stat.S_ISREG(status.st_mode):
      raise InputError(f'{path} is not a regular file; copy it to one first')
    if status.st_size > MAX_FILE_BYTES:
      raise InputError(
        f'{path} has {status.st_size:,} bytes, more than the '
        f'{MAX_FILE_BYTES:,} that are read; save the weights alone'
      )
    content = pathlib.Path(path).read_bytes()
  except (FileNotFoundError, NotADirectoryError) as error:
    raise InputError(f'{path} does not exist; check the path') from error
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  if not content:
    raise InputError(f'{path} is empty; download or save it again')
  return content


def _other_format(content: bytes) -> str:
  """What a file that is neither zip nor safetensors seems to be."""
  head = content[:64].lstrip().lower()
  again = 'torch.save(torch.load(FILE, weights_only=True), OUT)'
  if content[257:262] == b'ustar':
    return (
      'is a tar archive; if PyTorch wrote it (before 0.4), save it again '
      f'with PyTorch 1.6 or newer: {again}'
    )
  if content[:2] in (b'\x80\2', b'\x80\3', b'\x80\4', b'\x80\5'):
    return (
      'is a bare pickle, the format of torch.save before PyTorch 1.6; '
      f'save it again with a newer one: {again}'
    )
  if head.startswith(b'version https://git-lfs'):
    return 'is a Git LFS pointer, not the weights; fetch them: git lfs pull'
  if head.startswith((b'<!doctype', b'<html')):
    return 'is a web page, not the weights; download the file itself'
  return (
    'is neither a PyTorch (zip) nor a safetensors file; check that the '
    'download is complete and of the right file'
  )


def _tuned_on(content: bytes) -> tuple[TrainedOn, ...]:
  archive = TorchArchive(content)
  if trained_on.MEMBER not in archive:
    return ()
  try:
    return trained_on.from_text(bytes(archive.read(trained_on.MEMBER)))
  except ValueError as error:
    raise InputError(
      f'has a damaged member {trained_on.MEMBER} ({error}); export it again'
    ) from error


def _read_zip(content: bytes) -> tuple[dict[str, np.ndarray], str, list[str]]:
  archive = TorchArchive(content)
  root = torch_pickle.parse(archive.read('data.pkl'))
  if not isinstance(root, dict):
    raise InputError(
      'holds no state dict but a single object; save one with PyTorch: '
      'torch.save(model.state_dict(), OUT)'
    )
  records, container, ignored = _find_state(root)
  return _Storages(archive, len(content)).arrays(records), container, ignored


def _find_state(root: dict) -> tuple[dict, str, list[str]]:
  """The state dict in what the file holds, its key, and the other keys."""
  for container in CONTAINERS:
    state = root.get(container)
    if isinstance(state, dict) and any(isinstance(value, TensorRecord) for value in state.values()):
      ignored = [_name(key) for key in root if key != container]
      break
  else:
    container = ''
    state = {k: v for k, v in root.items() if isinstance(v, TensorRecord)}
    ignored = [_name(key) for key in root if key not in state]
  for key, value in state.items():
    if not isinstance(key, str) or not isinstance(value, TensorRecord):
      raise InputError(
        f"holds something that is no tensor under '{_name(key)}' in "
        f'{container}; save the weights alone: '
        'torch.save(model.state_dict(), OUT)'
      )
  if not state:
    raise InputError(
      'holds no state dict; looked for tensors under '
      f'{", ".join(CONTAINERS)} and at the top, found only: '
      + (', '.join(ignored[:20]) or 'nothing')
    )
  return state, container, ignored


def _name(key: object) -> str:
  return printable(key if isinstance(key, str) else repr(key))


def _many(count: int) -> str:
  digits = len(str(count))
  return f'{count:,}' if digits < 16 else f'more than 10^{digits - 1}'


def _without_wrappers(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Drops `module` and `_orig_mod` wherever they stand in a dotted name."""
  result, origin = {}, {}
  for key, array in tensors.items():
    *parents, last = key.split('.')
    name = '.'.join([p for p in parents if p not in _WRAPPERS] + [last])
    if name in result:
      raise InputError(
        f"holds both '{printable(origin[name])}' and '{printable(key)}', "
        f"which are the same '{printable(name)}' without module. and "
        '_orig_mod.; save one of them alone'
      )
    result[name], origin[name] = array, key
  return result


class _Storages:
  """Turns tensor records into arrays, checking each against its storage."""

  def __init__(self, archive: TorchArchive, file_bytes: int):
    self._archive = archive
    self._order = archive.byte_order()
    self._bytes: dict[str, memoryview] = {}
    # Tied and expanded tensors may hold more than the file does, but no set
    # of weights is mostly repetition.
    self._limit = 4 * file_bytes + (1 << 20)
    self._used = 0

  def arrays(self, records: dict[str, TensorRecord]) -> dict[str, np.ndarray]:
    return {
      key: self._array(f"tensor '{printable(key)}'", record) for key, record in records.items()
    }

  def _array(self, who: str, record: TensorRecord) -> np.ndarray:
    dtype = _DTYPES[record.dtype]
    shape = printable(str(record.shape))
    count = math.prod(record.shape)
    # An empty tensor may have any other dimensions; they must still be sane.
    claimed = math.prod(max(n, 1) for n in record.shape) * dtype.itemsize
    held = self._held(who, record, dtype)
    if self._used + claimed > self._limit:
      raise InputError(
        f'{who} claims {_many(count)} elements, shape {shape}, and its storage '
        f'holds {held:,}; the file cannot be right'
      )
    self._used += claimed
    last = record.offset + sum((n - 1) * stride for n, stride in zip(record.shape, record.strides))
    if count and last >= held:
      raise InputError(
        f'{who}, shape {shape}, reaches element {last:,} of a storage that '
        f'holds {held:,}; the file cannot be right'
      )
    if not count:
      return np.zeros(record.shape, dtype)
    whole = np.frombuffer(self._storage(record), self._stored(dtype))
    view = np.lib.stride_tricks.as_strided(
      whole[record.offset :],
      record.shape,
      [stride * dtype.itemsize if n > 1 else 0 for n, stride in zip(record.shape, record.strides)],
      writeable=False,
    )
    if dtype.kind == 'b':
      return np.not_equal(view, 0, order='C')
    native = view.dtype.newbyteorder('=')
    return view.astype(native, order='C', copy=True).view(dtype)

  def _held(self, who: str, record: TensorRecord, dtype: np.dtype) -> int:
    """Elements of the storage, which must be as large as the record says."""
    storage = record.storage
    name = f'data/{storage.key}'
    if name not in self._archive:
      raise InputError(
        f"{who} is in the member '{printable(name)}', which the file does "
        'not hold; download or save it again'
      )
    size = self._archive.size(name)
    unit = 1 if storage.dtype is None else dtype.itemsize
    if size // unit != storage.count:
      raise InputError(
        f'{who} is in a storage said to hold {storage.count * unit:,} '
        f'bytes and holding {size:,}; download or save it again'
      )
    return size // dtype.itemsize

  def _storage(self, record: TensorRecord) -> memoryview:
    name = f'data/{record.storage.key}'
    if name not in self._bytes:
      self._bytes[name] = self._archive.read(name)
    view = self._bytes[name]
    itemsize = _DTYPES[record.dtype].itemsize
    return view[: len(view) // itemsize * itemsize]

  def _stored(self, dtype: np.dtype) -> np.dtype:
    """A type of the same width that knows a byte order."""
    if dtype.kind == 'c':
      return dtype.newbyteorder(self._order)
    return np.dtype(f'{self._order}u{dtype.itemsize}')
