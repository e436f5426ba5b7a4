"""Turns the tensor records of a PyTorch archive into arrays, each checked against its storage."""

import math
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from painformer_jax.core.errors import InputError, printable
from painformer_jax.weights.torch.records import DTYPES, TensorRecord
from painformer_jax.weights.torch.zip import TorchArchive

_DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in DTYPES.values()}


class Storages:
  """The storages of one archive.

  Args:
    archive: the file.
    file_bytes: its size, which bounds what its tensors may claim together.
  """

  def __init__(self, archive: TorchArchive, file_bytes: int):
    self._archive = archive
    self._order = archive.byte_order()
    self._bytes: dict[str, memoryview] = {}
    # Tied and expanded tensors may hold more than the file does, but no set
    # of weights is mostly repetition.
    self._limit = 4 * file_bytes + (1 << 20)
    self._used = 0

  def arrays(self, records: Mapping[str, TensorRecord]) -> dict[str, np.ndarray]:
    """The tensors that records describe.

    Raises:
      InputError: one of them does not fit its storage, or they claim more than the file holds.
    """
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


def _many(count: int) -> str:
  digits = len(str(count))
  return f'{count:,}' if digits < 16 else f'more than 10^{digits - 1}'
