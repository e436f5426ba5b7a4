"""Writes report.json at the end of a run: what it reached, on what, in which time."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence

import jax

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_json
from painformer_jax.data.prepared import PreparedTask
from painformer_jax.training.clock import Clock
from painformer_jax.training.config import TrainConfig
from painformer_jax.training.workdir import read_record


def write_report(
  workdir: pathlib.Path,
  config: TrainConfig,
  tasks: Mapping[str, PreparedTask],
  *,
  rows: Sequence[Mapping],
  clock: Clock,
  parameters: int,
) -> dict:
  """Writes report.json: what the run reached, on what, in which time.

  A finished run that is started once more keeps the report it has, with what
  `painformer report` added.

  Args:
    workdir: of the run.
    config: of the run.
    tasks: name -> prepared task.
    rows: of metrics.jsonl.
    clock: at the end.
    parameters: of the backbone.

  Raises:
    InputError: the last step's figures are not in metrics.jsonl any more.
  """
  path = workdir / 'report.json'
  if path.exists():
    report = read_record(path, remedy='remove it, then run the same command again')
    if report.get('steps') == config.steps:
      return report
  final = {k: v for row in rows if row['step'] == config.steps for k, v in row.items()}
  try:
    figures = {
      name: {
        'classes': len(task.classes),
        'modality': task.modality,
        'train_images': task.sizes['train'],
        'test_images': task.sizes['test'],
        'train_loss': final[f'task/{name}/loss'],
        'train_accuracy': final[f'task/{name}/accuracy'],
        'test_accuracy': final[f'eval/{name}/accuracy'],
      }
      for name, task in tasks.items()
    }
  except KeyError as error:
    raise InputError(
      f'{workdir / "metrics.jsonl"} has lost {error} of step {config.steps}: the run is '
      'trained, but no report can be made; train again in another --workdir'
    ) from None
  report = {
    'model': dict(config.model),
    'backbone_parameters': parameters,
    'steps': clock.steps,
    'images': clock.steps * sum(config.batch_sizes.values()),
    'train_seconds': clock.seconds,
    'seconds_spent': clock.spent,
    'images_per_second': clock.images / (clock.seconds or 1),
    'environment': environment(),
    'tasks': figures,
  }
  write_json(path, report)
  return report


def environment() -> dict:
  """What the figures of a run depend on: versions and devices."""
  devices = jax.devices()
  return {
    'devices': len(devices),
    'device_kind': devices[0].device_kind,
    'processes': jax.process_count(),
    'cpu_cores': os.cpu_count(),
    'python': platform.python_version(),
    **{
      name: importlib.metadata.version(name)
      for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
    },
  }
