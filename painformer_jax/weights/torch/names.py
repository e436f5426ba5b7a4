"""Which names the pickle of a checkpoint may mention, beside those that make tensors.

Nothing that is named is ever imported or called. Training scripts keep all kinds of objects
beside the weights: arguments, dates, settings, scores. Their classes are inert here. Names that
data does not need, such as functions of the standard library, are the mark of an attack, and
such a file is refused as a whole.
"""

import builtins
import sys

from painformer_jax.core.errors import InputError, printable

_BUILTIN_TYPES = (
  'bool bytearray bytes complex dict float frozenset int list long object range set slice str '
  'tuple type unicode xrange'
).split()

_EXCEPTIONS = [
  name
  for name, value in vars(builtins).items()
  if isinstance(value, type) and issubclass(value, BaseException)
]

# Classes and functions of the standard library by which it pickles data.
_STANDARD = {
  *(f'{module}.{name}' for module in ('builtins', '__builtin__') for name in _BUILTIN_TYPES),
  *(f'{module}.{name}' for module in ('builtins', 'exceptions') for name in _EXCEPTIONS),
  *(f'pathlib{inner}.{name}' for inner in ('', '._local') for name in (
    'Path', 'PosixPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath', 'WindowsPath')),
  *(f'datetime.{name}' for name in ('date', 'datetime', 'time', 'timedelta', 'timezone')),
  *(f'typing.{name}' for name in (
    'Any', 'Callable', 'Dict', 'Iterable', 'List', 'Literal', 'Mapping', 'Optional', 'Sequence',
    'Set', 'Tuple', 'Type', 'Union')),
  '_codecs.encode',
  '_operator.getitem',
  'argparse.Namespace',
  'array._array_reconstructor',
  'array.array',
  'collections.Counter',
  'collections.UserDict',
  'collections.UserList',
  'collections.defaultdict',
  'collections.deque',
  'copy_reg._reconstructor',
  'copyreg._reconstructor',
  'decimal.Decimal',
  'fractions.Fraction',
  'functools.partial',
  'logging.Logger',
  'logging.getLogger',
  'random.Random',
  're._compile',
  'time.struct_time',
  'types.GenericAlias',
  'types.SimpleNamespace',
  'uuid.SafeUUID',
  'uuid.UUID',
  'zoneinfo.ZoneInfo._unpickle',
}  # fmt: skip

# Functions of other packages by which they pickle data.
_REBUILD = {
  'numpy.core.multiarray.scalar',
  'numpy._core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy._core.multiarray._reconstruct',
  'numpy.core.numeric._frombuffer',
  'numpy._core.numeric._frombuffer',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.random._pickle.__bit_generator_ctor',
  'numpy.random._pickle.__generator_ctor',
  'numpy.random._pickle.__randomstate_ctor',
  'omegaconf.omegaconf.open_dict',
  'pandas._libs.internals._unpickle_block',
  'pandas._libs.arrays.__pyx_unpickle_NDArrayBacked',
  'pandas.core.indexes.base._new_Index',
  'pandas.core.internals.blocks.new_block',
  'torch.device',
  'torch.dtype',
  'torch.layout',
  'torch.memory_format',
  'torch.serialization._get_layout',
}

_STANDARD_MODULES = {*sys.stdlib_module_names, '__builtin__', 'copy_reg'}
_FOREIGN = ('nt', 'posix', 'commands', 'exceptions', 'pip', 'setuptools', 'pkg_resources')


def check_mention(full: str) -> None:
  """Asserts that data may need a name, such as 'mine.settings.Settings'.

  Raises:
    InputError: it is one of the standard library that no data needs.
  """
  root = full.partition('.')[0]
  if full not in _STANDARD and (root in _STANDARD_MODULES or root in _FOREIGN):
    raise _refused(full)


def check_call(full: str) -> None:
  """Asserts that a name which passed `check_mention` may be called, so to speak.

  Classes may: what they make is inert. Functions that are not known to rebuild data may not.

  Raises:
    InputError: it is a function.
  """
  name = full.rpartition('.')[2]
  known = full in _STANDARD or full in _REBUILD or full.startswith('torch._utils._rebuild_')
  known |= name.startswith('__pyx_unpickle_')  # Of classes that Cython compiled.
  if not known and not name.lstrip('_')[:1].isupper():
    raise _refused(full)


def _refused(full: str) -> InputError:
  return InputError(
    f'refuses {printable(full)}, which weights do not need; nothing of '
    'it was executed. If you trust the file, save its weights alone '
    'with PyTorch: torch.save(model.state_dict(), OUT)'
  )
