"""A run's folder: its configuration on record, and its report at the end."""

import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence

import jax

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import is_partial, write_json
from painformer_jax.data.prepared import PreparedTask
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training.clock import Clock
from painformer_jax.training.config import TrainConfig, changed_fields


def open_workdir(workdir: str | pathlib.Path, config: TrainConfig) -> pathlib.Path:
  """Makes the folder, or checks that it belongs to this configuration.

  Raises:
    InputError: the folder holds a run of another configuration, or something
      else, or cannot be written, or processes have folders of their own.
  """
  if '://' in str(workdir):
    raise InputError(
      f'--workdir {workdir} is no folder: name one of a file system that is mounted, which '
      'all machines share'
    )
  workdir = pathlib.Path(workdir)
  record = workdir / 'config.json'
  try:
    if record.exists():
      changed = changed_fields(config, _read_record(record, remedy='take another --workdir'))
      if changed:
        raise InputError(
          f'{workdir} holds a run of another configuration '
          f'({"; ".join(changed)}): take another --workdir, or the first configuration'
        )
    elif workdir.exists() and not all(_left_over(p) for p in workdir.iterdir()):
      raise InputError(f'{workdir} is not empty and holds no run: take another --workdir')
    parallel.wait_for_all('configuration compared')
    if parallel.is_main():
      workdir.mkdir(parents=True, exist_ok=True)
      write_json(record, json.loads(config.to_json()))
    parallel.wait_for_all('configuration written')
    if not _appears(record):
      raise InputError(
        f'{record}, which the first process wrote, is not there for process '
        f'{jax.process_index()}: --workdir must be a folder that all processes share'
      )
  except OSError as error:
    raise InputError(f'{workdir} cannot be used: {error.strerror}') from error
  return workdir


def _left_over(path: pathlib.Path) -> bool:
  """Whether a killed process left it before the folder held a run."""
  return is_partial(path) or path.name == 'config.json.tmp'  # Of older releases.


def _appears(path: pathlib.Path, *, seconds: float = 60) -> bool:
  """Whether a file is there; on NFS what another machine wrote may come late."""
  end = time.monotonic() + seconds
  while not path.exists():
    if time.monotonic() > end:
      return False
    time.sleep(0.2)
  return True


def _read_record(path: pathlib.Path, *, remedy: str) -> dict:
  try:
    stored = json.loads(path.read_text())
  except ValueError:
    stored = None
  if not isinstance(stored, dict):
    raise InputError(f'{path} is damaged: {remedy}')
  return stored


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
    report = _read_record(path, remedy='remove it, then run the same command again')
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
