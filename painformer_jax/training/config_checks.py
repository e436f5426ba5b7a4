"""Checks a training config before any work starts: ranges, and fields that exclude others."""

import re

from painformer_jax.core.config_fields import hint
from painformer_jax.core.errors import InputError
from painformer_jax.data import augment
from painformer_jax.models.painformer import REMAT
from painformer_jax.training.config_tables import OptimizerConfig, TrainConfig

# Field -> its least value.
AT_LEAST = {
  'steps': 1,
  'eval_batch_size': 1,
  'log_every': 1,
  'checkpoint_every': 1,
  'keep_checkpoints': 1,
  'threads': 1,
  'workers': 0,
  'eval_every': 0,
  'seed': 0,
  'profile_at': 0,
  'profile_steps': 1,
  'batch_size': 0,
  'batch_size_multiple': 1,
  'grad_accum_steps': 1,
  'max_skipped': 1,
}


def check(config: TrainConfig) -> None:
  """Asserts that a run could use every value.

  Raises:
    InputError: a value is out of range, or does not go with another.
  """
  for name, least in AT_LEAST.items():
    if getattr(config, name) < least:
      raise InputError(f'config.{name} is {getattr(config, name)}, below {least}')
  if not 0 <= config.label_smoothing < 1:
    raise InputError(f'config.label_smoothing is {config.label_smoothing}, not in [0, 1)')
  if not 0 <= config.ema_decay < 1:
    raise InputError(f'config.ema_decay is {config.ema_decay}, not in [0, 1)')
  _check_tasks(config)
  _check_optimizer(config.optimizer, steps=config.steps)
  _check_memory_and_devices(config)


def _check_tasks(config: TrainConfig) -> None:
  if not config.tasks:
    raise InputError('config.tasks is empty: name at least one prepared task')
  for name, task in config.tasks.items():
    task.check_mixing(f'config.tasks.{name}')
    if config.batch_size and task.batch_size:
      raise InputError(
        f'config.tasks.{name}.batch_size is {task.batch_size}, but config.batch_size is divided '
        'among the tasks: set one of them to 0'
      )
    if task.batch_size < 1 and not config.batch_size:
      raise InputError(
        f'config.tasks.{name}.batch_size is {task.batch_size}, below 1: give every task a batch '
        'size, or a config.batch_size to divide'
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


def _check_optimizer(optimizer: OptimizerConfig, *, steps: int) -> None:
  if not 0 <= optimizer.warmup_steps < steps:
    raise InputError(
      f'config.optimizer.warmup_steps is {optimizer.warmup_steps}, not in [0, {steps}) steps'
    )
  for name in (
    'learning_rate',
    'weight_decay',
    'clip_norm',
    'end_learning_rate_ratio',
    'head_learning_rate_multiplier',
  ):
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


def _check_memory_and_devices(config: TrainConfig) -> None:
  shared = config.sharding.model_parallelism
  if shared not in (1, 2, 4, 8, 16, 32, 64, 128):
    raise InputError(f'config.sharding.model_parallelism is {shared}, not a power of two up to 128')
  if config.sharding.dcn_parallelism < 0:
    raise InputError(
      f'config.sharding.dcn_parallelism is {config.sharding.dcn_parallelism}, below 0'
    )
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
