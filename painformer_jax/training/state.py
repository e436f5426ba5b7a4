"""What training changes: plain arrays in one pytree."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.heads import initial_heads

BACKBONE, HEADS, LOG_VARIANCE = 'backbone', 'heads', 'log_variance'


@struct.dataclass
class TrainState:
  """A training state.

  Attributes:
    step: int32, updates done.
    params: path -> learned array: 'backbone/...', 'heads/<task>/kernel' and
      'bias', and 'log_variance/<task>' where the weighting is learned.
    stats: path -> running statistics of the backbone, without prefix.
    opt_state: of the optimizer.
    key: [2] uint32, the run's key; step n draws from fold_in(key, n).
    ema: path -> moving average of each of `params`; {} where none is kept.
  """

  step: jax.Array
  params: dict[str, jax.Array]
  stats: dict[str, jax.Array]
  opt_state: object
  key: jax.Array
  ema: dict[str, jax.Array] = struct.field(default_factory=dict)

  @property
  def evaluated(self) -> dict[str, jax.Array]:
    """The parameters that evaluation and users take: the averages, where kept."""
    return self.ema or self.params


def initial_state(
  config: PainFormerConfig,
  *,
  classes: Mapping[str, int],
  learned_weighting: bool,
  optimizer,
  seed: int,
  backbone: Mapping[str, jax.Array] | None = None,
  averaged: bool = False,
) -> TrainState:
  """A state at step 0.

  Args:
    config: of the backbone.
    classes: task -> number of classes.
    learned_weighting: whether the tasks' uncertainty weights are parameters.
    optimizer: an optax transformation.
    seed: of everything random in the run.
    backbone: arrays to start the backbone from; None for fresh ones.
    averaged: whether a moving average of the parameters is kept.
  """
  key = jax.random.key(seed)
  key_backbone, key_heads, key_run = jax.random.split(key, 3)
  arrays = backbone or functional.initial_variables(config, key_backbone)
  learned = functional.parameter_paths(config)
  params = {f'{BACKBONE}/{path}': a for path, a in arrays.items() if path in learned}
  heads = initial_heads(classes, width=config.embedding_width, key=key_heads)
  params |= {f'{HEADS}/{path}': a for path, a in heads.items()}
  if learned_weighting:
    params |= {f'{LOG_VARIANCE}/{task}': jnp.zeros(()) for task in classes}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    stats={path: a for path, a in arrays.items() if path not in learned},
    opt_state=optimizer.init(params),
    key=jax.random.key_data(key_run),
    # Copies: a step gives its buffers away, each once.
    ema={path: jnp.copy(a) for path, a in params.items()} if averaged else {},
  )


def group(params: Mapping[str, jax.Array], name: str) -> dict[str, jax.Array]:
  """The arrays under a prefix, without it."""
  return {
    path.removeprefix(f'{name}/'): a for path, a in params.items() if path.startswith(f'{name}/')
  }
