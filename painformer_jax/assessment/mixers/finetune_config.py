"""How the backbone is fine-tuned, and at which rate each of its layers learns.

All values are reconstructed: whether and how the paper fine-tunes is not public.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from painformer_jax.core import path_rules
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.training import parameter_groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
  """How backbone and Embedding-Mixer train together, from images.

  `FitConfig` has what is common to both: warm-up, decay, clipping, label smoothing, class
  weights. The Embedding-Mixer learns at the learning rate of that config.

  BatchNorm in the stem keeps the running statistics of the weights: a step sees a few
  people whose frames are much alike, so its own statistics would be poor estimates. Its
  scale and bias learn. There is no stochastic depth.

  Attributes:
    learning_rate: of the backbone's last layers, the highest one.
    layer_decay: learning rate of a block over that of the block above it.
    frozen: regular expressions; a parameter whose whole path one of them matches
      stays as it is, such as '(patch_embed|block|norm)[12]/.*'.
    epochs: passes over the training samples.
    batch: samples in a step, over all devices.
    frames: images of each modality of a sample in a step, sampled anew in each step; tests
      use all images.
    images_at_once: images whose activations a device holds at once, 0 for all; a step of
      more images computes them twice. Activations of 32 in float32 take 6 GB by count.
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


def learning_rates(config: FinetuneConfig, model: PainFormerConfig) -> dict[str, float]:
  """Path -> highest learning rate of each backbone parameter that learns.

  Args:
    config: see `FinetuneConfig`.
    model: the backbone, without a head.

  Raises:
    InputError: an expression of `frozen` matches nothing, or they match everything.
  """
  paths = sorted(functional.parameter_paths(model))
  rules = parameter_groups.factor_rules(model, layer_decay=config.layer_decay)
  factors = path_rules.match(rules, paths, table='learning rate')
  frozen = parameter_groups.frozen_paths(config.frozen, paths, field='config.finetune.frozen')
  if len(frozen) == len(paths):
    raise InputError(
      'config.finetune.frozen leaves nothing of the backbone to learn: set '
      "config.backbone to 'frozen' instead"
    )
  return {path: config.learning_rate * factors[path] for path in paths if path not in frozen}


def describe(rates: Mapping[str, float], model: PainFormerConfig) -> str:
  """'19,423,104 of 19,596,704 parameters learn, at 2.4e-07 to 1e-05'."""
  shapes = functional.abstract_variables(model)
  learning = sum(shapes[path].size for path in rates)
  return (
    f'{learning:,} of {functional.count_parameters(model):,} parameters of the backbone '
    f'learn, at {min(rates.values()):.2g} to {max(rates.values()):.2g}'
  )
