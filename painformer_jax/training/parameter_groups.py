"""Which parameters decay, how fast each layer learns, and which are frozen: rules by path.

Pre-training and the fine-tuning of assessments use the same tables.
"""

import re
from collections.abc import Iterable, Sequence

from painformer_jax.core import path_rules
from painformer_jax.core.errors import InputError
from painformer_jax.models.config import PainFormerConfig

# Whether weight decay applies. Filters of the spectral gate decay like other
# weights, as in the SpectFormer and GFNet recipes.
DECAY_RULES = (
  (r'log_variance/.*', False),
  (r'(.*/)?latents', False),  # Of an Embedding-Mixer.
  (r'.*/(bias|scale)', False),
  (r'.*/(kernel|complex_weight)', True),
)


def decay_mask(parameters: Iterable[str]) -> dict[str, bool]:
  """Path -> whether the parameter decays.

  Raises:
    ValueError: a path that no rule matches.
  """
  return path_rules.match(DECAY_RULES, parameters, table='weight decay')


def layer_rules(model: PainFormerConfig, *, prefix: str = '') -> tuple[tuple[str, int], ...]:
  """(regular expression, layer) for every parameter of a backbone without a head.

  The stem is layer 0, the blocks of all stages count from 1. The convolution before a
  stage counts with its first block, the norm after it with its last. The class attention
  and the last norm are the top layer, `model.depth + 1`.

  Args:
    model: the backbone.
    prefix: that all paths begin with, such as 'backbone/'.
  """
  rules, first, top = [(f'{prefix}patch_embed1/.*', 0)], 1, model.depth + 1
  for number, pattern in enumerate(model.mixers, 1):
    last = first + len(pattern) - 1
    rules += [(f'{prefix}block{number}/{i}/.*', first + i) for i in range(len(pattern))]
    if number > 1:
      rules.append((f'{prefix}patch_embed{number}/.*', first))
    rules.append((f'{prefix}norm{number}/.*', last if number < len(model.mixers) else top))
    first = last + 1
  return (*rules, (f'{prefix}post_network/.*', top))


def factor_rules(
  model: PainFormerConfig, *, layer_decay: float, prefix: str = ''
) -> tuple[tuple[str, float], ...]:
  """(regular expression, factor on the learning rate): 1 at the top, less by layer below.

  Args:
    model, prefix: see `layer_rules`.
    layer_decay: factor of a layer over that of the layer above.
  """
  top = model.depth + 1
  return tuple(
    (pattern, layer_decay ** (top - layer)) for pattern, layer in layer_rules(model, prefix=prefix)
  )


def frozen_paths(patterns: Sequence[str], paths: Iterable[str], *, field: str) -> set[str]:
  """The paths that one of the regular expressions matches as a whole.

  Args:
    patterns: regular expressions.
    paths: of all parameters.
    field: name of the config field that holds the patterns, for the message.

  Raises:
    InputError: an expression matches none.
  """
  paths, found = set(paths), set()
  for pattern in patterns:
    own = {path for path in paths if re.fullmatch(pattern, path)}
    if not own:
      raise InputError(f'{field}: {pattern!r} matches no parameter, such as {min(paths)}')
    found |= own
  return found
