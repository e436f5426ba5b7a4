"""Walks what a file holds: nested dicts, lists and objects, in bounded time."""

from collections.abc import Iterator

import numpy as np

from painformer_jax.core.errors import printable
from painformer_jax.weights.torch.dcp import Pieces
from painformer_jax.weights.torch.records import Inert, TensorRecord, Unreadable

_TENSORS = (TensorRecord, Unreadable, Pieces, np.ndarray)
# How deep state dicts are looked for, and in how many dicts and lists.
_DEPTH = 8
_NODES = 100_000
_LONGEST = 10_000  # Characters of a name.


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
          below.append((f'{key}.{key_name(name)}' if key else key_name(name), value))
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
      if isinstance(value, dict) and depth < _DEPTH:
        stack.append((f'{prefix}{key_name(name)[:_LONGEST]}.', value, depth + 1))
      else:
        yield f'{prefix}{key_name(name)}', value


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
  """A key of a dict as text."""
  if isinstance(key, str):
    return key
  return key.name if isinstance(key, Inert) else printable(repr(key))
