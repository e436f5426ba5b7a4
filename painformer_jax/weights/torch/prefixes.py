"""Takes off what wrappers put before or into the names of a model's tensors."""

import collections
import dataclasses
import functools
import re
from collections.abc import Collection, Sequence

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights import key_map
from painformer_jax.weights.options import FileOptions

# What DataParallel, torch.compile, FSDP and activation checkpoints put into names, at any place.
_WRAPPERS = {'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}

# Counters of averages (PyTorch, mmengine), which are no weights.
_COUNTERS = ('n_averaged', 'steps')

# Names that only a PainFormer has; others, such as norm1.weight, stand in any model.
_OWN = re.compile(r'(?:^|(?<=\.))(?:patch_embed[0-9]+|block[0-9]+\.[0-9]+|post_network\.[0-9]+)\.')
# What keys and prefixes of averaged weights have in them.
_AVERAGE = re.compile(
  r'(?:^|[._])(?<!exp_)(?<!no_)(?<!non_)(?<!without_)(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)',
  re.IGNORECASE,
)
# The same of the state of an optimizer and of gradients, which have the names of the weights.
# Of a momentum encoder there are weights.
_NO_WEIGHTS = re.compile(
  r'(?:^|[._])(?:optim|optimi[sz]ers?|(?:max_)?exp_(?:avg|inf)(?:_sq)?)(?:[._]|$)'
  r'|(?:^|\.)(?:momentum(?:_buffers?)?|(?:param_)?grad(?:s|ients?)?)(?:\.|$)',
  re.IGNORECASE,
)
COUNTER = 'n_averaged'  # Of PyTorch's AveragedModel: how many weights were averaged.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
  """What the names of a state dict stand for.

  Attributes:
    names: name in the file -> name in the model, of the tensors of the model.
    prefix: what was taken off all of them.
    left_out: names in the file without the prefix.
    counters: names in the file of counters that averages keep.
    averaged: whether the prefix or a counter says that the weights are an average.
  """

  names: dict[str, str]
  prefix: str
  left_out: list[str]
  counters: list[str]
  averaged: bool


# A file may hold the same long name in many dicts.
@functools.lru_cache(maxsize=20_000)
def own_prefix(name: str) -> str | None:
  """What is before a name that only a PainFormer has; None if it is no such name."""
  name = _unwrapped(name)
  found = _OWN.search(name)
  if found is None or key_map.to_ours(name[found.start() :]) is None:
    return None
  return name[: found.start()]


def is_average(key: str) -> bool:
  """Whether a key or prefix says that what it holds is an average of weights."""
  return bool(_AVERAGE.search(key))


def is_no_weights(key: str) -> bool:
  """Whether a key or prefix is of the state of an optimizer, or of gradients."""
  return bool(_NO_WEIGHTS.search(key))


def counted_prefix(name: str) -> str | None:
  """The prefix of the average that a name counts; None if it is no counter."""
  if not name.endswith(COUNTER) or not f'.{name}'.endswith(f'.{COUNTER}'):
    return None
  return _unwrapped(name)[: -len(COUNTER)]


def find(
  names: Sequence[str], options: FileOptions, *, empty: Collection[str] = frozenset()
) -> Naming:
  """Tells the model's names from those of a state dict.

  Args:
    names: of all its tensors.
    options: of the user.
    empty: prefixes of averages that averaged nothing, which are not preferred.

  Raises:
    InputError: two names become the same, no name has the prefix that the user gives,
      there are several models under different prefixes, or only the state of an optimizer.
      The message begins with a verb.
  """
  renamed = options.renamed()
  counters = [
    name for name in names if _unwrapped(name) in _COUNTERS or counted_prefix(name) is not None
  ]
  plain = {name: renamed(_unwrapped(name)) for name in names if name not in set(counters)}
  prefix, averaged = options.prefix, False
  if prefix == '.':
    prefix = ''
  if prefix is None:
    prefix, averaged = _common(list(plain.values()), empty)
  elif not any(name.startswith(prefix) for name in plain.values()):
    raise InputError(
      f'has no name that begins with {printable(prefix)}; it has '
      f'{listed(list(plain.values()))} (--prefix)'
    )
  result = {n: new[len(prefix) :] for n, new in plain.items() if new.startswith(prefix)}
  origin: dict[str, str] = {}
  for name, new in result.items():
    if new in origin:
      raise InputError(
        f"holds both '{printable(origin[new])}' and '{printable(name)}', "
        f"which are the same '{printable(new)}' without module. and "
        '_orig_mod. and as renamed; save one of them alone'
      )
    origin[new] = name
  return Naming(
    names=result,
    prefix=prefix,
    left_out=[name for name in plain if name not in result],
    counters=counters,
    averaged=averaged,
  )


def _unwrapped(name: str) -> str:
  """The name without wrappers wherever they stand in it, except at its end."""
  *parents, last = name.split('.')
  return '.'.join([part for part in parents if part not in _WRAPPERS] + [last])


def _common(names: Sequence[str], empty: Collection[str]) -> tuple[str, bool]:
  """The prefix of the one model among the names, and whether it says that it is an average."""
  counts = collections.Counter(prefix for name in names if (prefix := own_prefix(name)) is not None)
  if not counts:
    return '', False
  if not any(not is_no_weights(prefix) for prefix in counts):
    raise InputError(
      'holds no weights but the state of an optimizer or gradients, under '
      f'{listed(list(counts))}; give the file of the weights, or name it: '
      f'--prefix {printable(next(iter(counts)))}'
    )
  counts = {prefix: count for prefix, count in counts.items() if not is_no_weights(prefix)}
  most = max(counts.values())
  models = [prefix for prefix, count in counts.items() if 2 * count >= most]
  # An average that averaged nothing is taken where there is nothing else.
  models = [prefix for prefix in models if prefix not in empty] or models
  if len(models) == 1:
    return models[0], is_average(models[0]) and models[0] not in empty
  averages = [prefix for prefix in models if is_average(prefix)]
  if len(averages) == 1:
    return averages[0], averages[0] not in empty
  if '' in models:
    return '', False
  raise InputError(
    f'holds {len(models)} models, under different names; choose one: '
    + ' or '.join(f'--prefix {printable(prefix)}' for prefix in models[:10])
  )
