"""How the backbone is fine-tuned, and at which rate each of its layers learns.

All values are reconstructed: whether and how the paper fine-tunes is not public.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from painformer_jax.core import path_rules
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
  """How backbone and Mixer train together, from images.

  What is not said here is said by `FitConfig`, for both: warm-up, decay, clipping,
  label smoothing, class weights. The Mixer learns at that config's own rate.

  BatchNorm in the stem keeps the statistics of the weights: a step sees a handful of
  people whose frames are much alike, and theirs would be poor ones. Its scale and
  offset learn. There is no stochastic depth.

  Attributes:
    learning_rate: of the backbone's last layers, at its highest.
    layer_decay: each block below learns at this share of the rate of the one above.
    frozen: regular expressions; a parameter whose whole path one of them matches
      stays as it is, such as '(patch_embed|block|norm)[12]/.*'.
    epochs: passes over the training samples.
    batch: samples a step, over all devices.
    frames: images of each modality of a sample in a step, drawn anew each time among
      all it has; what is tested sees them all.
    images_at_once: images that a device holds the activations of, 32 in float32 take
      6 GB by count; a step of more works them out twice. 0 for all.
    dtype: of the backbone's arithmetic while it trains.
    readers: threads that read recordings and draw images, for each modality.
    keep_images: whether images of videos are kept in the run's folder until it is
      finished (150 KB each at 224 pixels), so that faces are looked for once and not in
      every epoch.
  """

  learning_rate: float = 1e-5
  layer_decay: float = 0.85
  frozen: tuple[str, ...] = ()
  epochs: int = 10
  batch: int = 16
  frames: int = 8
  images_at_once: int = 32
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  readers: int = 2
  keep_images: bool = True

  def __post_init__(self):
    for name, least in (
      ('epochs', 1),
      ('batch', 1),
      ('frames', 1),
      ('images_at_once', 0),
      ('readers', 1),
    ):
      if getattr(self, name) < least:
        raise InputError(f'{name} is {getattr(self, name)}, below {least}')
    if not 0 <= self.learning_rate < float('inf'):
      raise InputError(f'learning_rate is {self.learning_rate}, below 0 or not finite')
    if not 0 < self.layer_decay <= 1:
      raise InputError(f'layer_decay is {self.layer_decay}, not in (0, 1]')
    for pattern in self.frozen:
      try:
        re.compile(pattern)
      except re.error as error:
        raise InputError(f'frozen: {pattern!r} is no regular expression: {error}') from error


def layer_rules(model: PainFormerConfig) -> tuple[tuple[str, int], ...]:
  """(regular expression, layer) for every parameter: 0 is the stem, 1 the first block.

  What leads into a stage counts with its first block, a stage's norm with its last;
  the class attention and the last norm are the top layer.
  """
  rules, first, top = [(r'patch_embed1/.*', 0)], 1, model.depth + 1
  for number, pattern in enumerate(model.mixers, 1):
    last = first + len(pattern) - 1
    rules += [(rf'block{number}/{i}/.*', first + i) for i in range(len(pattern))]
    rules.append((rf'patch_embed{number}/.*', first))
    rules.append((rf'norm{number}/.*', last if number < len(model.mixers) else top))
    first = last + 1
  return (*rules, (r'post_network/.*', top))


def learning_rates(config: FinetuneConfig, model: PainFormerConfig) -> dict[str, float]:
  """Path -> highest learning rate of each backbone parameter that learns.

  Args:
    config: see `FinetuneConfig`.
    model: the backbone, without a head.

  Raises:
    InputError: an expression of `frozen` matches nothing, or they match everything.
  """
  paths = sorted(functional.parameter_paths(model))
  layers = path_rules.match(layer_rules(model), paths, table='learning rate')
  frozen = _matched(config.frozen, paths)
  if len(frozen) == len(paths):
    raise InputError(
      'config.finetune.frozen leaves nothing of the backbone to learn: set '
      "config.backbone to 'frozen' instead"
    )
  top = model.depth + 1
  return {
    path: config.learning_rate * config.layer_decay ** (top - layers[path])
    for path in paths
    if path not in frozen
  }


def _matched(patterns: Iterable[str], paths: Iterable[str]) -> set[str]:
  found = set()
  for pattern in patterns:
    own = {path for path in paths if re.fullmatch(pattern, path)}
    if not own:
      raise InputError(
        f'config.finetune.frozen: {pattern!r} matches no parameter of the '
        f'backbone, such as {next(iter(paths))}'
      )
    found |= own
  return found


def describe(rates: Mapping[str, float], model: PainFormerConfig) -> str:
  """'19,423,104 of 19,596,704 parameters learn, at 2.4e-07 to 1e-05'."""
  shapes = functional.abstract_variables(model)
  learning = sum(shapes[path].size for path in rates)
  return (
    f'{learning:,} of {functional.count_parameters(model):,} parameters of the backbone '
    f'learn, at {min(rates.values()):.2g} to {max(rates.values()):.2g}'
  )
