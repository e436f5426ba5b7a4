"""A run's folder: its configuration on record, and its report at the end."""

import importlib.metadata
import json
import os
import pathlib
import platform

import jax

from painformer_jax.errors import InputError
from painformer_jax.parallel import mesh as parallel
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
      changed = changed_fields(config, _read_record(record))
      if changed:
        raise InputError(
            f'{workdir} holds a run of another configuration '
            f'({"; ".join(changed)}): take another --workdir, or the first configuration')
    elif workdir.exists() and any(p != _temporary(record) for p in workdir.iterdir()):
      raise InputError(f'{workdir} is not empty and holds no run: take another --workdir')
    parallel.wait_for_all('configuration compared')
    if parallel.is_main():
      workdir.mkdir(parents=True, exist_ok=True)
      write_json(record, json.loads(config.to_json()))
    parallel.wait_for_all('configuration written')
  except OSError as error:
    raise InputError(f'{workdir} cannot be used: {error.strerror}') from error
  return workdir


def _read_record(path: pathlib.Path) -> dict:
  try:
    stored = json.loads(path.read_text())
  except ValueError:
    stored = None
  if not isinstance(stored, dict):
    raise InputError(f'{path} is damaged: take another --workdir')
  return stored


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON, see `write_text`."""
  write_text(path, json.dumps(value, indent=2, sort_keys=True))


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file under a temporary name first, so that readers see it whole.

  Raises:
    InputError: it cannot be written, such as on a full disk.
  """
  try:
    _temporary(path).write_text(text + '\n')
    os.replace(_temporary(path), path)
  except OSError as error:
    raise InputError(
        f'{path} cannot be written: {error.strerror}; mend that, then run the '
        'same command again') from error


def _temporary(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + '.tmp')


def environment() -> dict:
  """What the figures of a run depend on: versions and devices."""
  devices = jax.devices()
  return {
      'devices': len(devices), 'device_kind': devices[0].device_kind,
      'processes': jax.process_count(), 'cpu_cores': os.cpu_count(),
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name)
         for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')}}
