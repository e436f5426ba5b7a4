"""A run's configuration, checked before any work starts.

Config files are plain Python with `get_config()` returning a ConfigDict; this
module turns one into dataclasses, so that a typo is one clear line instead of
a default silently used.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from painformer_jax.core.config_fields import (
  build,
  changes,
  check_known,
  hint,
  typed,
  with_defaults,
)
from painformer_jax.core.errors import InputError
from painformer_jax.data import augment, proportions
from painformer_jax.models import registry
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.painformer import REMAT
from painformer_jax.parallel.layout import Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """One task of the mixture.

  Attributes:
    rows: how many rows of every global batch are its own; 0 for its share of
      `TrainConfig.batch`.
    share: of the batch, beside the other tasks', where `shares` is 'explicit'.
    epochs: how often its images are gone through at most; 0 for without end.
    augment: policy of `data.augment`, a name or a chain of operations.
    weight: factor on its loss where `weighting` is 'fixed'.
    mixup, cutmix: how its rows are mixed with one another on the device, see
      `training.mix.Mixing`; 0 for not at all.
  """

  rows: int = 0
  share: float = 1.0
  epochs: int = 0
  augment: str = 'none'
  weight: float = 1.0
  mixup: float = 0.0
  cutmix: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW; the defaults are reconstructed, the paper's are not public here.

  Attributes:
    learning_rate: at the end of the warm-up.
    warmup_steps: steps of linear warm-up.
    final_ratio: learning rate at the last step over `learning_rate`.
    weight_decay: on kernels and spectral filters.
    b1, b2: decay of the moments.
    clip_norm: limit of the gradient's global norm; 0 for none.
    layer_decay: each layer's rate is the next one's times this; the stem has the
      smallest, the class attention the full one.
    head_factor: on the rate of heads and learned task weights.
    frozen: regular expressions of whole paths that stay as they are, such as
      'backbone/(patch_embed1|block1)/.*'; they have no moments and no part in the
      norm that is clipped.
  """

  learning_rate: float = 2e-5
  warmup_steps: int = 0
  final_ratio: float = 0.0
  weight_decay: float = 0.1
  b1: float = 0.9
  b2: float = 0.999
  clip_norm: float = 1.0
  layer_decay: float = 1.0
  head_factor: float = 1.0
  frozen: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """Everything that decides a run.

  Attributes:
    model: preset name under 'name', and fields of PainFormerConfig to replace.
    tasks: task name -> its share of the batch.
    data_dir: folder of the prepared tasks.
    steps: length of the run.
    batch: rows of the global batch, divided among the tasks by `shares`; 0 where
      every task names its rows.
    shares: the rule of division, see `data.proportions`.
    temperature: of the rule 'temperature'.
    rows_multiple: each task's rows are a multiple of this, such as the number of
      devices.
    seed: of initial values, stochastic depth and the order of samples.
    weighting: 'uncertainty' learns e^{-w} L + w; 'fixed' takes tasks' weights.
    label_smoothing: of every task's cross-entropy.
    sharding: what each device keeps of the state.
    accumulate: parts into which a step's rows are cut, so that the activations of one
      part are held at a time; the result is that of the whole, batch statistics too.
    remat: what the blocks keep for the backward pass, see `models.painformer.REMAT`:
      one word, or one for each stage, such as 'inputs-inputs-all-all'.
    ema_decay: of an exponential moving average of the parameters, which is then
      what is evaluated and loaded from the run; 0 for none. The first steps
      average over less: decay is at most (1 + step) / (10 + step).
    non_finite: at a step whose loss or gradient is not finite: 'stop', or 'skip'
      its update, up to `max_skipped` steps in a row.
    max_skipped: see there.
    initial_weights: a file or folder to start the backbone from; '' for none.
    eval_batch: rows of an evaluation batch.
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

  model: Mapping[str, Any]
  tasks: Mapping[str, TaskConfig]
  data_dir: str
  steps: int
  optimizer: OptimizerConfig = OptimizerConfig()
  batch: int = 0
  shares: proportions.Shares = 'equal'
  temperature: float = 2.0
  rows_multiple: int = 1
  seed: int = 0
  weighting: Literal['uncertainty', 'fixed'] = 'uncertainty'
  label_smoothing: float = 0.0
  sharding: Strategy = Strategy()
  accumulate: int = 1
  remat: str = 'all'
  ema_decay: float = 0.0
  non_finite: Literal['stop', 'skip'] = 'stop'
  max_skipped: int = 10
  initial_weights: str = ''
  eval_batch: int = 64
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
      'eval_batch',
      'max_skipped',
      'sharding',
      'accumulate',
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
  def rows(self) -> dict[str, int]:
    return {name: task.rows for name, task in self.tasks.items()}

  def with_rows(self, sizes: Mapping[str, int]) -> 'TrainConfig':
    """The config with every task's rows set.

    Args:
      sizes: task -> number of its training images.

    Raises:
      InputError: the batch cannot be divided so.
    """
    if not self.batch:
      return self
    try:
      rows = proportions.divide_batch(
        {name: sizes[name] for name in self.tasks},
        self.batch,
        shares=self.shares,
        temperature=self.temperature,
        multiple=self.rows_multiple,
        explicit={name: task.share for name, task in self.tasks.items()},
      )
    except InputError as error:
      raise InputError(f'config.batch: {error}') from error
    config = dataclasses.replace(
      self,
      tasks={name: dataclasses.replace(task, rows=rows[name]) for name, task in self.tasks.items()},
    )
    _check_mixing(config)
    return config

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)


# Fields that are tables of their own.
_TABLES = {'optimizer': OptimizerConfig, 'sharding': Strategy}


def defaults(model: str) -> ml_collections.ConfigDict:
  """A config with every field at its default, for config files to start from.

  Args:
    model: preset name; all fields of its shape become `config.model`, so that
      a run's record says what was trained even if presets change.

  Returns:
    A ConfigDict without tasks, data_dir and steps set: those are the file's.
  """
  shape = dataclasses.asdict(registry.preset(model).config)
  del shape['num_classes']  # Heads belong to the tasks.
  config = ml_collections.ConfigDict(
    {
      f.name: f.default
      for f in dataclasses.fields(TrainConfig)
      if f.default is not dataclasses.MISSING and f.name not in _TABLES
    }
  )
  config.model = {'name': model, **shape}
  for name, kind in _TABLES.items():
    config[name] = dataclasses.asdict(kind())
  config.data_dir = 'runs/data'
  return config


def from_config_dict(config: ml_collections.ConfigDict | Mapping) -> TrainConfig:
  """Checks a ConfigDict and turns it into a TrainConfig.

  Raises:
    InputError: an unknown or missing field, or a value that does not fit.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  result = build(TrainConfig, config, where='config')
  result = dataclasses.replace(
    result, model=_model_values(result.model), tasks=dict(sorted(result.tasks.items()))
  )  # Their order is part of a run.
  _check(result)
  return result


def _model_values(values: Mapping) -> dict[str, Any]:
  """'name' and fields of PainFormerConfig, each of the right type and size."""
  if 'name' not in values:
    raise InputError("config.model needs a 'name', one of: " + ', '.join(registry.list_models()))
  fields = {f.name: f.type for f in dataclasses.fields(PainFormerConfig)}
  del fields['num_classes']  # Heads belong to the tasks.
  fields = {'name': str, **fields}
  check_known(values, fields, where='config.model')
  result = {
    name: typed(value, fields[name], where=f'config.model.{name}') for name, value in values.items()
  }
  for name, value in result.items():
    sizes = value if isinstance(value, tuple) else (value,)
    least = 0 if name == 'post_blocks' else 1
    if any(type(size) is int and size < least for size in sizes):
      raise InputError(f'config.model.{name} is {value!r}, below {least}')
  return result


def _check(config: TrainConfig) -> None:
  """Raises InputError for values that no run could use."""
  at_least = {
    'steps': 1,
    'eval_batch': 1,
    'log_every': 1,
    'checkpoint_every': 1,
    'keep_checkpoints': 1,
    'threads': 1,
    'workers': 0,
    'eval_every': 0,
    'seed': 0,
    'profile_at': 0,
    'profile_steps': 1,
    'batch': 0,
    'rows_multiple': 1,
    'accumulate': 1,
    'max_skipped': 1,
  }
  for name, least in at_least.items():
    if getattr(config, name) < least:
      raise InputError(f'config.{name} is {getattr(config, name)}, below {least}')
  if not config.tasks:
    raise InputError('config.tasks is empty: name at least one prepared task')
  for name, task in config.tasks.items():
    if config.batch and task.rows:
      raise InputError(
        f'config.tasks.{name}.rows is {task.rows}, but config.batch is divided among the '
        'tasks: set one of them to 0'
      )
    if task.rows < 1 and not config.batch:
      raise InputError(
        f'config.tasks.{name}.rows is {task.rows}, below 1: name the rows of every task, '
        'or a config.batch to divide'
      )
    if task.epochs < 0:
      raise InputError(f'config.tasks.{name}.epochs is {task.epochs}, below 0')
    if task.share != 1 and config.shares != 'explicit':
      raise InputError(
        f"config.tasks.{name}.share is {task.share}: set config.shares to 'explicit'"
      )
    if not 0 <= task.weight < float('inf'):
      raise InputError(f'config.tasks.{name}.weight is {task.weight}, below 0 or not finite')
    if task.weight != 1 and config.weighting != 'fixed':
      raise InputError(
        f'config.tasks.{name}.weight is {task.weight}, but weights are learned: set '
        "config.weighting to 'fixed'"
      )
    try:
      augment.policy(task.augment)
    except InputError as error:
      raise InputError(f'config.tasks.{name}.augment: {error}') from error
  _check_mixing(config)
  if not 0 <= config.label_smoothing < 1:
    raise InputError(f'config.label_smoothing is {config.label_smoothing}, not in [0, 1)')
  optimizer = config.optimizer
  if not 0 <= optimizer.warmup_steps < config.steps:
    raise InputError(
      f'config.optimizer.warmup_steps is {optimizer.warmup_steps}, not in [0, {config.steps}) steps'
    )
  for name in ('learning_rate', 'weight_decay', 'clip_norm', 'final_ratio', 'head_factor'):
    if not 0 <= getattr(optimizer, name) < float('inf'):
      raise InputError(
        f'config.optimizer.{name} is {getattr(optimizer, name)}, below 0 or not finite'
      )
  for name in ('b1', 'b2'):
    if not 0 <= getattr(optimizer, name) < 1:
      raise InputError(f'config.optimizer.{name} is {getattr(optimizer, name)}, not in [0, 1)')
  if not 0 < optimizer.layer_decay <= 1:
    raise InputError(f'config.optimizer.layer_decay is {optimizer.layer_decay}, not in (0, 1]')
  for pattern in optimizer.frozen:
    try:
      re.compile(pattern)
    except re.error as error:
      raise InputError(
        f'config.optimizer.frozen: {pattern!r} is no regular expression ({error})'
      ) from error
  if not 0 <= config.ema_decay < 1:
    raise InputError(f'config.ema_decay is {config.ema_decay}, not in [0, 1)')
  shared = config.sharding.class_devices
  if shared not in (1, 2, 4, 8, 16, 32, 64, 128):
    raise InputError(f'config.sharding.class_devices is {shared}, not a power of two up to 128')
  if config.sharding.slices < 0:
    raise InputError(f'config.sharding.slices is {config.sharding.slices}, below 0')
  try:
    stages = len(config.model_config().widths)
  except InputError as error:
    raise InputError(f'config.model: {error}') from error
  if unknown := set(config.remat_stages) - set(REMAT):
    raise InputError(f'config.remat is {config.remat!r}{hint(min(unknown), REMAT)}')
  if len(config.remat_stages) != stages:
    raise InputError(
      f'config.remat names {len(config.remat_stages)} stages of {stages}: {config.remat!r}'
    )


def _check_mixing(config: TrainConfig) -> None:
  """Raises InputError where rows cannot be mixed so; rows of 0 are not yet known."""
  for name, task in config.tasks.items():
    for field in ('mixup', 'cutmix'):
      value = getattr(task, field)
      if not 0 <= value <= 100:
        raise InputError(f'config.tasks.{name}.{field} is {value}, not in [0, 100]')
      if value and task.rows == 1:
        raise InputError(
          f'config.tasks.{name}.{field} is {value}, but the task has one row a batch, '
          'with none to mix it with: give it 2 or more'
        )


def from_record(record: Mapping[str, Any]) -> TrainConfig:
  """Checks what a run's config.json holds and turns it into a TrainConfig.

  Where the run divided a batch among its tasks, the tasks' own batch sizes are left out:
  `TrainConfig.with_rows` gives them again.

  Raises:
    InputError: an unknown or missing field, or a value that does not fit.
    KeyError, TypeError, AttributeError: it is no record of a run.
  """
  record = with_defaults(TrainConfig, record)
  # JSON has no tuples, and a model's shape must be hashable.
  model = {k: tuple(v) if isinstance(v, list) else v for k, v in record['model'].items()}
  tasks = record['tasks']
  if record['batch']:
    tasks = {name: {k: v for k, v in task.items() if k != 'rows'} for name, task in tasks.items()}
  return from_config_dict({**record, 'model': model, 'tasks': tasks})


def changed_fields(config: TrainConfig, stored: Mapping) -> list[str]:
  """Fields, as 'path: stored -> now', in which a run differs from its record.

  Fields that an older release did not have count as having their defaults.
  """
  return changes(
    json.loads(config.to_json()), with_defaults(TrainConfig, stored), free=TrainConfig.RESUMABLE
  )
