"""Walks what a file holds: nested dicts, lists and objects, in bounded time."""

from collections.abc import Iterator

import numpy as np

from painformer_jax.weights.torch.dcp import Pieces
from painformer_jax.weights.torch.records import Global, Inert, TensorRecord, Unreadable

_TENSORS = (TensorRecord, Unreadable, Pieces, np.ndarray)
# How deep state dicts are looked for, and in how many dicts and lists.
_DEPTH = 8
_NODES = 100_000
_LONGEST = 1000  # Characters of a name or path. A file may hold one of megabytes at many places.


def nodes(root: object) -> Iterator[tuple[str, object]]:
  """Dicts, lists, tuples and objects from the top down, each once, with their keys."""
  level, seen, count = [('', root)], set(), 0
  for _ in range(_DEPTH):
    below = []
    for key, node in level:
      if id(node) in seen:
        continue
      seen.add(id(node))
      yield key, node
      for name, value in items(node):
        if isinstance(value, dict | list | tuple | Inert):
          path = f'{key}.{key_name(name)}' if key else key_name(name)
          below.append((path[:_LONGEST], value))
          count += 1
          if count > _NODES:
            return
    level = below


def items(node: object) -> Iterator[tuple[object, object]]:
  """Keys and values of a dict, a list or an object; nothing of other things."""
  if isinstance(node, dict):
    yield from node.items()
  elif isinstance(node, list | tuple):
    # Lists of figures are long, lists of state dicts are not.
    yield from enumerate(node[:100])
  elif isinstance(node, Inert):
    yield from (node.items or {}).items()
    if isinstance(node.state, dict):
      yield from node.state.items()


def leaves(root: dict) -> Iterator[tuple[str, object]]:
  """What is no dict in dicts within dicts, under the paths of names."""
  stack, count = [('', root, 0)], 0
  while stack:
    prefix, node, depth = stack.pop()
    for name, value in node.items():
      # A dict may stand at many places; all of them together are bounded.
      count += 1
      if count > _NODES:
        return
      path = f'{prefix}{key_name(name)}'
      if len(path) > _LONGEST:
        continue
      if isinstance(value, dict) and depth < _DEPTH:
        stack.append((f'{path}.', value, depth + 1))
      else:
        yield path, value


def modules(module: Inert) -> Iterator[tuple[str, object]]:
  """The state dict of a module that was pickled whole; of other objects, their tensors."""
  if not isinstance(module.state, dict) or '_modules' not in module.state:
    yield from items(module)
    return
  stack, seen = [('', module)], set()
  while stack:
    prefix, module = stack.pop()
    state = module.state if isinstance(module, Inert) else None
    if not isinstance(state, dict) or id(module) in seen:
      continue
    seen.add(id(module))
    for kind in ('_parameters', '_buffers'):
      tensors = state.get(kind)
      for name, value in tensors.items() if isinstance(tensors, dict) else ():
        if isinstance(value, _TENSORS):
          yield f'{prefix}{key_name(name)}', value
    children = state.get('_modules')
    for name, child in reversed(children.items()) if isinstance(children, dict) else ():
      stack.append((f'{prefix}{key_name(name)}.', child))


def is_name(name: object) -> bool:
  """Whether a key may be the name of a tensor."""
  return isinstance(name, str) and len(name) <= _LONGEST


def is_tensor(value: object) -> bool:
  """Whether a value of a state dict is a tensor, or a record of one."""
  return isinstance(value, _TENSORS)


def key_name(key: object) -> str:
  """A key of a dict as text, cut after `_LONGEST` characters; as quick for any key."""
  if isinstance(key, Inert | Global):
    key = key.name
  if isinstance(key, str):
    # One more than a name may have, so that a name that was cut is none.
    return key[: _LONGEST + 1]
  return _shown(key)[:_LONGEST]


def _shown(key: object, depth: int = 0) -> str:
  """Like `repr`, which takes long for large values and for tuples of the same tuples."""
  if isinstance(key, str | bytes):
    return repr(key[:200])
  if isinstance(key, int) and key.bit_length() > 200:
    return f'a number of {key.bit_length():,} bits'
  if key is None or isinstance(key, bool | int | float | complex):
    return repr(key)
  if isinstance(key, tuple) and depth < 3:
    inner = ', '.join(_shown(part, depth + 1) for part in key[:5])
    return f'({inner}{", ..." if len(key) > 5 else "," if len(key) == 1 else ""})'
  return key.name[:200] if isinstance(key, Global | Inert) else type(key).__name__
