"""A run's configuration, checked before any work starts.

Config files are plain Python with `get_config()` returning a ConfigDict; this
module turns one into dataclasses, so that a typo is one clear line instead of
a default silently used.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from painformer_jax.errors import InputError
from painformer_jax.models import registry
from painformer_jax.models.config import PainFormerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """One task of the mixture.

  Attributes:
    rows: how many rows of every global batch are its own.
    augment: policy of `data.augment`.
    weight: factor on its loss where `weighting` is 'fixed'.
  """

  rows: int
  augment: str = 'none'
  weight: float = 1.0


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
  """

  learning_rate: float = 2e-5
  warmup_steps: int = 0
  final_ratio: float = 0.0
  weight_decay: float = 0.1
  b1: float = 0.9
  b2: float = 0.999
  clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """Everything that decides a run.

  Attributes:
    model: preset name under 'name', and fields of PainFormerConfig to replace.
    tasks: task name -> its share of the batch.
    data_dir: folder of the prepared tasks.
    steps: length of the run.
    seed: of initial values, stochastic depth and the order of samples.
    weighting: 'uncertainty' learns e^{-w} L + w; 'fixed' takes tasks' weights.
    label_smoothing: of every task's cross-entropy.
    initial_weights: a file or folder to start the backbone from; '' for none.
    eval_batch: rows of an evaluation batch.
    log_every, eval_every, checkpoint_every: in steps; eval_every 0 evaluates
      at the end only.
    keep_checkpoints: how many of the newest stay.
    threads: that read and decode, each a whole step ahead.
  """

  model: Mapping[str, Any]
  tasks: Mapping[str, TaskConfig]
  data_dir: str
  steps: int
  optimizer: OptimizerConfig = OptimizerConfig()
  seed: int = 0
  weighting: Literal['uncertainty', 'fixed'] = 'uncertainty'
  label_smoothing: float = 0.0
  initial_weights: str = ''
  eval_batch: int = 64
  log_every: int = 20
  eval_every: int = 0
  checkpoint_every: int = 200
  keep_checkpoints: int = 2
  threads: int = 2

  # Fields that may change when a run is resumed: they leave its result alone.
  RESUMABLE: typing.ClassVar = frozenset(
      {'data_dir', 'log_every', 'eval_every', 'checkpoint_every',
       'keep_checkpoints', 'threads', 'eval_batch'})

  def model_config(self) -> PainFormerConfig:
    """The backbone's shape, without a head of its own."""
    overrides = {k: v for k, v in self.model.items() if k != 'name'}
    return registry.make_config(self.model['name'], **{**overrides, 'num_classes': 0})

  @property
  def rows(self) -> dict[str, int]:
    return {name: task.rows for name, task in self.tasks.items()}

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)


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
  config = ml_collections.ConfigDict({
      f.name: f.default for f in dataclasses.fields(TrainConfig)
      if f.default is not dataclasses.MISSING and f.name != 'optimizer'})
  config.model = {'name': model, **shape}
  config.optimizer = dataclasses.asdict(OptimizerConfig())
  config.data_dir = 'runs/data'
  return config


def from_config_dict(config: ml_collections.ConfigDict | Mapping) -> TrainConfig:
  """Checks a ConfigDict and turns it into a TrainConfig.

  Raises:
    InputError: an unknown or missing field, or a value that does not fit.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  tree = dict(config)
  tasks = {name: _build(TaskConfig, task, where=f'config.tasks.{name}')
           for name, task in dict(tree.pop('tasks', {})).items()}
  optimizer = _build(OptimizerConfig, tree.pop('optimizer', {}), where='config.optimizer')
  result = _build(TrainConfig, {**tree, 'tasks': tasks, 'optimizer': optimizer},
                  where='config')
  _check(result)
  return result


def _build(kind, values: Mapping, *, where: str):
  fields = {f.name: f for f in dataclasses.fields(kind)}
  if not isinstance(values, Mapping):
    raise InputError(f'{where} is {values!r}, not a table of fields')
  for name in values:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, n=1)
      hint = f'; did you mean {near[0]}?' if near else ''
      raise InputError(f'{where} has no field {name!r}{hint} (known: {", ".join(fields)})')
  converted = {}
  for name, field in fields.items():
    if name not in values:
      if field.default is dataclasses.MISSING:
        raise InputError(f'{where}.{name} is missing')
      continue
    value = values[name]
    if field.type is float and isinstance(value, int) and not isinstance(value, bool):
      value = float(value)
    if field.type in (int, float, str) and type(value) is not field.type:
      raise InputError(f'{where}.{name} is {value!r}, not of type {field.type.__name__}')
    if typing.get_origin(field.type) is Literal and value not in typing.get_args(field.type):
      raise InputError(
          f'{where}.{name} is {value!r}: one of {", ".join(typing.get_args(field.type))}')
    converted[name] = value
  return kind(**converted)


def _check(config: TrainConfig) -> None:
  """Raises InputError for values that no run could use."""
  at_least = {'steps': 1, 'eval_batch': 1, 'log_every': 1, 'checkpoint_every': 1,
              'keep_checkpoints': 1, 'threads': 1, 'eval_every': 0, 'seed': 0}
  for name, least in at_least.items():
    if getattr(config, name) < least:
      raise InputError(f'config.{name} is {getattr(config, name)}, below {least}')
  if not config.tasks:
    raise InputError('config.tasks is empty: name at least one prepared task')
  if not isinstance(config.model, Mapping) or 'name' not in config.model:
    raise InputError("config.model needs a 'name', one of: "
                     + ', '.join(registry.list_models()))
  if not 0 <= config.label_smoothing < 1:
    raise InputError(f'config.label_smoothing is {config.label_smoothing}, not in [0, 1)')
  optimizer = config.optimizer
  if not 0 <= optimizer.warmup_steps < config.steps:
    raise InputError(
        f'config.optimizer.warmup_steps is {optimizer.warmup_steps}, '
        f'not in [0, {config.steps}) steps')
  for name in ('learning_rate', 'weight_decay', 'clip_norm', 'final_ratio'):
    if not 0 <= getattr(optimizer, name) < float('inf'):
      raise InputError(f'config.optimizer.{name} is {getattr(optimizer, name)}, below 0 or not finite')
  config.model_config()


def changed_fields(config: TrainConfig, stored: Mapping) -> list[str]:
  """Fields, as 'name: stored -> now', in which a run differs from its record."""
  now = json.loads(config.to_json())
  return [f'{name}: {json.dumps(stored.get(name))} -> {json.dumps(now.get(name))}'
          for name in sorted(now.keys() | stored.keys())
          if name not in TrainConfig.RESUMABLE and now.get(name) != stored.get(name)]
