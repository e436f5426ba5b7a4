"""Interprets the pickle inside a PyTorch checkpoint without executing anything.

A pickle is a program for a stack machine, and Python's own machine imports and
calls whatever the program names. This one imports and calls nothing: tensors become
`TensorRecord`s, objects of other classes become `Inert`, and names that no data needs
are refused (see `names`). Nothing is executed, and nothing is allocated by a size that the
program merely claims.

Written from the opcode descriptions of the standard library's `pickletools`
and from the programs that `torch.save` writes.
"""

import pickletools
import struct

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch import names
from painformer_jax.weights.torch.records import (
  CALLS,
  DTYPES,
  STORAGES,
  Global,
  Inert,
  StorageRecord,
  TensorRecord,
  Unreadable,
  damaged,
  storage,
  unreadable,
)

# A PainFormer checkpoint has a program of about 50 kB and 15,000 steps, with the optimizer's
# state 200 kB; a list of a million figures takes a million steps. The limits bound the time to
# seconds, and the memory to some hundred MB, as Python objects take up to a hundred bytes a step.
MAX_PROGRAM_BYTES = 16 << 20
MAX_STEPS = 1_500_000

# Tensors of a file, in whatever format. A PainFormer has 375, its optimizer twice as many.
MAX_TENSORS = 10_000

ALONE = 'save the weights alone with PyTorch: torch.save(model.state_dict(), OUT)'


def parse(program: bytes | memoryview) -> object:
  """Runs a pickle program with nothing but the tables of this package.

  Args:
    program: the content of `data.pkl`, at most `MAX_PROGRAM_BYTES`; what follows its end is
      not read.

  Returns:
    What the program describes: dicts (an OrderedDict or defaultdict becomes a dict), lists,
    tuples, strings, numbers, `TensorRecord`s, `StorageRecord`s and `Inert`s.

  Raises:
    InputError: the program is damaged or too long, names something it may not, or uses an
      opcode that `torch.save` does not write.
  """
  if len(program) > MAX_PROGRAM_BYTES:
    raise InputError(
      f'its list of tensors takes {len(program):,} bytes, more than the '
      f'{MAX_PROGRAM_BYTES:,} that are read; {ALONE}'
    )
  return _Machine(bytes(program)).run()


class _Machine:
  """The program, the stack, the stacks set aside at a mark, and the memo."""

  def __init__(self, program: bytes):
    self.program = program
    self.at = 0
    self.stack: list = []
    self.outer: list[list] = []
    self.memo: dict[int, object] = {}
    self.tensors = 0

  def run(self) -> object:
    program, steps = self.program, _STEPS
    try:
      for _ in range(MAX_STEPS):
        code = program[self.at]
        self.at += 1
        if code == _STOP:
          return self.pop()
        step = steps[code]
        if step is None:
          raise InputError(
            f'refuses pickle opcode {_opcode_name(code)}, which torch.save does not write; '
            'nothing of it was executed'
          )
        step(self)
    except (IndexError, struct.error) as error:
      raise damaged('it is cut off') from error
    raise InputError(
      f'its list of tensors takes more than {MAX_STEPS:,} steps to read, for some list or dict of '
      f'millions of entries; {ALONE}'
    )

  # Arguments of opcodes.

  def take(self, count: int) -> bytes:
    start, self.at = self.at, self.at + count
    if self.at > len(self.program):
      raise damaged('it is cut off')
    return self.program[start : self.at]

  def line(self) -> str:
    end = self.program.find(b'\n', self.at)
    if end < 0:
      raise damaged('it is cut off')
    line, self.at = self.program[self.at : end], end + 1
    return line.decode('utf-8', 'replace')

  # The stack.

  def pop(self) -> object:
    if not self.stack:
      raise damaged('a value is missing')
    return self.stack.pop()

  def top(self, kind, what: str) -> object:
    if not self.stack or not isinstance(self.stack[-1], kind):
      raise damaged(f'no {what} where one belongs')
    return self.stack[-1]

  def pop_to_mark(self) -> list:
    if not self.outer:
      raise damaged('a mark is missing')
    items, self.stack = self.stack, self.outer.pop()
    return items

  def pop_or_mark(self):
    """POP, which also takes a mark away."""
    if self.stack:
      self.stack.pop()
    else:
      self.pop_to_mark()

  def mark(self):
    self.outer.append(self.stack)
    self.stack = []

  def tuple_to_mark(self):
    items = self.pop_to_mark()
    self.stack.append(tuple(items))

  def tuple1(self):
    self.stack.append((self.pop(),))

  def tuple2(self):
    second = self.pop()
    self.stack.append((self.pop(), second))

  def tuple3(self):
    third, second = self.pop(), self.pop()
    self.stack.append((self.pop(), second, third))

  def append(self):
    self.extend([self.pop()])

  def appends(self):
    self.extend(self.pop_to_mark())

  def extend(self, items: list):
    # The content of lists of other classes is dropped.
    target = self.top((list, Inert), 'list')
    if isinstance(target, list):
      target.extend(items)

  def add_items(self):
    self.pop_to_mark()
    self.top(Inert, 'set')

  def frozen_set(self):
    self.pop_to_mark()
    self.stack.append(Inert('builtins.frozenset'))

  def set_item(self):
    value, key = self.pop(), self.pop()
    self.update([key, value])

  def set_items(self):
    self.update(self.pop_to_mark())

  def update(self, items: list):
    target = self.top((dict, Inert, Global), 'dict')
    if len(items) % 2:
      raise damaged('a key has no value')
    if isinstance(target, Inert):
      target.items = {} if target.items is None else target.items
      target = target.items
    if isinstance(target, dict):
      for key, value in zip(items[::2], items[1::2]):
        target[_key(key)] = value

  def memoize(self):
    self.memo[len(self.memo)] = self.top(object, 'value')

  def put(self):
    self.memo[self.program[self.at]] = self.top(object, 'value')
    self.at += 1

  def put_long(self):
    self.memo[_UINT32(self.program, self.at)[0]] = self.top(object, 'value')
    self.at += 4

  def get(self):
    self.recall(self.take(1)[0])

  def get_long(self):
    self.recall(int.from_bytes(self.take(4), 'little'))

  def recall(self, index: int):
    if index not in self.memo:
      raise damaged(f'no value numbered {index}')
    self.stack.append(self.memo[index])

  # Names, calls and attributes.

  def global_name(self):
    module = self.line()
    self.push_name(module, self.line())

  def stack_global(self):
    name, module = self.pop(), self.pop()
    if not isinstance(name, str) or not isinstance(module, str):
      raise damaged('a name is not text')
    self.push_name(module, name)

  def push_name(self, module: str, name: str):
    full = f'{module}.{name}'
    if full not in _KNOWN:
      names.check_mention(full)
    self.stack.append(Global(full))

  def call(self):
    arguments, function = self.pop(), self.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
      raise damaged('a call of something that is not a name')
    self.stack.append(self.called(function.name, arguments))

  def called(self, name: str, arguments: tuple) -> object:
    if name in CALLS:
      call = CALLS[name]
      if len(arguments) not in call.arguments:
        raise damaged(f'{name} with {len(arguments)} arguments')
      result = call.meaning(*arguments)
      if isinstance(result, TensorRecord):
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
          raise InputError(f'holds more than {MAX_TENSORS:,} tensors; {ALONE}')
      return result
    if name in STORAGES or name in DTYPES:
      raise damaged(f'a call of {name}')
    made = unreadable(name)
    if made is None:
      names.check_call(name)
    return made or Inert(name, arguments)

  def new(self):
    """NEWOBJ: an object of a class, made without a call."""
    arguments, kind = self.pop(), self.pop()
    if not isinstance(kind, Global) or not isinstance(arguments, tuple):
      raise damaged('an object of something that is not a class')
    self.stack.append(
      self.called(kind.name, arguments)
      if kind.name in _KNOWN
      else unreadable(kind.name) or Inert(kind.name, arguments)
    )

  def new_with_keywords(self):
    self.pop()
    self.new()

  def build(self):
    state = self.pop()
    target = self.top((dict, Inert, Unreadable, TensorRecord), 'object with attributes')
    # A state dict carries attributes (`_metadata`, module versions) that no
    # weight depends on.
    if isinstance(target, dict) and not isinstance(state, dict):
      raise damaged('attributes are not a dict')
    if isinstance(target, Inert):
      target.state = state

  def persistent(self):
    self.stack.append(storage(self.pop()))


_KNOWN = {*CALLS, *STORAGES, *DTYPES}
_STOP = ord('.')
_UINT32 = struct.Struct('<I').unpack_from


def _push(make):
  return lambda machine: machine.stack.append(make())


def _number(form: str):
  """A step that pushes a number of fixed size."""
  read, size = struct.Struct(form).unpack_from, struct.calcsize(form)

  def step(machine):
    machine.stack.append(read(machine.program, machine.at)[0])
    machine.at += size

  return step


def _text(form: str):
  """A step that pushes a text after its length in bytes; most programs are mostly texts."""
  length, size = struct.Struct(form).unpack_from, struct.calcsize(form)

  def step(machine):
    program, start = machine.program, machine.at + size
    end = start + length(program, machine.at)[0]
    if end > len(program):
      raise damaged('it is cut off')
    try:
      machine.stack.append(program[start:end].decode('utf-8', 'surrogatepass'))
    except UnicodeDecodeError as error:
      raise damaged('a text is not UTF-8') from error
    machine.at = end

  return step


def _sized(form: str, read):
  """A step that pushes what `read` makes of as many bytes as a number before them says."""
  length, size = struct.Struct(form).unpack_from, struct.calcsize(form)

  def step(machine):
    (count,) = length(machine.program, machine.at)
    machine.at += size
    if count < 0:
      raise damaged('a length is negative')
    machine.stack.append(read(machine, count))

  return step


def _whole(machine: _Machine, count: int) -> int:
  return int.from_bytes(machine.take(count), 'little', signed=True)


def _skip(count: int):
  return lambda machine: machine.take(count) and None


_STEPS_BY_NAME = {
  'PROTO': _skip(1),
  'FRAME': _skip(8),
  'NONE': _push(lambda: None),
  'NEWTRUE': _push(lambda: True),
  'NEWFALSE': _push(lambda: False),
  'EMPTY_LIST': _push(list),
  'EMPTY_TUPLE': _push(tuple),
  'EMPTY_DICT': _push(dict),
  'EMPTY_SET': _push(lambda: Inert('builtins.set')),
  'BININT': _number('<i'),
  'BININT1': _number('<B'),
  'BININT2': _number('<H'),
  'BINFLOAT': _number('>d'),
  'LONG1': _sized('<B', _whole),
  'LONG4': _sized('<i', _whole),
  'SHORT_BINUNICODE': _text('<B'),
  'BINUNICODE': _text('<I'),
  'BINUNICODE8': _text('<Q'),
  'SHORT_BINBYTES': _sized('<B', _Machine.take),
  'BINBYTES': _sized('<I', _Machine.take),
  'BINBYTES8': _sized('<Q', _Machine.take),
  'BYTEARRAY8': _sized('<Q', _Machine.take),
  'MARK': _Machine.mark,
  'POP': _Machine.pop_or_mark,
  'POP_MARK': _Machine.pop_to_mark,
  'DUP': lambda machine: machine.stack.append(machine.top(object, 'value')),
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
  'LONG_BINPUT': _Machine.put_long,
  'BINGET': _Machine.get,
  'LONG_BINGET': _Machine.get_long,
  'GLOBAL': _Machine.global_name,
  'STACK_GLOBAL': _Machine.stack_global,
  'REDUCE': _Machine.call,
  'NEWOBJ': _Machine.new,
  'NEWOBJ_EX': _Machine.new_with_keywords,
  'BUILD': _Machine.build,
  'BINPERSID': _Machine.persistent,
}

_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
# By the opcode's number; None for an opcode that is refused.
_STEPS = [_STEPS_BY_NAME.get(_NAMES.get(code, '')) for code in range(256)]


def _opcode_name(code: int) -> str:
  return _NAMES.get(code) or f'0x{code:02x}'


def _key(key: object) -> object:
  """A dict key of a kind whose hash is cheap and cannot recurse; any other becomes inert."""
  whole = isinstance(key, int) and key.bit_length() < 64
  if whole or key is None or isinstance(key, str | bytes | float | Inert | StorageRecord):
    return key
  return Inert(f'key of type {type(key).__name__}')
