"""Interprets the pickle inside a PyTorch checkpoint without executing anything.

A pickle is a program for a stack machine, and Python's own machine imports and
calls whatever the program names. This one knows the opcodes that a saved state
dict uses and a short table of names, none of which it imports: tensors become
`TensorRecord`s, a few harmless classes that training scripts save beside the
weights become `Inert`, and any other name is refused. Nothing is executed, and
nothing is allocated by a size that the program merely claims.

Written from the opcode descriptions of the standard library's `pickletools`
and from the programs that `torch.save` writes.
"""

import pickletools
import struct
from collections.abc import Iterator

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch.records import (
  CALLS,
  DTYPES,
  INERT,
  STORAGES,
  Global,
  Inert,
  damaged,
  printable,
  storage,
)

# A PainFormer checkpoint has a program of about 50 kB, with the optimizer's
# state 200 kB. Python objects take up to a hundred times the program's size.
MAX_PROGRAM_BYTES = 4 << 20


def parse(program: bytes | memoryview) -> object:
  """Runs a pickle program with nothing but the tables of this module.

  Args:
    program: the content of `data.pkl`, at most `MAX_PROGRAM_BYTES`.

  Returns:
    What the program describes: dicts (an OrderedDict becomes a dict), lists,
    tuples, strings, numbers, `TensorRecord`s, `StorageRecord`s and `Inert`s.

  Raises:
    InputError: the program is damaged, names something it may not, or uses an
      opcode that `torch.save` does not write.
  """
  if len(program) > MAX_PROGRAM_BYTES:
    raise InputError(
      f'its list of tensors takes {len(program):,} bytes, more than the '
      f'{MAX_PROGRAM_BYTES:,} that a state dict can need; save the weights '
      'alone: torch.save(model.state_dict(), OUT)'
    )
  return _Machine().run(bytes(program))


def _operations(program: bytes) -> Iterator[tuple[str, object]]:
  """Opcode names and their arguments; the end of the program is checked."""
  operations = pickletools.genops(program)
  while True:
    try:
      operation, argument, _ = next(operations)
    except StopIteration:
      return
    except (ValueError, OverflowError, struct.error) as error:
      raise damaged(printable(str(error))) from error
    yield operation.name, argument


class _Machine:
  """The stack, the stacks set aside at a mark, and the memo."""

  def __init__(self):
    self.stack: list = []
    self.outer: list[list] = []
    self.memo: dict[int, object] = {}

  def run(self, program: bytes) -> object:
    for name, argument in _operations(program):
      if name == 'STOP':
        return self.pop()
      if name in _PUSH_ARGUMENT:
        self.stack.append(argument)
      elif name in _PUSH_NEW:
        self.stack.append(_PUSH_NEW[name]())
      elif name in _STEPS:
        _STEPS[name](self, argument)
      elif name not in _IGNORED:
        raise InputError(
          f'refuses pickle opcode {name}, which torch.save does not write; '
          'nothing of it was executed'
        )
    raise damaged('no end')

  def pop(self) -> object:
    if not self.stack:
      raise damaged('a value is missing')
    return self.stack.pop()

  def top(self, kind: type, what: str) -> object:
    if not self.stack or not isinstance(self.stack[-1], kind):
      raise damaged(f'no {what} where one belongs')
    return self.stack[-1]

  def pop_to_mark(self) -> list:
    if not self.outer:
      raise damaged('a mark is missing')
    items, self.stack = self.stack, self.outer.pop()
    return items

  def mark(self, _):
    self.outer.append(self.stack)
    self.stack = []

  def tuple_to_mark(self, _):
    items = self.pop_to_mark()
    self.stack.append(tuple(items))

  def tuple1(self, _):
    self.stack.append((self.pop(),))

  def tuple2(self, _):
    second = self.pop()
    self.stack.append((self.pop(), second))

  def tuple3(self, _):
    third, second = self.pop(), self.pop()
    self.stack.append((self.pop(), second, third))

  def append(self, _):
    self.extend([self.pop()])

  def appends(self, _):
    self.extend(self.pop_to_mark())

  def extend(self, items: list):
    target = self.top((list, Inert), 'list')
    if isinstance(target, list):
      target.extend(items)

  def add_items(self, _):
    self.pop_to_mark()
    self.top(Inert, 'set')

  def frozen_set(self, _):
    self.pop_to_mark()
    self.stack.append(Inert('builtins.frozenset'))

  def set_item(self, _):
    value, key = self.pop(), self.pop()
    self.update([key, value])

  def set_items(self, _):
    self.update(self.pop_to_mark())

  def update(self, items: list):
    target = self.top((dict, Inert), 'dict')
    if len(items) % 2:
      raise damaged('a key has no value')
    if isinstance(target, dict):
      for key, value in zip(items[::2], items[1::2]):
        target[_key(key)] = value

  def memoize(self, _):
    self.put(len(self.memo))

  def put(self, index: int):
    self.memo[index] = self.top(object, 'value')

  def get(self, index: int):
    if index not in self.memo:
      raise damaged(f'no value numbered {index}')
    self.stack.append(self.memo[index])

  def global_name(self, argument: str):
    module, _, name = argument.partition(' ')
    self.push_name(module, name)

  def stack_global(self, _):
    name, module = self.pop(), self.pop()
    if not isinstance(name, str) or not isinstance(module, str):
      raise damaged('a name is not text')
    self.push_name(module, name)

  def push_name(self, module: str, name: str):
    full = f'{module}.{name}'
    if full not in _NAMES:
      raise InputError(
        f'refuses {printable(full)}, which weights do not need; nothing of '
        'it was executed. If you trust the file, save its weights alone '
        'with PyTorch: torch.save(model.state_dict(), OUT)'
      )
    self.stack.append(Global(full))

  def call(self, _):
    arguments, function = self.pop(), self.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
      raise damaged('a call of something that is not a name')
    if function.name in CALLS:
      call = CALLS[function.name]
      if len(arguments) not in call.arguments:
        raise damaged(f'{function.name} with {len(arguments)} arguments')
      self.stack.append(call.meaning(*arguments))
    elif function.name in INERT:
      self.stack.append(Inert(function.name))
    else:
      raise damaged(f'a call of {function.name}')

  def build(self, _):
    state = self.pop()
    target = self.top((dict, Inert), 'object with attributes')
    # A state dict carries attributes (`_metadata`, module versions) that no
    # weight depends on.
    if isinstance(target, dict) and not isinstance(state, dict):
      raise damaged('attributes are not a dict')

  def persistent(self, _):
    self.stack.append(storage(self.pop()))


_NAMES = {*CALLS, *STORAGES, *DTYPES, *INERT}

_IGNORED = {'PROTO', 'FRAME'}

_PUSH_ARGUMENT = {
  'BININT',
  'BININT1',
  'BININT2',
  'LONG1',
  'LONG4',
  'BINFLOAT',
  'BINUNICODE',
  'SHORT_BINUNICODE',
  'BINUNICODE8',
  'BINBYTES',
  'SHORT_BINBYTES',
  'BINBYTES8',
}

_PUSH_NEW = {
  'NONE': lambda: None,
  'NEWTRUE': lambda: True,
  'NEWFALSE': lambda: False,
  'EMPTY_LIST': list,
  'EMPTY_TUPLE': tuple,
  'EMPTY_DICT': dict,
  'EMPTY_SET': lambda: Inert('builtins.set'),
}

_STEPS = {
  'MARK': _Machine.mark,
  'TUPLE': _Machine.tuple_to_mark,
  'TUPLE1': _Machine.tuple1,
  'TUPLE2': _Machine.tuple2,
  'TUPLE3': _Machine.tuple3,
  'APPEND': _Machine.append,
  'APPENDS': _Machine.appends,
  'ADDITEMS': _Machine.add_items,
  'FROZENSET': _Machine.frozen_set,
  'SETITEM': _Machine.set_item,
  'SETITEMS': _Machine.set_items,
  'MEMOIZE': _Machine.memoize,
  'BINPUT': _Machine.put,
  'LONG_BINPUT': _Machine.put,
  'BINGET': _Machine.get,
  'LONG_BINGET': _Machine.get,
  'GLOBAL': _Machine.global_name,
  'STACK_GLOBAL': _Machine.stack_global,
  'REDUCE': _Machine.call,
  'NEWOBJ': _Machine.call,
  'BUILD': _Machine.build,
  'BINPERSID': _Machine.persistent,
}


def _key(key: object) -> object:
  """A dict key of a kind whose hash is cheap and cannot recurse."""
  whole = isinstance(key, int) and key.bit_length() < 64
  if not whole and key is not None and not isinstance(key, (str, bytes)):
    raise InputError(
      f'has a dict key of type {type(key).__name__}; only text and whole '
      'numbers below 2**63 are read; save the weights alone with PyTorch: '
      'torch.save(model.state_dict(), OUT)'
    )
  return key
