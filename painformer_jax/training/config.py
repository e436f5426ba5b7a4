"""Training configs: read from a config file's table or from a run's record.

Config files are plain Python with `get_config()` returning a ConfigDict, which this module
turns into dataclasses. A typo is one clear line instead of a default silently used.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from painformer_jax.core.config_fields import build, changes, check_known, typed, with_defaults
from painformer_jax.core.errors import InputError
from painformer_jax.models import registry
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel.layout import Strategy
from painformer_jax.training.config_checks import check
from painformer_jax.training.config_tables import OptimizerConfig, TaskConfig, TrainConfig

__all__ = [
  'OptimizerConfig',
  'TaskConfig',
  'TrainConfig',
  'changed_fields',
  'defaults',
  'from_config_dict',
  'from_record',
]

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
  for name in (
    'num_classes',
    'mean',
    'std',
  ):  # Heads belong to the tasks, statistics to the preset.
    del shape[name]
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
  check(result)
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


def from_record(record: Mapping[str, Any]) -> TrainConfig:
  """Checks what a run's config.json holds and turns it into a TrainConfig.

  Where the run divided a batch among its tasks, the tasks' own batch sizes are left out:
  `TrainConfig.with_batch_sizes` gives them again.

  Raises:
    InputError: an unknown or missing field, or a value that does not fit.
    KeyError, TypeError, AttributeError: it is no record of a run.
  """
  record = with_defaults(TrainConfig, record)
  # JSON has no tuples, and a model's shape must be hashable.
  model = {k: tuple(v) if isinstance(v, list) else v for k, v in record['model'].items()}
  tasks = record['tasks']
  if record['batch_size']:
    tasks = {
      name: {k: v for k, v in task.items() if k != 'batch_size'} for name, task in tasks.items()
    }
  return from_config_dict({**record, 'model': model, 'tasks': tasks})


def changed_fields(config: TrainConfig, stored: Mapping) -> list[str]:
  """Fields, as 'path: stored -> now', in which a run differs from its record.

  Fields that an older release did not have count as having their defaults.
  """
  return changes(
    json.loads(config.to_json()), with_defaults(TrainConfig, stored), free=TrainConfig.RESUMABLE
  )
