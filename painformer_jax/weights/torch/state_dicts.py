"""Finds the state dict among all that a file holds, and the model's names among its names.

Trainers save a state dict under many keys, often an average of the weights beside it, and
wrap the model in modules that put a prefix before its names. What is found, chosen and taken
off is part of the result, so that it can be said.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights import model_record
from painformer_jax.weights.model_record import ModelRecord
from painformer_jax.weights.options import FileOptions
from painformer_jax.weights.torch import prefixes, tree
from painformer_jax.weights.torch.opened import MAX_TENSORS, OpenedFile
from painformer_jax.weights.torch.records import Inert, Unreadable
from painformer_jax.weights.trained_on import TrainedOn

# Keys of averaged weights that come first, as in timm's `load_state_dict(use_ema=True)`; then
# those that `prefixes.is_average` knows, then these of other weights, in order of preference.
AVERAGES = ('state_dict_ema', 'model_ema')
CONTAINERS = ('model_state_dict', 'state_dict', 'model_state', 'model', 'module')
_AVERAGE = len(AVERAGES)
_UNKNOWN = _AVERAGE + 1 + len(CONTAINERS)
_EMPTY = _UNKNOWN + 1  # An average that averaged nothing holds untrained weights.


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateDict:
  """One state dict of a file.

  Attributes:
    key: where it is, with dots; '' for the top.
    tensors: name -> record or array.
    others: names of what is no tensor in it.
    fitting: how many of its names a PainFormer has, whatever is before them.
    averaged: whether its key or content says that it is an average of weights; not where
      its counter says that nothing was averaged.
    rank: place in the order of preference; `_UNKNOWN` if its key says nothing.
    empty: prefix -> counter, of the averages in it that averaged nothing; the prefix '' is
      the whole state dict.
  """

  key: str
  tensors: Mapping[str, object]
  others: tuple[str, ...]
  fitting: int
  averaged: bool
  rank: int
  empty: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
    averaged_nothing: names of counters that are 0, of averages that are none.
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
  averaged_nothing: list[str] = dataclasses.field(default_factory=list)
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
  found = find(opened.root, opened.arrays)
  if not found:
    raise _nothing(opened.root)
  chosen, alternatives = choose(found, options.key)
  naming = prefixes.find(list(chosen.tensors), options, empty=chosen.empty)
  unread = {
    name: tensor.why
    for name in naming.names
    if isinstance(tensor := chosen.tensors[name], Unreadable)
  }
  if unread:
    first = next(iter(unread))
    rest = f' ({len(unread) - 1:,} more are not read either)' if len(unread) > 1 else ''
    raise InputError(f"holds a tensor, '{printable(first)}', that {unread[first]}{rest}")
  arrays = opened.arrays({name: chosen.tensors[name] for name in naming.names})
  inside = f'{chosen.key}.' if chosen.key else ''
  empty = {name: None for state in (chosen, *alternatives) for name in state.empty.values()}
  tops = {other.key.split('.')[0] for other in alternatives}
  return TorchCheckpoint(
    tensors={naming.names[name]: array for name, array in arrays.items()},
    container=chosen.key,
    ignored=[
      *(key for key in _beside(opened.root, chosen) if key not in tops and key not in empty),
      *(name for name in map(inside.__add__, chosen.others) if name not in empty),
      *(name for name in map(inside.__add__, naming.counters) if name not in empty),
    ],
    sha256=opened.sha256,
    record=_record(opened.record, len(arrays)),
    trained_on=opened.trained_on,
    averaged=chosen.averaged or naming.averaged,
    alternatives=[other.key for other in alternatives],
    averaged_nothing=list(empty),
    prefix=naming.prefix,
    left_out=naming.left_out,
  )


def find(
  root: object, arrays: Callable[[Mapping], dict[str, np.ndarray]] | None = None
) -> list[StateDict]:
  """Every state dict in what a file holds, from the top down.

  Args:
    root: what it holds.
    arrays: reads tensors, as of `OpenedFile`; without it, counters of averages are not read.
  """
  found, swapped, counters = [], _swapped(root), {}
  for key, node in tree.nodes(root):
    if isinstance(node, dict) and prefixes.COUNTER in node:
      counters[f'{key}.{prefixes.COUNTER}' if key else prefixes.COUNTER] = node[prefixes.COUNTER]
    content = tree.modules(node) if isinstance(node, Inert) else tree.items(node)
    tensors = {n: v for n, v in content if tree.is_name(n) and tree.is_tensor(v)}
    if len(tensors) > MAX_TENSORS:
      raise InputError(f'holds more than {MAX_TENSORS:,} tensors, which no PainFormer has')
    if tensors:
      # An object has attributes besides its tensors.
      beside = () if isinstance(node, Inert) else tree.items(node)
      others = tuple(tree.key_name(n) for n, v in beside if not tree.is_tensor(v))
      found.append(_state_dict(key, tensors, others=others if key else (), swapped=swapped))
  if not any(state.fitting for state in found) and isinstance(root, dict):
    # Dicts within dicts, one a module, whose names are the paths.
    tensors = {n: v for n, v in tree.leaves(root) if tree.is_name(n) and tree.is_tensor(v)}
    nested = _state_dict('', tensors)
    if 0 < nested.fitting and len(tensors) <= MAX_TENSORS:
      found.insert(0, nested)
  if arrays is None:
    return found
  return [_checked(state, counters, arrays, swapped=swapped) for state in found]


def choose(found: list[StateDict], key: str | None) -> tuple[StateDict, list[StateDict]]:
  """The state dict to take, and the others that would do.

  Args:
    found: the file's, at least one.
    key: of the one that the user names; None for the preferred one.

  Raises:
    InputError: there is none of that name; or several are equally good.
  """
  weights = [state for state in found if not _is_no_weights(state)]
  others = [state for state in found if _is_no_weights(state)]
  others = [state for state in others if state.fitting or not weights]
  if key is None and others and not any(state.fitting for state in weights):
    raise InputError(
      'holds no weights but the state of an optimizer or gradients; give the file of the '
      'weights, or name it: ' + ' or '.join(f'--key {printable(s.key)}' for s in others[:10])
    )
  most = max(state.fitting for state in weights or found)
  fitting = [state for state in weights if 2 * state.fitting >= most] if most else found
  if key is not None:
    named = [state for state in found if state.key == key]
    if not named:
      raise InputError(
        f'has no state dict under the key {printable(key)}; it has them under '
        f'{listed([state.key or "the top (no --key)" for state in found])}'
      )
    return named[0], [state for state in fitting if state.key != key]
  ranked = sorted(
    fitting, key=lambda state: state.rank
  )  # Stable: of equals, the one nearer to the top.
  first, *rest = ranked
  equal = [state for state in rest if state.rank == first.rank]
  if most and equal and first.rank >= _UNKNOWN and first.key:
    raise InputError(
      f'holds {len(ranked)} state dicts of a PainFormer; name one: '
      + ' or '.join(f'--key {printable(state.key)}' for state in ranked[:10])
    )
  return first, rest if most else []


def _is_no_weights(state: StateDict) -> bool:
  if prefixes.is_no_weights(state.key):
    return True
  # FSDP names the tensors of an optimizer below the weight that they are of.
  return not state.fitting and all(
    name == 'step' or prefixes.is_no_weights(name) for name in state.tensors
  )


def _state_dict(
  key: str, tensors: Mapping, *, others: tuple[str, ...] = (), swapped: str = ''
) -> StateDict:
  parts = key.split('.')
  averaged = 'n_averaged' in tensors or any(map(prefixes.is_average, parts))
  order = AVERAGES if averaged else CONTAINERS
  ranks = [i for i, name in enumerate(order) if name in parts]
  if averaged:
    rank = min(ranks, default=_AVERAGE)
  else:
    rank = _AVERAGE + 1 + min(ranks, default=len(CONTAINERS))
  if swapped and swapped in parts:
    averaged, rank = False, _UNKNOWN - 1
  elif swapped and key == 'state_dict':
    averaged, rank = True, 0
  return StateDict(
    key=key,
    tensors=tensors,
    others=others,
    fitting=sum(prefixes.own_prefix(name) is not None for name in tensors),
    averaged=averaged,
    rank=rank,
  )


def _checked(
  state: StateDict,
  beside: Mapping[str, object],
  arrays: Callable[[Mapping], dict[str, np.ndarray]],
  *,
  swapped: str,
) -> StateDict:
  """The state dict with what counters in and beside it say of averages."""
  if not state.fitting:
    return state
  empty = {}
  inside = f'{state.key}.' if state.key else ''
  for name, value in state.tensors.items():
    prefix = prefixes.counted_prefix(name)
    if prefix is not None and _is_zero(value, arrays):
      empty[prefix] = inside + name
  if state.averaged:
    above = state.key.rpartition('.')[0]
    places = [state.key, above, *(['averaging_state'] if swapped else [])]
    for counter in (f'{place}.{prefixes.COUNTER}'.lstrip('.') for place in places):
      if _is_zero(beside.get(counter), arrays):
        empty.setdefault('', counter)
  if '' not in empty:
    return dataclasses.replace(state, empty=empty)
  return dataclasses.replace(state, empty=empty, averaged=False, rank=_EMPTY)


def _is_zero(count: object, arrays: Callable[[Mapping], dict[str, np.ndarray]]) -> bool:
  if isinstance(count, int):
    return count == 0
  if not tree.is_tensor(count) or getattr(count, 'shape', None) not in ((), (1,)):
    return False
  try:
    return not arrays({'count': count})['count'].any()
  except InputError:  # It is no weight, and may be damaged.
    return False


def _swapped(root: object) -> str:
  """The key of the weights that are no average, where state_dict holds the average.

  Lightning's WeightAveraging and mmengine's EMAHook save so.
  """
  if not isinstance(root, dict) or 'state_dict' not in root:
    return ''
  if 'current_model_state' in root:
    return 'current_model_state'
  meta = root.get('meta')
  is_mmengine = isinstance(meta, dict) and 'mmengine_version' in meta
  return 'ema_state_dict' if is_mmengine and 'ema_state_dict' in root else ''


def _beside(root: object, chosen: StateDict) -> list[str]:
  """The top-level keys that hold none of the chosen state dict."""
  if not isinstance(root, dict):
    return []
  used = {model_record.KEY, *([chosen.key.split('.')[0]] if chosen.key else chosen.tensors)}
  if not chosen.key:  # Of nested dicts, the first part of the names.
    used |= {name.split('.')[0] for name in chosen.tensors if name not in root}
  return [tree.key_name(key) for key in root if tree.key_name(key) not in used]


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


def _nothing(root: object) -> InputError:
  if not isinstance(root, dict):
    return InputError(
      'holds no state dict but a single object; save one with PyTorch: '
      'torch.save(model.state_dict(), OUT)'
    )
  if any(
    isinstance(v, Inert)
    and v.name.startswith('numpy.')
    and v.name.endswith(('_reconstruct', '_frombuffer'))
    for _, node in tree.nodes(root)
    for _, v in tree.items(node)
  ):
    return InputError(
      'holds arrays of NumPy, not tensors; save tensors: '
      'torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, OUT)'
    )
  return InputError(
    f'holds no state dict; found only: {listed([tree.key_name(key) for key in root]) or "nothing"}'
  )
