"""How an Embedding-Mixer is trained on a fold, as data."""

import dataclasses
from typing import ClassVar, Literal

from painformer_jax.core.config_fields import Renamed
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
  """How each fold trains.

  All values are reconstructed: the paper's are not public.

  Attributes:
    model: the network; `outputs` is the number of classes.
    epochs: passes over the training samples of the largest fold; smaller folds
      take the same number of steps.
    steps: steps of every fold instead of `epochs`; None for epochs.
    batch: samples of a fold in a step.
    seeds: each fold trains once with each of them.
    learning_rate: the highest one.
    warmup: share of the steps in which the learning rate rises from 0; a half cosine
      follows.
    end_learning_rate_ratio: learning rate at the last step over `learning_rate`.
    weight_decay, b1, b2: of AdamW; norms, biases and latents do not decay.
    clip_norm: largest norm of a fold's gradient; 0 for no limit.
    label_smoothing: share of the target spread evenly over all classes.
    class_weights: 'balanced' weights a sample by the inverse frequency of its
      class among the fold's training samples.
    input_noise: standard deviation of noise on the embeddings, in their units.
    token_dropout: chance to hide an embedding from a training step; a sample
      keeps all of its own where none would remain.
  """

  model: EmbeddingMixerConfig
  epochs: int = 40
  steps: int | None = None
  batch: int = 32
  seeds: tuple[int, ...] = (0,)
  learning_rate: float = 1e-3
  warmup: float = 0.1
  end_learning_rate_ratio: float = 0.01
  weight_decay: float = 0.05
  b1: float = 0.9
  b2: float = 0.999
  clip_norm: float = 0.0
  label_smoothing: float = 0.1
  class_weights: Literal['none', 'balanced'] = 'none'
  input_noise: float = 0.0
  token_dropout: float = 0.0

  RENAMED: ClassVar = Renamed(fields={'final_ratio': 'end_learning_rate_ratio'})

  def __post_init__(self):
    for name in ('epochs', 'batch', 'steps'):
      if getattr(self, name) is not None and getattr(self, name) < 1:
        raise ValueError(f'{name} {getattr(self, name)} is below 1')
    if not self.seeds or len(set(self.seeds)) != len(self.seeds):
      raise ValueError(f'seeds {self.seeds}: one or more, each once')
    for name in (
      'warmup',
      'end_learning_rate_ratio',
      'b1',
      'b2',
      'label_smoothing',
      'token_dropout',
    ):
      if not 0 <= getattr(self, name) <= 1 - (name in ('b1', 'b2', 'token_dropout')) * 1e-9:
        raise ValueError(f'{name} {getattr(self, name)} is not a share')
    for name in ('learning_rate', 'weight_decay', 'clip_norm', 'input_noise'):
      if not 0 <= getattr(self, name) < float('inf'):
        raise ValueError(f'{name} {getattr(self, name)} is negative or not finite')
    if self.class_weights not in ('none', 'balanced'):
      raise ValueError(f"class_weights {self.class_weights!r}: 'none' or 'balanced'")
