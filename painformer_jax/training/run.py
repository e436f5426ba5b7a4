"""A run's folder: its configuration on record, and its report at the end."""

import importlib.metadata
import json
import os
import pathlib
import platform

import jax

from painformer_jax.errors import InputError
from painformer_jax.training.config import TrainConfig, changed_fields


def open_workdir(workdir: str | pathlib.Path, config: TrainConfig) -> pathlib.Path:
  """Makes the folder, or checks that it belongs to this configuration.

  Raises:
    InputError: the folder holds a run of another configuration, or something
      else, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  record = workdir / 'config.json'
  try:
    if record.exists():
      changed = changed_fields(config, json.loads(record.read_text()))
      if changed:
        raise InputError(
            f'{workdir} holds a run of another configuration '
            f'({"; ".join(changed)}): take another --workdir, or the first configuration')
    elif workdir.exists() and any(workdir.iterdir()):
      raise InputError(f'{workdir} is not empty and holds no run: take another --workdir')
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(record, json.loads(config.to_json()))
  except json.JSONDecodeError as error:
    raise InputError(f'{record} is damaged: remove {workdir} or take another') from error
  except OSError as error:
    raise InputError(f'{workdir} cannot be used: {error.strerror}') from error
  return workdir


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON under a temporary name first, so that readers see it whole."""
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n')
  os.replace(temporary, path)


def environment() -> dict:
  """What the figures of a run depend on: versions and devices."""
  devices = jax.devices()
  return {
      'devices': len(devices), 'device_kind': devices[0].device_kind,
      'processes': jax.process_count(), 'cpu_cores': os.cpu_count(),
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name)
         for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')}}
