"""What stands beside the weights: never imported, never called; attacks are refused."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import pickle
import re
import sys
import types
import typing
import uuid

import forge
import numpy as np
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch.read import read


class Colour(enum.Enum):
  RED = 1


class Flags(enum.Flag):
  A = 1
  B = 2


@dataclasses.dataclass
class Settings:
  rate: float = 0.1
  sizes: list = dataclasses.field(default_factory=lambda: [1, 2])

  class Inner:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
  rate: float = 0.1


class Bag(dict):
  """As EasyDict, addict, ConfigDict."""


class Names(list):
  pass


def imported_since(modules: set[str]) -> set[str]:
  """Modules imported since, but for the encodings of names in a zip file."""
  return {name for name in set(sys.modules) - modules if not name.startswith('encodings.')}


HARMLESS = {
  'defaultdict': collections.defaultdict(list, loss=[1.0, 2.0]),
  'counter': collections.Counter('abc'),
  'ordered': collections.OrderedDict(a=1),
  'deque': collections.deque([1, 2], maxlen=3),
  'datetime': datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
  'date': [datetime.date(2026, 1, 2), datetime.time(3), datetime.timedelta(4)],
  'enum': {Colour.RED: Colour.RED, 'flags': Flags.A | Flags.B},
  'dataclass': [Settings(), Frozen(), Settings.Inner()],
  'namespace': argparse.Namespace(lr=0.1, out=pathlib.Path('x'), kind=Colour),
  'simple_namespace': types.SimpleNamespace(a=1),
  'path': [pathlib.Path('/a/b'), pathlib.PureWindowsPath('c')],
  'numpy': [np.float64(0.5), np.int32(3), np.arange(6).reshape(2, 3), np.dtype('f4'), np.bool_(1)],
  'numpy_random': np.random.default_rng(0),
  'random_state': np.random.RandomState(0),
  'strings': np.array(['a', 'b'], object),
  'numbers': [decimal.Decimal('1.5'), fractions.Fraction(1, 3), 2**90, 1 + 2j, float('nan')],
  'uuid': uuid.UUID(int=3),
  'types': [int, list, typing.Any, typing.Optional, dict[str, int], type(None)],
  'partial': functools.partial(Settings, 0.2),
  'pattern': re.compile('a+'),
  'keys': {(1, 2): 3, 1.5: 2, frozenset('a'): 1, b'x': 2, None: 3},
  'sets': [{1, 2}, frozenset({3})],
  'subclasses': [Bag(a=1), Names([1, 2])],
  'range': [range(3), slice(1, 2)],
  'bytes': [b'abc', bytearray(b'abc')],
  'history': [float(i) for i in range(200_000)],
  'exceptions': [ValueError('x'), KeyError],
  'recursive': None,
}
HARMLESS['recursive'] = loop = [1]
loop.append(loop)


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('kind', HARMLESS)
def test_harmless_objects_are_inert(tmp_path, kind, protocol):
  content = pickle.dumps(HARMLESS[kind], protocol)
  weights = forge.dict_(a=forge.tensor([1]))
  path = tmp_path / 'w.pth'
  # The object first: its memo begins at 0. PROTO is 2 bytes, STOP one.
  path.write_bytes(
    forge.archive(
      b'}(' + forge.text('beside') + content[2:-1] + forge.text('model') + weights + b'u',
      [forge.floats(7)],
    )
  )
  modules = set(sys.modules)
  result = read(path)
  assert imported_since(modules) == set()
  assert (result.container, result.ignored) == ('model', ['beside'])
  assert result.tensors['a'] == [7]


@pytest.mark.parametrize(
  'beside',
  [
    forge.instance('omegaconf.dictconfig', 'DictConfig', b'}(' + forge.text('_metadata')
      + forge.instance('omegaconf.base', 'ContainerMetadata', b'}(' + forge.text('ref_type')
        + forge.name('typing', 'Any') + b'u') + b'u'),
    forge.name('my_trainer.config', 'Mode') + forge.tuple_(forge.number(1)) + b'R',
    forge.name('builtins', 'getattr')
      + forge.tuple_(forge.name('my_trainer.config', 'Mode'), forge.text('RED')) + b'R',
    forge.instance('lightning.parsing', 'AttributeDict', items=b'(' + forge.text('lr')
      + forge.number(1) + b'u'),
    forge.name('torch.nn.functional', 'relu'),
  ],
)  # fmt: skip
def test_objects_of_packages_that_are_not_installed(tmp_path, beside):
  path = tmp_path / 'w.pth'
  body = forge.dict_(beside=beside, model=forge.dict_(a=forge.tensor([1])))
  path.write_bytes(forge.archive(body, [forge.floats(7)]))
  assert read(path).tensors['a'] == [7]


ATTACKS = [
  ('os', 'system'),
  ('posix', 'system'),
  ('nt', 'system'),
  ('subprocess', 'Popen'),
  ('builtins', 'eval'),
  ('builtins', 'exec'),
  ('__builtin__', 'open'),
  ('builtins', '__import__'),
  ('importlib', 'import_module'),
  ('runpy', '_run_code'),
  ('pickle', 'loads'),
  ('_pickle', 'loads'),
  ('shutil', 'rmtree'),
  ('ctypes', 'CDLL'),
  ('webbrowser', 'open'),
  ('socket', 'create_connection'),
  ('operator', 'attrgetter'),
  ('functools', 'reduce'),
  ('pathlib', 'os.system'),
  ('types', 'FunctionType'),
  ('code', 'InteractiveInterpreter'),
  ('pydoc', 'pipepager'),
  ('timeit', 'timeit'),
  ('bdb', 'Bdb.run'),
  ('numpy.testing._private.utils', 'runstring'),
  ('torch.storage', '_load_from_bytes'),
  ('torch', 'load'),
  ('torch.hub', 'load'),
  ('torch.utils.cpp_extension', 'load_inline'),
  ('pip', 'main'),
  ('IPython', 'start_ipython'),
  ('my_trainer', 'run'),
  ('my_trainer', 'os.system'),
  ('logging', 'config.fileConfig'),
]


@pytest.mark.parametrize('module,attribute', ATTACKS)
@pytest.mark.parametrize('way', ['call', 'attribute', 'argument'])
def test_calls_of_functions_are_refused(tmp_path, module, attribute, way):
  """Directly, by getattr of a module's class, and within a call of something harmless."""
  target = forge.name(module, attribute)
  arguments = forge.tuple_(forge.text('touch x'))
  call = {
    'call': target + arguments + b'R',
    'attribute': forge.name('builtins', 'getattr')
    + forge.tuple_(target, forge.text('run'))
    + b'R'
    + arguments
    + b'R',
    'argument': forge.name('collections', 'defaultdict')
    + forge.tuple_(target + arguments + b'R')
    + b'R',
  }[way]
  path = tmp_path / 'w.pth'
  body = forge.dict_(model=forge.dict_(a=forge.tensor([1])), beside=call)
  path.write_bytes(forge.archive(body, [forge.floats(7)]))
  modules = set(sys.modules)
  with pytest.raises(InputError, match='refuses .*nothing of it was executed'):
    read(path)
  assert imported_since(modules) == set()


def test_arrays_of_numpy_are_no_state_dict(tmp_path):
  content = pickle.dumps({'model': {'a': np.ones(3)}}, 2)
  (tmp_path / 'w.pth').write_bytes(forge.archive(content[2:-1]))
  with pytest.raises(InputError, match='holds arrays of NumPy, not tensors; save tensors'):
    read(tmp_path / 'w.pth')


@pytest.mark.parametrize('attribute', ['__class__', '_run', '__subclasses__'])
def test_private_attributes_are_refused(tmp_path, attribute):
  body = forge.name('builtins', 'getattr') + forge.tuple_(
    forge.name('my', 'Class'), forge.text(attribute)
  )
  (tmp_path / 'w.pth').write_bytes(forge.archive(body + b'R'))
  with pytest.raises(InputError, match='damaged'):
    read(tmp_path / 'w.pth')
