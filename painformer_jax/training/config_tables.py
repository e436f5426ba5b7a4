"""The tables of a training config, as dataclasses: what each field means, and its default."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

from painformer_jax.core.config_fields import Renamed
from painformer_jax.core.errors import InputError
from painformer_jax.data import proportions
from painformer_jax.models import registry
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel.layout import Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """One task of the mixture.

  Attributes:
    batch_size: examples of every global batch that are its own; 0 for its share of
      `TrainConfig.batch_size`.
    share: of the batch, beside the other tasks', where `shares` is 'explicit'.
    epochs: how often its images are gone through at most; 0 for without end.
    augment: policy of `data.augment`, a name or a chain of operations.
    weight: factor on its loss where `weighting` is 'fixed'.
    mixup, cutmix: how its images are mixed with one another on the device, see
      `training.mixup.Mixup`; 0 for not at all.
  """

  RENAMED: typing.ClassVar = Renamed(fields={'rows': 'batch_size'})

  batch_size: int = 0
  share: float = 1.0
  epochs: int = 0
  augment: str = 'none'
  weight: float = 1.0
  mixup: float = 0.0
  cutmix: float = 0.0

  def check_mixing(self, where: str) -> None:
    """Asserts that the task's images can be mixed as asked; an unknown batch size will do.

    Raises:
      InputError: they cannot.
    """
    for name in ('mixup', 'cutmix'):
      value = getattr(self, name)
      if not 0 <= value <= 100:
        raise InputError(f'{where}.{name} is {value}, not in [0, 100]')
      if value and self.batch_size == 1:
        raise InputError(
          f'{where}.{name} is {value}, but its batch size is 1: give it 2 or more images to mix'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW; the defaults are reconstructed, the paper's are not public here.

  Attributes:
    learning_rate: at the end of the warm-up.
    warmup_steps: steps of linear warm-up.
    end_learning_rate_ratio: learning rate at the last step over `learning_rate`.
    weight_decay: on kernels and spectral filters.
    b1, b2: decay of the moments.
    clip_norm: limit of the gradient's global norm; 0 for none.
    layer_decay: each layer's rate is the next one's times this; the stem has the
      smallest, the class attention the full one.
    head_learning_rate_multiplier: on the rate of heads and learned task weights.
    frozen: regular expressions of whole paths that stay as they are, such as
      'backbone/(patch_embed1|block1)/.*'; they have no moments and no part in the
      norm that is clipped.
  """

  RENAMED: typing.ClassVar = Renamed(
    fields={
      'final_ratio': 'end_learning_rate_ratio',
      'head_factor': 'head_learning_rate_multiplier',
    }
  )

  learning_rate: float = 2e-5
  warmup_steps: int = 0
  end_learning_rate_ratio: float = 0.0
  weight_decay: float = 0.1
  b1: float = 0.9
  b2: float = 0.999
  clip_norm: float = 1.0
  layer_decay: float = 1.0
  head_learning_rate_multiplier: float = 1.0
  frozen: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """Everything that decides a run.

  Attributes:
    model: preset name under 'name', and fields of PainFormerConfig to replace.
    tasks: task name -> its share of the batch.
    data_dir: folder of the prepared tasks.
    steps: length of the run.
    batch_size: examples of the global batch, divided among the tasks by `shares`; 0
      where every task has a `batch_size` of its own.
    shares: the rule of division, see `data.proportions`.
    temperature: of the rule 'temperature'.
    batch_size_multiple: each task's batch size is a multiple of this, such as the number
      of devices.
    seed: of initial values, stochastic depth and the order of samples.
    weighting: 'uncertainty' learns e^{-w} L + w; 'fixed' takes tasks' weights.
    label_smoothing: of every task's cross-entropy.
    sharding: what each device keeps of the state.
    grad_accum_steps: microbatches into which a step's batch is cut, so that the activations of
      one are held at a time; the result is that of the whole batch, batch statistics too.
    remat: what the blocks compute again in the backward pass, see `models.painformer.REMAT`:
      one word, or one for each stage, such as 'full-full-none-none'.
    ema_decay: of an exponential moving average of the parameters, which is then
      what is evaluated and loaded from the run; 0 for none. The first steps
      average over less: decay is at most (1 + step) / (10 + step).
    non_finite: at a step whose loss or gradient is not finite: 'stop', or 'skip'
      its update, up to `max_skipped` steps in a row.
    max_skipped: see there.
    initial_weights: a file or folder to start the backbone from; '' for none.
    eval_batch_size: images of an evaluation batch.
    log_every, eval_every, checkpoint_every: in steps; eval_every 0 evaluates
      at the end only.
    keep_checkpoints: how many of the newest stay.
    threads: that read and decode, each a whole step ahead.
    workers: processes that do so, with that many threads each, where one process cannot
      keep the devices busy; 0 for threads of the run's own process.
    profile_at: number of the step from which on a trace is taken; 0 for none, see
      `training.profile`.
    profile_steps: how many steps a trace holds.
    wandb: project of Weights & Biases that mirrors the metrics, 'name' or
      'entity/name'; '' for none, see `training.tracking`.
  """

  RENAMED: typing.ClassVar = Renamed(
    fields={
      'batch': 'batch_size',
      'rows_multiple': 'batch_size_multiple',
      'eval_batch': 'eval_batch_size',
      'accumulate': 'grad_accum_steps',
    },
    values={'remat': {'all': 'none', 'products': 'dots', 'inputs': 'full'}},
  )

  model: Mapping[str, Any]
  tasks: Mapping[str, TaskConfig]
  data_dir: str
  steps: int
  optimizer: OptimizerConfig = OptimizerConfig()
  batch_size: int = 0
  shares: proportions.Shares = 'equal'
  temperature: float = 2.0
  batch_size_multiple: int = 1
  seed: int = 0
  weighting: Literal['uncertainty', 'fixed'] = 'uncertainty'
  label_smoothing: float = 0.0
  sharding: Strategy = Strategy()
  grad_accum_steps: int = 1
  remat: str = 'none'
  ema_decay: float = 0.0
  non_finite: Literal['stop', 'skip'] = 'stop'
  max_skipped: int = 10
  initial_weights: str = ''
  eval_batch_size: int = 64
  log_every: int = 20
  eval_every: int = 0
  checkpoint_every: int = 200
  keep_checkpoints: int = 2
  threads: int = 2
  workers: int = 0
  profile_at: int = 0
  profile_steps: int = 5
  wandb: str = ''

  # Fields that may change when a run is resumed: they leave its result alone, but for
  # rounding the three of other devices.
  RESUMABLE: typing.ClassVar = frozenset(
    {
      'data_dir',
      'profile_at',
      'profile_steps',
      'wandb',
      'log_every',
      'eval_every',
      'checkpoint_every',
      'keep_checkpoints',
      'threads',
      'workers',
      'eval_batch_size',
      'max_skipped',
      'sharding',
      'grad_accum_steps',
      'remat',
    }
  )

  def model_config(self) -> PainFormerConfig:
    """The backbone's shape, without a head of its own."""
    overrides = {k: v for k, v in self.model.items() if k != 'name'}
    return registry.make_config(self.model['name'], **{**overrides, 'num_classes': 0})

  @property
  def remat_stages(self) -> tuple[str, ...]:
    """`remat` of each stage."""
    words, stages = self.remat.split('-'), len(self.model_config().widths)
    return tuple(words * stages if len(words) == 1 else words)

  @property
  def batch_sizes(self) -> dict[str, int]:
    """Task -> its examples of every global batch."""
    return {name: task.batch_size for name, task in self.tasks.items()}

  def with_batch_sizes(self, sizes: Mapping[str, int]) -> 'TrainConfig':
    """The config with every task's batch size set.

    Args:
      sizes: task -> number of its training images.

    Raises:
      InputError: the batch cannot be divided so.
    """
    if not self.batch_size:
      return self
    try:
      batch_sizes = proportions.divide_batch(
        {name: sizes[name] for name in self.tasks},
        self.batch_size,
        shares=self.shares,
        temperature=self.temperature,
        multiple=self.batch_size_multiple,
        explicit={name: task.share for name, task in self.tasks.items()},
      )
    except InputError as error:
      raise InputError(f'config.batch_size: {error}') from error
    config = dataclasses.replace(
      self,
      tasks={
        name: dataclasses.replace(task, batch_size=batch_sizes[name])
        for name, task in self.tasks.items()
      },
    )
    for name, task in config.tasks.items():
      task.check_mixing(f'config.tasks.{name}')
    return config

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)
