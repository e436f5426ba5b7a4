"""Compiled programs read as text: their collectives, loops and memory traffic.

`compiled.as_text()` of jax.stages.Compiled is scheduled HLO, the program of one
device. Only what a plan asks for is read: opcodes, shapes, who calls whom.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
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
# They move nothing: names for buffers, or halves of what is counted elsewhere.
_NO_TRAFFIC = frozenset(
  (
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'while',
    'conditional',
    'call',
    'after-all',
    'partition-id',
    'replica-id',
    'optimization-barrier',
    'opt-barrier',
    'async-start',
    'async-update',
    'async-done',
  )
)
# Custom calls that join or make buffers without touching them.
_NAMES_ONLY = re.compile(r'custom_call_target="(?:ConcatBitcast|AllocateBuffer)"')

_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$')
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = (.*)$')
_SHAPE = re.compile(r'\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*?)\})?')
_TILE = re.compile(r'([\d,]*):T\(([\d,]+)\)')
_SPACE = re.compile(r'S\((\d+)\)')
_CALLED = re.compile(
  r'\b(?:calls|body|condition|to_apply|branch_computations|true_computation|'
  r'false_computation)=(?:\{([^}]*)\}|%?([\w.\-]+))'
)
_LISTED_GROUPS = re.compile(r'\b(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}')
_IOTA_GROUPS = re.compile(r'\breplica_groups=\[(\d+,\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)')
_MESH_GROUPS = re.compile(
  r'\breplica_groups=mesh\[([^\]]*)\](?:,? ?device_ids=\((.*?)\))? \{([^}]*)\}'
)
_IOTA = re.compile(r'\[([\d,]+)\](?:T\(([\d,]+)\))?')
# What a TPU hands to its host for the chips of other slices, which the text of one slice's
# program does not have: slices that take part, and what becomes of it.
_BETWEEN_SLICES = re.compile(
  r'_xla_megascale_target="\{([\d,:]+)\}.*_xla_megascale_transfer_type="(\w+)"'
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
class Collective:
  """Equal collectives taken together.

  Attributes:
    kind: one of COLLECTIVES.
    group: how many devices take part in each.
    count: how many a step runs.
    bytes: that enter them on one device in a step.
    nodes: over how many nodes of GPUs or slices of TPUs those devices lie.
  """

  kind: str
  group: int
  count: int
  bytes: int
  nodes: int = 1


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


def collectives(module: Module, *, places: Sequence[int] | None = None) -> list[Collective]:
  """The collectives of a step by kind, group and nodes, the most bytes first.

  Args:
    module: from `parse`.
    places: the node of each device, in the program's order; None where fast links join
      all devices of the program, as those of a TPU's slice.
  """
  sums = {}
  for line, lines, times in walk(module):
    for kind, instruction, computation in _exchanges(line, lines, module):
      key = (kind, *_group(kind, instruction, module.devices, places))
      count, moved = sums.get(key, (0, 0))
      entering = sum(s.bytes for s in _operands(instruction, computation))
      sums[key] = count + times, moved + times * entering
  found = [
    Collective(kind=kind, group=group, nodes=nodes, count=count, bytes=moved)
    for (kind, group, nodes), (count, moved) in sums.items()
  ]
  return sorted(found, key=lambda c: (-c.bytes, c.kind, c.group, c.nodes))


def _exchanges(
  instruction: Instruction, computation: dict[str, Instruction], module: Module
) -> Iterator[tuple[str, Instruction, dict[str, Instruction]]]:
  """Kind, instruction and computation of each collective that a line runs."""
  kind = instruction.opcode.removesuffix('-start')
  if kind in COLLECTIVES:
    yield kind, instruction, computation
  elif kind == 'send' and (found := _BETWEEN_SLICES.search(instruction.attributes)):
    kind = found[2].lower().replace('_', '-')
    yield kind if kind in COLLECTIVES else 'collective-permute', instruction, computation
  elif kind == 'fusion':
    for name in instruction.called:
      for inner in module.computations[name].values():
        if inner.opcode in COLLECTIVES:
          # TPUs: a sum of which each chip keeps its part alone.
          scattered = inner.opcode == 'all-reduce' and name.startswith('all-reduce-scatter')
          yield ('reduce-scatter' if scattered else inner.opcode, inner, module.computations[name])


def traffic(module: Module, *, other_spaces: bool) -> int:
  """Bytes that a step reads from and writes to the main memory, by the program's text.

  Each instruction reads its operands and writes its results once, padding included,
  without caches; slices cost what is sliced. What the compiler keeps in on-chip
  memory is left out, unlike in `cost_analysis()['bytes accessed']`.

  Args:
    module: from `parse`.
    other_spaces: whether arrays in other memory spaces than 0 lie elsewhere, as in
      TPU programs; in GPU programs the numbers tell kinds of use apart.
  """
  total = 0
  for instruction, computation, times in walk(module):
    opcode = instruction.opcode
    if (
      opcode in _NO_TRAFFIC
      or opcode.endswith(('-done', '-update'))
      or _NAMES_ONLY.search(instruction.attributes)
    ):
      continue
    weigh = functools.partial(_weight, other_spaces=other_spaces)
    operands, results = _operands(instruction, computation), instruction.shapes
    if opcode == 'dynamic-slice':
      moved = 2 * weigh(results)
    elif opcode == 'dynamic-update-slice':
      moved = 2 * weigh(operands[1:2])
    elif opcode == 'copy-start':  # Its result is (to, from, context).
      moved = weigh(operands) + weigh(results[:1])
    elif opcode == 'send':  # Its result names the same array once more.
      moved = weigh(operands)
    elif opcode == 'slice-start':  # ((from), to, context).
      part = results[-2]
      moved = weigh([part]) + weigh([dataclasses.replace(operands[0], stored=part.stored)])
    elif opcode.endswith('-start') and len(results) > 1:  # (from, to, ...).
      moved = weigh(results)
    else:
      moved = weigh(operands) + weigh(results)
    total += times * moved
  return total


def _weight(shapes, *, other_spaces: bool) -> int:
  return sum(s.stored for s in shapes if s.space == 0 or not other_spaces)


def _operands(instruction: Instruction, computation) -> list[Shape]:
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


def _group(
  kind: str, instruction: Instruction, devices: int, places: Sequence[int] | None
) -> tuple[int, int]:
  """How many devices take part together, and over how many nodes they lie at most."""
  if found := _BETWEEN_SLICES.search(instruction.attributes):  # One chip of each slice.
    count = 0
    for part in found[1].split(','):
      first, _, last = part.partition(':')
      count += int(last or first) - int(first) + 1
    return count, count
  groups = _groups(instruction, devices)
  # A permutation lists pairs; all of them are one operation.
  group = devices if kind == 'collective-permute' else max(map(len, groups))
  if places is None:
    return group, 1
  return group, max(len({places[member] for member in members}) for members in groups)


def _groups(instruction: Instruction, devices: int) -> list[Sequence[int]]:
  """The devices of each group, from any of the forms in which groups are printed.

  '{{0,1},{2,3}}' lists them, '[4,2]<=[2,4]T(1,0)' is 4 groups of 2 of the numbers from
  0 in that order, and "mesh['a'=4,'b'=2] {'b'}" spans axes of a mesh, of which
  "'a':(2)2" is a part; '{}' is all devices.
  """
  text = instruction.attributes
  if listed := _LISTED_GROUPS.search(text):
    return [_numbers(members) for members in re.findall(r'\{([\d,]+)\}', listed[1])]
  if iota := _IOTA_GROUPS.search(text):
    return list(_order(iota[2]).reshape(_numbers(iota[1])).tolist())
  if mesh := _MESH_GROUPS.search(text):
    return [*_mesh_groups(*mesh.groups())]
  return [range(devices)]


def _mesh_groups(axes: str, order: str | None, spanned: str) -> list[list[int]]:
  """Groups over some axes, or parts of axes: '(before)size' cuts one into three."""
  parts = [
    (name, int(before or 1), int(size or 0))
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", spanned)
  ]
  shape, together = [], []
  for name, size in re.findall(r"'([^']*)'=(\d+)", axes):
    own = [(before, before * (part or int(size))) for axis, before, part in parts if axis == name]
    cuts = sorted({1, int(size), *(cut for pair in own for cut in pair)})
    for low, high in zip(cuts, cuts[1:]):
      if any(first <= low and high <= last for first, last in own):
        together.append(len(shape))
      shape.append(high // low)
  ids = np.arange(math.prod(shape)) if order is None else _order(order)
  apart = [n for n in range(len(shape)) if n not in together]
  grouped = ids.reshape(shape).transpose(*apart, *together)
  return grouped.reshape(-1, math.prod(shape[n] for n in together)).tolist()


def _order(text: str) -> np.ndarray:
  """'[2,4]T(1,0)' counts through a transposed array; '0,2,1' lists."""
  if not (found := _IOTA.fullmatch(text.rpartition('<=')[2])):
    return np.array(_numbers(text))
  shape = _numbers(found[1])
  ids = np.arange(math.prod(shape)).reshape(shape)
  return (ids.transpose(_numbers(found[2])) if found[2] else ids).ravel()


def _numbers(text: str) -> list[int]:
  return [int(number) for number in text.split(',') if number]
