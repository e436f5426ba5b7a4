"""Reads the text of a compiled program: its instructions, shapes and loops.

`compiled.as_text()` of jax.stages.Compiled is scheduled HLO, the program of one
device. Only what a plan asks for is read: opcodes, shapes, who calls whom.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

# Bits of an element; 8-bit floats have many names, matched by their prefix.
_BITS = {
  'pred': 8,
  's2': 2,
  'u2': 2,
  's4': 4,
  'u4': 4,
  'f4e2m1fn': 4,
  's8': 8,
  'u8': 8,
  's16': 16,
  'u16': 16,
  'f16': 16,
  'bf16': 16,
  's32': 32,
  'u32': 32,
  'f32': 32,
  's64': 64,
  'u64': 64,
  'f64': 64,
  'c64': 64,
  'c128': 128,
  'token': 0,
  'opaque': 0,
}
_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$')
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = (.*)$')
_SHAPE = re.compile(r'\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*?)\})?')
_TILE = re.compile(r'([\d,]*):T\(([\d,]+)\)')
_SPACE = re.compile(r'S\((\d+)\)')
_CALLED = re.compile(
  r'\b(?:calls|body|condition|to_apply|branch_computations|true_computation|'
  r'false_computation)=(?:\{([^}]*)\}|%?([\w.\-]+))'
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Shape:
  """An array.

  Attributes:
    bytes: of its elements.
    stored: with the padding of a tiled layout, as on TPUs.
    space: the number of its memory; 0 is the main one.
  """

  bytes: int
  stored: int
  space: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
  """One line of a program.

  Attributes:
    name, opcode: as printed.
    shapes: of the result, one for each array of a tuple.
    operands: names of instructions of the same computation.
    attributes: what follows the operands, as printed.
  """

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  attributes: str

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """Names of the computations that it runs."""
    return tuple(
      name.strip().lstrip('%')
      for several, one in _CALLED.findall(self.attributes)
      for name in (several or one).split(',')
    )

  @property
  def trips(self) -> int | None:
    """How often a loop runs, where the compiler knows it."""
    found = _TRIPS.search(self.attributes)
    return int(found[1]) if found else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
  """A program: its computations by name, the one that starts, its devices."""

  computations: dict[str, dict[str, Instruction]]
  entry: str
  devices: int


def parse(text: str) -> Module:
  """Reads what `compiled.as_text()` gives.

  Raises:
    ValueError: it is not the text of an HLO module.
  """
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if current is None:
      if header := _HEADER.match(line):
        current = computations.setdefault(header[2], {})
        entry = header[2] if header[1] else entry
    elif line.startswith('}'):
      current = None
    elif found := _INSTRUCTION.match(line):
      instruction = _instruction(found[1], found[2])
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError('not the text of an HLO module: it has no ENTRY computation')
  counts = [
    int(n) for n in re.findall(r'\b(?:num_partitions|replica_count)=(\d+)', text.splitlines()[0])
  ]
  return Module(computations=computations, entry=entry, devices=math.prod(counts))


def walk(module: Module) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
  """Every instruction that a step runs, its computation, and how often.

  Insides of fusions are left out. Of a conditional every branch is there once; a loop
  of unknown length counts once (see `unknown_loops`).
  """

  def visit(name: str, times: int):
    computation = module.computations[name]
    for instruction in computation.values():
      yield instruction, computation, times
      if instruction.opcode in ('while', 'conditional', 'call', 'async-start'):
        inner = times * ((instruction.trips or 1) if instruction.opcode == 'while' else 1)
        for called in instruction.called:
          yield from visit(called, inner)

  yield from visit(module.entry, 1)


def unknown_loops(module: Module) -> int:
  """How many loops have a length that the program does not say."""
  return sum(i.opcode == 'while' and i.trips is None for i, _, _ in walk(module))


def repeated_loops(module: Module) -> int:
  """How many loops run more than once: compilers count the cost of one turn."""
  return sum(i.opcode == 'while' and i.trips != 1 for i, _, _ in walk(module))


def operands(instruction: Instruction, computation: Mapping[str, Instruction]) -> list[Shape]:
  """Shapes of what an instruction takes, from the others of its computation."""
  return [
    shape
    for name in instruction.operands
    if name in computation
    for shape in computation[name].shapes
  ]


def _instruction(name: str, rest: str) -> Instruction:
  """From 'TYPE opcode(operands), attributes'; a tuple's type is in parentheses."""
  split = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  kind, rest = rest[:split], rest[split:].lstrip()
  opening = rest.index('(')
  closing = _closing(rest, opening)
  inside = rest[opening + 1 : closing]
  return Instruction(
    name=name,
    opcode=rest[:opening],
    shapes=tuple(_shape(found) for found in _SHAPE.finditer(re.sub(r'/\*.*?\*/', '', kind))),
    operands=tuple(re.findall(r'%([\w.\-]+)', inside)),
    attributes=rest[closing + 1 :],
  )


def _closing(text: str, opening: int) -> int:
  """Index of the parenthesis that closes the one at `opening`."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, opening):
    depth += 1 if found[0] == '(' else -1
    if not depth:
      return found.start()
  raise ValueError(f'not an HLO instruction: {text[:80]}')


def _shape(found: re.Match) -> Shape:
  """From 'bf16[4,8]{1,0:T(8,128)(2,1)S(1)}': sizes, order in memory, tiles, space."""
  dtype, dimensions, layout = found[1], found[2], found[3] or ''
  bits = 8 if dtype.startswith('f8') else _BITS[dtype]
  sizes = [int(size.removeprefix('<=')) for size in dimensions.split(',') if size]
  padded, tile = list(sizes), _TILE.match(layout)
  if tile and math.prod(sizes):  # The first tile covers the dimensions that vary fastest.
    minor_to_major = [int(d) for d in tile[1].split(',') if d]
    for dimension, step in zip(minor_to_major, reversed(tile[2].split(','))):
      padded[dimension] = -(-sizes[dimension] // int(step)) * int(step)
  space = _SPACE.search(layout)
  return Shape(
    *(-(-math.prod(n) * bits // 8) for n in (sizes, padded)), space=int(space[1]) if space else 0
  )
