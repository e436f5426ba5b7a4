"""What the pickle of a PyTorch checkpoint may mention, and what it means here.

Tensors and their storages become records that say where the bytes are; a few
harmless classes that training scripts save beside the weights become `Inert`.
`pickle` refuses every other name.
"""

import dataclasses
from collections.abc import Callable

from painformer_jax.core.errors import InputError

_MAX_DIMENSIONS = 32


@dataclasses.dataclass(frozen=True)
class Global:
  """A name that the program mentions, such as 'torch.FloatStorage'."""

  name: str


@dataclasses.dataclass(frozen=True)
class StorageRecord:
  """Where a tensor's bytes are.

  Attributes:
    key: name of the storage's member in the archive, below `data/`.
    dtype: torch name of the element type, such as 'float32'; None where each
      tensor states its own (an untyped storage).
    count: elements of `dtype`; bytes for an untyped storage.
  """

  key: str
  dtype: str | None
  count: int


@dataclasses.dataclass(frozen=True)
class TensorRecord:
  """A tensor as the program describes it; offset and strides in elements."""

  storage: StorageRecord
  dtype: str
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Inert:
  """Stands for an object of a harmless class; its content is dropped."""

  name: str


# Storage class -> element type.
STORAGES = {
  'torch.DoubleStorage': 'float64',
  'torch.FloatStorage': 'float32',
  'torch.HalfStorage': 'float16',
  'torch.BFloat16Storage': 'bfloat16',
  'torch.LongStorage': 'int64',
  'torch.IntStorage': 'int32',
  'torch.ShortStorage': 'int16',
  'torch.CharStorage': 'int8',
  'torch.ByteStorage': 'uint8',
  'torch.BoolStorage': 'bool',
  'torch.ComplexFloatStorage': 'complex64',
  'torch.ComplexDoubleStorage': 'complex128',
  'torch.UntypedStorage': None,
  'torch.storage.UntypedStorage': None,
}

# Element types that tensors of untyped storages may name.
DTYPES = {
  f'torch.{name}': name
  for name in (
    'float64',
    'float32',
    'float16',
    'bfloat16',
    'int64',
    'int32',
    'int16',
    'int8',
    'uint8',
    'uint16',
    'uint32',
    'uint64',
    'bool',
    'complex64',
    'complex128',
  )
}

# What training scripts keep beside the weights: arguments, schedules, scores.
INERT = {
  'argparse.Namespace',
  'collections.Counter',
  'collections.defaultdict',
  'builtins.dict',
  '__builtin__.dict',
  'builtins.set',
  '__builtin__.set',
  'pathlib.PosixPath',
  'pathlib.WindowsPath',
  'pathlib._local.PosixPath',
  'pathlib._local.WindowsPath',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.core.multiarray.scalar',
  'numpy._core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy._core.multiarray._reconstruct',
  '_codecs.encode',
  'torch.device',
}


def printable(text: str) -> str:
  """Text from a file that is not trusted, made fit for one line of a message."""
  text = ascii(text)[1:-1]
  return text if len(text) <= 120 else text[:117] + '...'


def damaged(what: str) -> InputError:
  """The error for a program that torch.save cannot have written."""
  return InputError(f'its list of tensors is damaged ({what}); download or save it again')


def _count(value: object, what: str) -> int:
  if type(value) is not int or not 0 <= value < 1 << 63:
    raise damaged(f'{what} is not a whole number below 2**63')
  return value


def _counts(values: object, what: str) -> tuple[int, ...]:
  if not isinstance(values, tuple) or len(values) > _MAX_DIMENSIONS:
    raise damaged(f'{what} is not a short tuple')
  return tuple(_count(value, what) for value in values)


def storage(identifier: object) -> StorageRecord:
  """('storage', class, key, device, count), as torch.save names a storage."""
  if not isinstance(identifier, tuple) or len(identifier) != 5:
    raise damaged('a storage is not described by five fields')
  kind, family, key, _, count = identifier
  if kind != 'storage' or not isinstance(key, str):
    raise damaged('a storage has no key')
  if not isinstance(family, Global) or family.name not in STORAGES:
    raise damaged('a storage has no class')
  return StorageRecord(key=key, dtype=STORAGES[family.name], count=_count(count, 'a storage size'))


def _tensor(storage, offset, shape, strides, requires_grad, hooks, metadata=None) -> TensorRecord:
  """torch._utils._rebuild_tensor_v2: the storage has the element type."""
  del requires_grad, hooks
  if not isinstance(storage, StorageRecord) or storage.dtype is None:
    raise damaged('a tensor without a typed storage')
  return _record(storage, storage.dtype, offset, shape, strides, metadata)


def _typed_tensor(
  storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None
) -> TensorRecord:
  """torch._utils._rebuild_tensor_v3: the tensor states the element type."""
  del requires_grad, hooks
  if not isinstance(storage, StorageRecord) or storage.dtype is not None:
    raise damaged('a tensor without an untyped storage')
  if not isinstance(dtype, Global) or dtype.name not in DTYPES:
    raise damaged('a tensor without an element type')
  return _record(storage, DTYPES[dtype.name], offset, shape, strides, metadata)


def _record(storage, dtype, offset, shape, strides, metadata) -> TensorRecord:
  if metadata:
    raise InputError(
      'holds a tensor with a pending conjugation or negation; resolve it '
      'before saving: tensor.resolve_conj().resolve_neg()'
    )
  shape = _counts(shape, 'a shape')
  strides = _counts(strides, 'strides')
  if len(shape) != len(strides):
    raise damaged('shape and strides differ in length')
  return TensorRecord(
    storage=storage, dtype=dtype, offset=_count(offset, 'an offset'), shape=shape, strides=strides
  )


def _parameter(data, requires_grad, hooks) -> object:
  del requires_grad, hooks
  if not isinstance(data, TensorRecord):
    raise damaged('a parameter without a tensor')
  return data


def _size(values) -> tuple[int, ...]:
  return _counts(values, 'a size')


@dataclasses.dataclass(frozen=True)
class Call:
  """A function of data: its arguments are what the program built."""

  meaning: Callable
  arguments: range


# Function -> what a call of it means here, and how many arguments it takes.
CALLS = {
  'collections.OrderedDict': Call(dict, range(1)),
  'torch.Size': Call(_size, range(1, 2)),
  'torch._utils._rebuild_tensor_v2': Call(_tensor, range(6, 8)),
  'torch._utils._rebuild_tensor_v3': Call(_typed_tensor, range(7, 9)),
  'torch._utils._rebuild_parameter': Call(_parameter, range(3, 4)),
}
