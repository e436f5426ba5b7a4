"""Takes off what wrappers put before or into the names of a model's tensors."""

import collections
import dataclasses
import functools
import re
from collections.abc import Sequence

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights import key_map
from painformer_jax.weights.options import FileOptions

# What DataParallel, torch.compile, FSDP and activation checkpoints put into names, at any place.
_WRAPPERS = {'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}

# Counters of averages (PyTorch, mmengine), which are no weights.
_COUNTERS = ('n_averaged', 'steps')

# Names that only a PainFormer has; others, such as norm1.weight, stand in any model.
_OWN = re.compile(r'(?:^|(?<=\.))(?:patch_embed[0-9]+|block[0-9]+\.[0-9]+|post_network\.[0-9]+)\.')
_AVERAGE = re.compile(r'(?:^|[._])(?:ema|swa|averaged?)(?:[._]|$)')


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


def find(names: Sequence[str], options: FileOptions) -> Naming:
  """Tells the model's names from those of a state dict.

  Args:
    names: of all its tensors.
    options: of the user.

  Raises:
    InputError: two names become the same, no name has the prefix that the user gives, or
      there are several models under different prefixes. The message begins with a verb.
  """
  renamed = options.renamed()
  counters = [name for name in names if _unwrapped(name) in _COUNTERS]
  plain = {name: renamed(_unwrapped(name)) for name in names if name not in set(counters)}
  prefix, averaged = options.prefix, False
  if prefix == '.':
    prefix = ''
  if prefix is None:
    prefix, averaged = _common(list(plain.values()))
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


def _common(names: Sequence[str]) -> tuple[str, bool]:
  """The prefix of the one model among the names, and whether it says that it is an average."""
  counts = collections.Counter(prefix for name in names if (prefix := own_prefix(name)) is not None)
  if not counts:
    return '', False
  most = max(counts.values())
  models = [prefix for prefix, count in counts.items() if 2 * count >= most]
  if len(models) == 1:
    return models[0], bool(_AVERAGE.search(models[0]))
  averages = [prefix for prefix in models if _AVERAGE.search(prefix)]
  if len(averages) == 1:
    return averages[0], True
  if '' in models:
    return '', False
  raise InputError(
    f'holds {len(models)} models, under different names; choose one: '
    + ' or '.join(f'--prefix {printable(prefix)}' for prefix in models[:10])
  )
