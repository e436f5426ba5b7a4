"""Training states on disk: one Orbax checkpoint holds all that a run needs."""

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

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

  Args:
    folder: a run's 'checkpoints' folder.

  Returns:
    The step, and {'params': {path: array}, 'stats': {path: array}}.

  Raises:
    InputError: there is no whole checkpoint, or it is damaged.
  """
  folder = pathlib.Path(folder).absolute()
  step = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
  if not step:
    raise InputError(f'{folder} holds no finished checkpoint yet')
  path = folder / str(max(step)) / _STATE
  try:
    with ocp.PyTreeCheckpointer() as reader:
      tree = reader.metadata(path).item_metadata.tree
      wanted = {k: tree[k] for k in ('params', 'stats')}
      restore_args = jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=__import__('numpy').ndarray), wanted)
      found = reader.restore(path, args=ocp.args.PyTreeRestore(
          item=wanted, restore_args=restore_args, partial_restore=True))
  except (ValueError, KeyError, OSError) as error:
    raise InputError(f'checkpoint {path} is damaged: {_first_line(error)}') from error
  return max(step), found


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _save_failed(folder, error: OSError) -> str:
  return (f'a checkpoint could not be written to {folder}: {error.strerror or error}; '
          'the ones before it are whole: make room, then run the same command again')
