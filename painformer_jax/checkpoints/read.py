"""Reads a run's checkpoints and changes nothing, while the run may still continue."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp

from painformer_jax.checkpoints import record as records
from painformer_jax.checkpoints.arrays import read_arrays
from painformer_jax.checkpoints.checksums import checksums
from painformer_jax.checkpoints.orbax_errors import first_line
from painformer_jax.checkpoints.record import DamagedError
from painformer_jax.core import progress
from painformer_jax.core.errors import InputError

# Seconds after which what could not be read is read once more.
_PAUSE = 2.0


def read_twice(read: Callable[..., Any], *args) -> Any:
  """Calls a function again if it fails: a shared file system may fail for a moment.

  Raises:
    DamagedError: it failed both times.
  """
  with contextlib.suppress(DamagedError):
    return read(*args)
  time.sleep(_PAUSE)
  return read(*args)


def latest_step(folder: str | pathlib.Path) -> int | None:
  """Step of the newest whole checkpoint in a folder; None without one, or a folder."""
  if not pathlib.Path(folder).is_dir():
    return None
  # Checkpoints that are still being written have longer names.
  return max(ocp.utils.checkpoint_steps(folder), default=None)


def restore_arrays(folder: str | pathlib.Path) -> tuple[int, dict]:
  """The parameters and batch statistics of the newest sound checkpoint.

  A damaged checkpoint is passed over with a warning.

  Args:
    folder: a run's 'checkpoints' folder.

  Returns:
    The step, and {'params': {path: array}, 'stats': {path: array}} of NumPy arrays. The
    parameters are their moving averages in a run that keeps those.

  Raises:
    InputError: there is no whole checkpoint, or all are damaged.
  """
  folder = pathlib.Path(folder).absolute()
  failures = {}
  while True:
    # Listed anew each time, since a run may save and remove some meanwhile.
    steps = {*ocp.utils.checkpoint_steps(folder)} - {*failures} if folder.is_dir() else {}
    if not steps:
      break
    step = max(steps)
    try:
      arrays = read_twice(_read_parameters, folder, step)
    except DamagedError as error:
      failures[step] = error
      continue
    for error in failures.values():
      progress.log(f'warning: {error}; the one of step {step} is taken')
    return step, arrays
  if not failures:
    raise InputError(f'{folder} holds no finished checkpoint yet')
  older = f'; so is every one before it ({len(failures) - 1})' if len(failures) > 1 else ''
  raise InputError(f'{failures[max(failures)]}{older}')


def read_record(folder: str | pathlib.Path, step: int) -> dict:
  """The record that was saved with a checkpoint: its clock, its position in the data.

  Raises:
    InputError: the checkpoint is gone or damaged.
  """
  folder = pathlib.Path(folder)
  try:
    return records.read(folder, step)[0]
  except Exception as error:  # Orbax raises many kinds of errors for damaged files.
    raise InputError(_damaged(folder, step, error)) from error


def _read_parameters(folder: pathlib.Path, step: int) -> dict:
  try:
    found = read_arrays(folder / str(step) / records.STATE, choose=_parameters)
    _, stored = records.read(folder, step)
    records.compare(checksums(found), stored)
  except Exception as error:
    raise DamagedError(_damaged(folder, step, error)) from error
  return {'params': found['ema' if 'ema' in found else 'params'], 'stats': found['stats']}


def _parameters(tree: dict) -> dict:
  """Where a run keeps moving averages of its parameters, those are its result."""
  return {name: tree[name] for name in ('ema' if tree.get('ema') else 'params', 'stats')}


def _damaged(folder: pathlib.Path, step: int, error: Exception) -> str:
  return (
    f'checkpoint {folder / str(step)} is damaged or was removed meanwhile ({first_line(error)})'
  )
