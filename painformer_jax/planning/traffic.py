"""Counts the memory traffic of a compiled program, from its text."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from painformer_jax.planning.hlo import Module, Shape, operands, walk

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
    taken, results = operands(instruction, computation), instruction.shapes
    if opcode == 'dynamic-slice':
      moved = 2 * weigh(results)
    elif opcode == 'dynamic-update-slice':
      moved = 2 * weigh(taken[1:2])
    elif opcode == 'copy-start':  # Its result is (to, from, context).
      moved = weigh(taken) + weigh(results[:1])
    elif opcode == 'send':  # Its result names the same array once more.
      moved = weigh(taken)
    elif opcode == 'slice-start':  # ((from), to, context).
      part = results[-2]
      moved = weigh([part]) + weigh([dataclasses.replace(taken[0], stored=part.stored)])
    elif opcode.endswith('-start') and len(results) > 1:  # (from, to, ...).
      moved = weigh(results)
    else:
      moved = weigh(taken) + weigh(results)
    total += times * moved
  return total


def _weight(shapes: Sequence[Shape], *, other_spaces: bool) -> int:
  return sum(s.stored for s in shapes if s.space == 0 or not other_spaces)
