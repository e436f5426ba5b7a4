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
from painformer_jax.weights.torch.machine import ALONE, Machine
from painformer_jax.weights.torch.records import Inert, damaged

# A PainFormer checkpoint has a program of about 50 kB and 15,000 steps, with the optimizer's
# state 200 kB; a list of a million figures takes a million steps. The limits bound the time to
# seconds, and the memory to some hundred MB, as Python objects take up to a hundred bytes a step.
MAX_PROGRAM_BYTES = 16 << 20
MAX_STEPS = 1_500_000


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
  return Machine(bytes(program)).run(_STEPS, MAX_STEPS)


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


def _whole(machine: Machine, count: int) -> int:
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
  'SHORT_BINBYTES': _sized('<B', Machine.take),
  'BINBYTES': _sized('<I', Machine.take),
  'BINBYTES8': _sized('<Q', Machine.take),
  'BYTEARRAY8': _sized('<Q', Machine.take),
  'MARK': Machine.mark,
  'POP': Machine.pop_or_mark,
  'POP_MARK': Machine.pop_to_mark,
  'DUP': lambda machine: machine.stack.append(machine.top(object, 'value')),
  'TUPLE': Machine.tuple_to_mark,
  'TUPLE1': Machine.tuple1,
  'TUPLE2': Machine.tuple2,
  'TUPLE3': Machine.tuple3,
  'APPEND': Machine.append,
  'APPENDS': Machine.appends,
  'ADDITEMS': Machine.add_items,
  'FROZENSET': Machine.frozen_set,
  'SETITEM': Machine.set_item,
  'SETITEMS': Machine.set_items,
  'MEMOIZE': Machine.memoize,
  'BINPUT': Machine.put,
  'LONG_BINPUT': Machine.put_long,
  'BINGET': Machine.get,
  'LONG_BINGET': Machine.get_long,
  'GLOBAL': Machine.global_name,
  'STACK_GLOBAL': Machine.stack_global,
  'REDUCE': Machine.call,
  'NEWOBJ': Machine.new,
  'NEWOBJ_EX': Machine.new_with_keywords,
  'BUILD': Machine.build,
  'BINPERSID': Machine.persistent,
}

# By the opcode's number; None for an opcode that is refused.
_STEPS = [None] * 256
for _opcode in pickletools.opcodes:
  _STEPS[ord(_opcode.code)] = _STEPS_BY_NAME.get(_opcode.name)
