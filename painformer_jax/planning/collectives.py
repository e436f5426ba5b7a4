"""Finds the collectives of a compiled program: their kind, groups of devices and bytes."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from painformer_jax.planning.hlo import Instruction, Module, operands, walk

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
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


def collectives(module: Module, *, node_of: Sequence[int] | None = None) -> list[Collective]:
  """The collectives of a step by kind, group and nodes, the most bytes first.

  Args:
    module: from `parse`.
    node_of: the node of each device, in the program's order; None where fast links join
      all devices of the program, as those of a TPU's slice.
  """
  sums = {}
  for line, lines, times in walk(module):
    for kind, instruction, computation in _exchanges(line, lines, module):
      key = (kind, *_group(kind, instruction, module.devices, node_of))
      count, moved = sums.get(key, (0, 0))
      entering = sum(s.bytes for s in operands(instruction, computation))
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


def _group(
  kind: str, instruction: Instruction, devices: int, node_of: Sequence[int] | None
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
  if node_of is None:
    return group, 1
  return group, max(len({node_of[member] for member in members}) for members in groups)


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
