"""Training states on disk: one Orbax checkpoint holds all that a run needs."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from painformer_jax.errors import InputError

_STATE, _RECORD = 'state', 'record'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
  """A checkpoint read back: the state on its devices, and what was kept with it."""

  step: int
  state: Any
  record: dict


class CheckpointStore:
  """Checkpoints of a run by step, written in the background.

  A checkpoint is the state (a pytree of arrays) and a record (JSON: the clock
  and the position in the data). Orbax writes it under a temporary name and
  renames it when whole, so that a kill at any moment leaves the ones before.

  Args:
    folder: made on demand.
    keep: how many of the newest stay.
  """

  def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
    self._manager = ocp.CheckpointManager(
        pathlib.Path(folder).absolute(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True))

  def latest_step(self) -> int | None:
    """Step of the newest whole checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state, record: dict) -> None:
    """Starts a save; returns once the arrays are copied.

    Raises:
      InputError: the save before this one failed, such as on a full disk.
    """
    try:
      self._manager.save(step, args=ocp.args.Composite(**{
          _STATE: ocp.args.StandardSave(state),
          _RECORD: ocp.args.JsonSave(record)}))
    except OSError as error:
      raise InputError(_save_failed(self._manager.directory, error)) from error

  def restore(self, step: int, abstract_state) -> Restored:
    """Reads a checkpoint onto the devices that the abstract state names.

    Args:
      step: from `latest_step`.
      abstract_state: pytree of ShapeDtypeStruct with shardings.

    Raises:
      InputError: the checkpoint does not fit the state, or is damaged.
    """
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(**{
          _STATE: ocp.args.StandardRestore(abstract_state),
          _RECORD: ocp.args.JsonRestore()}))
    except (ValueError, KeyError, OSError) as error:
      raise InputError(
          f'checkpoint {self._manager.directory / str(step)} cannot be restored '
          f'({_first_line(error)}): it is damaged or of another model; remove it '
          'to go on from the one before') from error
    return Restored(step=step, state=found[_STATE], record=found[_RECORD])

  def finish(self) -> None:
    """Waits until everything is on disk.

    Raises:
      InputError: a save failed.
    """
    try:
      self._manager.wait_until_finished()
    except OSError as error:
      raise InputError(_save_failed(self._manager.directory, error)) from error

  def close(self) -> None:
    self._manager.close()


def restore_arrays(folder: str | pathlib.Path) -> tuple[int, dict]:
  """The newest checkpoint's parameters and statistics, as host arrays.

  Only reads, so that a run which is still going is not disturbed.

  Args:
    folder: a run's 'checkpoints' folder.

  Returns:
    The step, and {'params': {path: array}, 'stats': {path: array}}.

  Raises:
    InputError: there is no whole checkpoint, or it is damaged.
  """
  folder = pathlib.Path(folder).absolute()
  # Checkpoints that are still being written have longer names.
  steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
  if not steps:
    raise InputError(f'{folder} holds no finished checkpoint yet')
  path = epath.Path(folder / str(max(steps)) / _STATE)
  reader = ocp.PyTreeCheckpointHandler()
  try:
    tree = reader.metadata(path).tree
    wanted = {name: tree[name] for name in ('params', 'stats')}
    restore_args = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    found = reader.restore(path, args=ocp.args.PyTreeRestore(
        item=wanted, restore_args=restore_args, partial_restore=True))
  except Exception as error:  # Orbax raises many kinds for damaged files.
    raise InputError(_damaged(path, error)) from error
  finally:
    reader.close()
  return max(steps), found


def read_record(folder: str | pathlib.Path, step: int) -> dict:
  """What was kept beside the state of a checkpoint: its clock, its position.

  Raises:
    InputError: the checkpoint is gone or damaged.
  """
  path = epath.Path(pathlib.Path(folder).absolute() / str(step) / _RECORD)
  try:
    return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())
  except Exception as error:
    raise InputError(_damaged(path, error)) from error


def _damaged(path: epath.Path, error: Exception) -> str:
  return (f'checkpoint {path.parent} is damaged or was removed meanwhile '
          f'({_first_line(error)}): remove it to use the one before')


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _save_failed(folder, error: OSError) -> str:
  return (f'a checkpoint could not be written to {folder}: {error.strerror or error}; '
          'the ones before it are whole: make room, then run the same command again')
