"""Finds the state dict among all that a file holds, and the model's names among its names.

Trainers save a state dict under many keys, often an average of the weights beside it, and
wrap the model in modules that put a prefix before its names. What is found, chosen and taken
off is part of the result, so that it can be said.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights import model_record
from painformer_jax.weights.model_record import ModelRecord
from painformer_jax.weights.options import FileOptions
from painformer_jax.weights.torch import prefixes
from painformer_jax.weights.torch.dcp import Pieces
from painformer_jax.weights.torch.opened import OpenedFile
from painformer_jax.weights.torch.pickle import MAX_TENSORS
from painformer_jax.weights.torch.records import Inert, TensorRecord, Unreadable
from painformer_jax.weights.trained_on import TrainedOn

# Keys of averaged weights and of the others, in order of preference. The averages come first,
# and the first two of them before all others, as in timm's `load_state_dict(use_ema=True)`.
AVERAGES = (
  'state_dict_ema',
  'model_ema',
  'model_state_dict_ema',
  'ema_state_dict',
  'ema_model_state_dict',
  'model_ema_state_dict',
  'ema_model',
  'ema',
  'ema_weights',
  'averaged_model',
  'swa_state_dict',
  'swa_model',
  'swa',
)
CONTAINERS = ('model_state_dict', 'state_dict', 'model_state', 'model', 'module')

_TENSORS = (TensorRecord, Unreadable, Pieces, np.ndarray)
# How deep state dicts are looked for, and in how many dicts and lists.
_DEPTH = 8
_NODES = 100_000
_LONGEST = 10_000  # Characters of a name.


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateDict:
  """One state dict of a file.

  Attributes:
    key: where it is, with dots; '' for the top.
    tensors: name -> record or array.
    others: names of what is no tensor in it.
    fitting: how many of its names a PainFormer has, whatever is before them.
    averaged: whether its key or content says that it is an average of weights.
  """

  key: str
  tensors: Mapping[str, object]
  others: tuple[str, ...]
  fitting: int
  averaged: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchCheckpoint:
  """The weights of one file or folder.

  Attributes:
    tensors: name -> array, in the order of the file, the names without prefix and
      wrappers. Arrays are C-contiguous, in this machine's byte order, and of the file's
      element type.
    container: key that held the weights, with dots if it is below another; '' for a bare
      state dict or a safetensors file.
    ignored: the file's other top-level keys, and what is no tensor in the state dict.
    sha256: of the whole file, in hexadecimal.
    record: what the file says about its model, where this package wrote it.
    trained_on: whom the weights were fine-tuned on, where this package wrote the file.
    averaged: whether they are an average of weights.
    alternatives: keys of the file's other state dicts that would do as well.
    prefix: what was taken off every name.
    left_out: names without that prefix, which belong to other modules.
  """

  tensors: dict[str, np.ndarray]
  container: str
  ignored: list[str]
  sha256: str
  record: ModelRecord | None = None
  trained_on: tuple[TrainedOn, ...] = ()
  averaged: bool = False
  alternatives: list[str] = dataclasses.field(default_factory=list)
  prefix: str = ''
  left_out: list[str] = dataclasses.field(default_factory=list)


def select(opened: OpenedFile, options: FileOptions) -> TorchCheckpoint:
  """Chooses a state dict of a file, reads it, and takes the prefix off its names.

  Args:
    opened: the file.
    options: of the user.

  Raises:
    InputError: there is none or too large a one, several would do and none is an average, or
      an option does not fit; or a tensor cannot be read. The message begins with a verb.
  """
  found = find(opened.root)
  if not found:
    raise _nothing(opened.root)
  chosen, alternatives = choose(found, options.key)
  naming = prefixes.find(list(chosen.tensors), options)
  unread = {n: chosen.tensors[n].why for n in naming.names if _is_unread(chosen.tensors[n])}
  if unread:
    first = next(iter(unread))
    rest = f'; so are {len(unread) - 1} others' if len(unread) > 1 else ''
    raise InputError(f"holds a tensor, '{printable(first)}', that {unread[first]}{rest}")
  arrays = opened.arrays({name: chosen.tensors[name] for name in naming.names})
  inside = f'{chosen.key}.' if chosen.key else ''
  tops = {other.key.split('.')[0] for other in alternatives}
  return TorchCheckpoint(
    tensors={naming.names[name]: array for name, array in arrays.items()},
    container=chosen.key,
    ignored=[
      *(key for key in _beside(opened.root, chosen) if key not in tops),
      *(inside + name for name in (*chosen.others, *naming.counters)),
    ],
    sha256=opened.sha256,
    record=_record(opened.record, len(arrays)),
    trained_on=opened.trained_on,
    averaged=chosen.averaged or naming.averaged,
    alternatives=[other.key for other in alternatives],
    prefix=naming.prefix,
    left_out=naming.left_out,
  )


def find(root: object) -> list[StateDict]:
  """Every state dict in what a file holds, from the top down."""
  found = []
  for key, node in _nodes(root):
    content = _modules(node) if isinstance(node, Inert) else _items(node)
    tensors = {n: v for n, v in content if _is_name(n) and isinstance(v, _TENSORS)}
    if len(tensors) > MAX_TENSORS:
      raise InputError(f'holds more than {MAX_TENSORS:,} tensors, which no PainFormer has')
    if tensors:
      others = tuple(_name(n) for n, v in _items(node) if not isinstance(v, _TENSORS))
      found.append(_state_dict(key, tensors, others=others if key else ()))
  if not any(state.fitting for state in found) and isinstance(root, dict):
    # Dicts within dicts, one a module, whose names are the paths.
    tensors = {n: v for n, v in _leaves(root) if _is_name(n) and isinstance(v, _TENSORS)}
    nested = _state_dict('', tensors, others=())
    if 0 < nested.fitting and len(tensors) <= MAX_TENSORS:
      found.insert(0, nested)
  return found


def choose(found: list[StateDict], key: str | None) -> tuple[StateDict, list[StateDict]]:
  """The state dict to take, and the others that would do.

  Args:
    found: the file's, at least one.
    key: of the one that the user names; None for the preferred one.

  Raises:
    InputError: there is none of that name; or several are equally good.
  """
  most = max(state.fitting for state in found)
  fitting = [state for state in found if 2 * state.fitting >= most] if most else found
  if key is not None:
    named = [state for state in found if state.key == key]
    if not named:
      raise InputError(
        f'has no state dict under the key {printable(key)}; it has them under '
        f'{listed([state.key or "the top (no --key)" for state in found])}'
      )
    return named[0], [state for state in fitting if state.key != key]
  ranked = sorted(fitting, key=_rank)  # Stable: of equals, the one nearer to the top.
  first, *rest = ranked
  unknown = len(AVERAGES) + len(CONTAINERS)
  if most and rest and _rank(first) >= unknown and first.key:
    raise InputError(
      f'holds {len(ranked)} state dicts of a PainFormer; name one: '
      + ' or '.join(f'--key {printable(state.key)}' for state in ranked[:10])
    )
  return first, rest if most else []


def _rank(state: StateDict) -> int:
  parts = state.key.split('.')
  ranks = [i for i, name in enumerate((*AVERAGES, *CONTAINERS)) if name in parts]
  if state.averaged and not ranks:
    return len(AVERAGES) - 1
  return min(ranks, default=len(AVERAGES) + len(CONTAINERS))


def _state_dict(key: str, tensors: Mapping, *, others: tuple[str, ...]) -> StateDict:
  averaged = 'n_averaged' in tensors or any(part in AVERAGES for part in key.split('.'))
  return StateDict(
    key=key,
    tensors=tensors,
    others=others,
    fitting=sum(prefixes.own_prefix(name) is not None for name in tensors),
    averaged=averaged,
  )


def _nodes(root: object) -> Iterator[tuple[str, object]]:
  """Dicts, lists, tuples and objects from the top down, each once, with their keys."""
  level, seen, count = [('', root)], set(), 0
  for _ in range(_DEPTH):
    below = []
    for key, node in level:
      if id(node) in seen:
        continue
      seen.add(id(node))
      yield key, node
      for name, value in _items(node):
        if isinstance(value, dict | list | tuple | Inert):
          below.append((f'{key}.{_name(name)}' if key else _name(name), value))
          count += 1
          if count > _NODES:
            return
    level = below


def _items(node: object) -> Iterator[tuple[object, object]]:
  if isinstance(node, dict):
    yield from node.items()
  elif isinstance(node, list | tuple):
    # Lists of figures are long, lists of state dicts are not.
    yield from enumerate(node[:100])
  elif isinstance(node, Inert):
    yield from (node.items or {}).items()
    if isinstance(node.state, dict):
      yield from node.state.items()


def _leaves(root: dict) -> Iterator[tuple[str, object]]:
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
        stack.append((f'{prefix}{_name(name)[:_LONGEST]}.', value, depth + 1))
      else:
        yield f'{prefix}{_name(name)}', value


def _modules(module: Inert) -> Iterator[tuple[str, object]]:
  """The state dict of a module that was pickled whole; of other objects, their tensors."""
  if not isinstance(module.state, dict) or '_modules' not in module.state:
    yield from _items(module)
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
          yield f'{prefix}{_name(name)}', value
    children = state.get('_modules')
    for name, child in reversed(children.items()) if isinstance(children, dict) else ():
      stack.append((f'{prefix}{_name(name)}.', child))


def _beside(root: object, chosen: StateDict) -> list[str]:
  """The top-level keys that hold none of the chosen state dict."""
  if not isinstance(root, dict):
    return []
  used = {model_record.KEY, *([chosen.key.split('.')[0]] if chosen.key else chosen.tensors)}
  if not chosen.key:  # Of nested dicts, the first part of the names.
    used |= {name.split('.')[0] for name in chosen.tensors if name not in root}
  return [_name(key) for key in root if _name(key) not in used]


def _record(stored: object, tensors: int) -> ModelRecord | None:
  """What a file says about its model: text in safetensors files, plain values in others."""
  try:
    if stored is None or isinstance(stored, str):
      return model_record.from_text(stored or '', tensors=tensors)
    return model_record.from_json(stored, tensors=tensors)
  except ValueError as error:
    raise InputError(
      f'has a damaged record of its model, {model_record.KEY} ({printable(str(error))}); '
      'export it again'
    ) from error


def _is_name(name: object) -> bool:
  return isinstance(name, str) and len(name) <= _LONGEST


def is_tensor(value: object) -> bool:
  """Whether a value of a state dict is a tensor, or a record of one."""
  return isinstance(value, _TENSORS)


def _is_unread(tensor: object) -> bool:
  return isinstance(tensor, Unreadable)


def _nothing(root: object) -> InputError:
  if not isinstance(root, dict):
    return InputError(
      'holds no state dict but a single object; save one with PyTorch: '
      'torch.save(model.state_dict(), OUT)'
    )
  return InputError(
    f'holds no state dict; found only: {listed([_name(key) for key in root]) or "nothing"}'
  )


def _name(key: object) -> str:
  if isinstance(key, str):
    return key
  return key.name if isinstance(key, Inert) else printable(repr(key))
