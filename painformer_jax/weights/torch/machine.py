"""The stack machine of pickles: the stack, the memo, and what each opcode does to them.

It imports and calls nothing, see `pickle`.
"""

import pickletools
import struct
from collections.abc import Callable, Sequence

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch import names
from painformer_jax.weights.torch.opened import MAX_TENSORS
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

ALONE = 'save the weights alone with PyTorch: torch.save(model.state_dict(), OUT)'

_KNOWN = {*CALLS, *STORAGES, *DTYPES}
_STOP = ord('.')
_UINT32 = struct.Struct('<I').unpack_from
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


class Machine:
  """The program, the stack, the stacks set aside at a mark, and the memo."""

  def __init__(self, program: bytes):
    self.program = program
    self.at = 0
    self.stack: list = []
    self.outer: list[list] = []
    self.memo: dict[int, object] = {}
    self.tensors = 0

  def run(self, steps: Sequence[Callable[['Machine'], object] | None], most: int) -> object:
    """Runs the program to its end.

    Args:
      steps: what to do, by the number of the opcode; None for opcodes that are refused.
      most: steps that it may take.
    """
    program = self.program
    try:
      for _ in range(most):
        code = program[self.at]
        self.at += 1
        if code == _STOP:
          return self.pop()
        step = steps[code]
        if step is None:
          raise InputError(
            f'refuses pickle opcode {_OPCODES.get(code) or hex(code)}, which torch.save does not '
            'write; nothing of it was executed'
          )
        step(self)
    except (IndexError, struct.error) as error:
      raise damaged('it is cut off') from error
    raise InputError(
      f'its list of tensors takes more than {most:,} steps to read, for some list or dict of '
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


def _key(key: object) -> object:
  """A dict key of a kind whose hash is cheap and cannot recurse; any other becomes inert."""
  whole = isinstance(key, int) and key.bit_length() < 64
  if whole or key is None or isinstance(key, str | bytes | float | Inert | StorageRecord):
    return key
  return Inert(f'key of type {type(key).__name__}')
