"""What the pickle of a PyTorch checkpoint may mention, and what it means here.

Tensors and their storages become records that say where the bytes are. Objects that training
scripts save beside the weights become `Inert`; `names` says which may be there.
"""

import dataclasses
import functools
from collections.abc import Callable

from painformer_jax.core.errors import InputError, printable
from painformer_jax.weights.torch import names

MAX_DIMENSIONS = 32
# Begins the element type of a storage that is not read.
UNREAD = 'unread '


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


@dataclasses.dataclass(eq=False, slots=True)
class Inert:
  """Stands for an object of a class that is not imported.

  Attributes:
    name: of the class.
    arguments: what it was made of.
    state: its attributes, as the program gives them; None for none.
    items: key -> value, of classes that are dicts; None for none.
  """

  name: str
  arguments: tuple = ()
  state: object = None
  items: dict | None = None


@dataclasses.dataclass(frozen=True)
class Unreadable:
  """Stands for a tensor of a kind that is not read; `why` says what it is and what to do."""

  why: str


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

_FLOAT = 'save the model in float32 first: torch.save(model.float().state_dict(), OUT)'
_QUANTISED = (
  'is quantised; save the weights from before it was quantised, or dequantize them with PyTorch'
)
_SHARDED = (
  'is one shard of a distributed tensor; gather the whole state dict first: '
  'torch.distributed.checkpoint.state_dict.get_model_state_dict(model, '
  'options=StateDictOptions(full_state_dict=True))'
)
# Part of the name of a class or function that makes tensors -> why they are not read.
UNREADABLE = {
  '_rebuild_qtensor': _QUANTISED,
  'torchao.': _QUANTISED,
  'bitsandbytes.': _QUANTISED,
  '_rebuild_sparse': 'is sparse; save tensor.to_dense()',
  '_rebuild_nested': 'is a nested tensor; save a plain one',
  '_rebuild_meta': 'is on the device "meta" and has no values; load the weights before saving',
  '_rebuild_device_tensor': f'is of a device that stores no bytes; {_FLOAT}',
  '_rebuild_wrapper_subclass': f'is of a subclass of Tensor; {_FLOAT}',
  'DTensor': _SHARDED,
  'ShardedTensor': _SHARDED,
}
# Storages of the kinds above.
_UNREAD_STORAGES = ('QInt8', 'QUInt8', 'QInt32', 'QUInt4x2', 'QUInt2x4', 'ComplexHalf')
_PLAIN_TENSORS = ('torch.Tensor', 'torch._tensor.Tensor', 'torch.nn.parameter.Parameter')


def damaged(what: str) -> InputError:
  """The error for a program that torch.save cannot have written."""
  return InputError(f'its list of tensors is damaged ({what}); download or save it again')


def _count(value: object, what: str) -> int:
  if type(value) is not int or not 0 <= value < 1 << 63:
    raise damaged(f'{what} is not a whole number below 2**63')
  return value


def _counts(values: object, what: str) -> tuple[int, ...]:
  if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
    raise damaged(f'{what} is not a short tuple')
  return tuple(_count(value, what) for value in values)


def storage(identifier: object) -> StorageRecord:
  """('storage', class, key, device, count), as torch.save names a storage."""
  if not isinstance(identifier, tuple) or len(identifier) != 5:
    raise damaged('a storage is not described by five fields')
  kind, family, key, _, count = identifier
  if kind != 'storage' or not isinstance(key, str):
    raise damaged('a storage has no key')
  name = family.name if isinstance(family, Global) else ''
  unread = name.removeprefix('torch.').removesuffix('Storage') in _UNREAD_STORAGES
  if name not in STORAGES and not unread:
    raise damaged('a storage has no class')
  return StorageRecord(
    key=key,
    dtype=UNREAD + name if unread else STORAGES[name],
    count=_count(count, 'a storage size'),
  )


def _tensor(
  storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None
) -> TensorRecord | Unreadable:
  """torch._utils._rebuild_tensor_v2: the storage has the element type."""
  del requires_grad, hooks
  if not isinstance(storage, StorageRecord) or storage.dtype is None:
    raise damaged('a tensor without a typed storage')
  if storage.dtype.startswith(UNREAD):
    return Unreadable(
      f'is complex with 16 bits; {_FLOAT}' if 'Half' in storage.dtype else _QUANTISED
    )
  return _record(storage, storage.dtype, offset, shape, strides, metadata)


def _typed_tensor(
  storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None
) -> TensorRecord | Unreadable:
  """torch._utils._rebuild_tensor_v3: the tensor states the element type."""
  del requires_grad, hooks
  if not isinstance(storage, StorageRecord) or storage.dtype is not None:
    raise damaged('a tensor without an untyped storage')
  if not isinstance(dtype, Global):
    raise damaged('a tensor without an element type')
  if dtype.name not in DTYPES:
    kind = printable(dtype.name.removeprefix('torch.'))
    return Unreadable(f'has the element type {kind}, which is not read; {_FLOAT}')
  return _record(storage, DTYPES[dtype.name], offset, shape, strides, metadata)


def _record(storage, dtype, offset, shape, strides, metadata) -> TensorRecord | Unreadable:
  if metadata:
    return Unreadable(
      'has a pending conjugation or negation; resolve it before saving: '
      'tensor.resolve_conj().resolve_neg()'
    )
  shape = _counts(shape, 'a shape')
  strides = _counts(strides, 'strides')
  if len(shape) != len(strides):
    raise damaged('shape and strides differ in length')
  return TensorRecord(
    storage=storage, dtype=dtype, offset=_count(offset, 'an offset'), shape=shape, strides=strides
  )


def _parameter(data, requires_grad, hooks, state=None) -> object:
  del requires_grad, hooks, state
  if not isinstance(data, TensorRecord | Unreadable | Inert):
    raise damaged('a parameter without a tensor')
  return data


def _subclass(function, kind, arguments, state) -> object:
  """torch._tensor._rebuild_from_type_v2: a tensor with attributes, or of a subclass."""
  del state
  if not isinstance(function, Global) or not isinstance(kind, Global):
    raise damaged('a tensor without a class')
  if kind.name not in _PLAIN_TENSORS:
    return unreadable(kind.name) or Inert(kind.name)
  call = CALLS.get(function.name)
  if call is None or not isinstance(arguments, tuple) or len(arguments) not in call.arguments:
    return unreadable(function.name) or Inert(function.name)
  return call.meaning(*arguments)


@functools.lru_cache(maxsize=4096)
def unreadable(name: str) -> Unreadable | None:
  """What a call of `name` makes, if that is a tensor of a kind that is not read."""
  for part, why in UNREADABLE.items():
    if part in name:
      return Unreadable(why)
  return None


def _size(values) -> tuple[int, ...]:
  return _counts(values, 'a size')


def _attribute(owner, attribute) -> Global:
  """builtins.getattr, by which members of enums and inner classes are pickled."""
  if not isinstance(owner, Global) or not isinstance(attribute, str) or attribute[:1] == '_':
    raise damaged('an attribute of something that is not a class')
  names.check_mention(owner.name)
  full = f'{owner.name}.{attribute}'
  names.check_mention(full)
  return Global(full)


@dataclasses.dataclass(frozen=True)
class Call:
  """A function of data: its arguments are what the program built."""

  meaning: Callable
  arguments: range


# Function -> what a call of it means here, and how many arguments it takes.
CALLS = {
  'collections.OrderedDict': Call(dict, range(1)),
  'collections.defaultdict': Call(lambda *factory: {}, range(2)),
  'builtins.getattr': Call(_attribute, range(2, 3)),
  '__builtin__.getattr': Call(_attribute, range(2, 3)),
  'torch.Size': Call(_size, range(1, 2)),
  'torch._utils._rebuild_tensor': Call(_tensor, range(4, 5)),
  'torch._utils._rebuild_tensor_v2': Call(_tensor, range(6, 8)),
  'torch._utils._rebuild_tensor_v3': Call(_typed_tensor, range(7, 9)),
  'torch._utils._rebuild_parameter': Call(_parameter, range(3, 4)),
  'torch._utils._rebuild_parameter_with_state': Call(_parameter, range(4, 5)),
  'torch._tensor._rebuild_from_type_v2': Call(_subclass, range(4, 5)),
}
