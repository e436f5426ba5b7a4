"""Training states on disk: one Orbax checkpoint holds all that a run needs."""

import contextlib
import dataclasses
import gc
import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from painformer_jax.checkpoints.orbax_messages import first_line, quiet, reason
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
  and the position in the data), with a checksum of each. Orbax writes it under
  a temporary name and renames it when whole, so that a kill at any moment
  leaves the ones before.

  Args:
    folder: made on demand.
    keep: how many of the newest stay.

  Raises:
    InputError: the folder cannot be made or read.
  """

  def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
    folder = pathlib.Path(folder).absolute()
    self._failed = False
    self._silence = contextlib.ExitStack()
    self._silence.enter_context(quiet())
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
          folder, options=ocp.CheckpointManagerOptions(
              max_to_keep=keep, cleanup_tmp_directories=True))
    except (OSError, ValueError) as error:
      self._silence.close()
      raise InputError(
          f'checkpoints cannot be kept in {folder}: {reason(error)}') from error

  def latest_step(self) -> int | None:
    """Step of the newest whole checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state, record: dict) -> None:
    """Starts a save; returns once the arrays are copied.

    Raises:
      InputError: the save before this one failed, such as on a full disk.
    """
    with self._failures():
      self._manager.save(step, args=ocp.args.Composite(**{
          _STATE: ocp.args.StandardSave(jax.tree.map(_one_copy, state)),
          _RECORD: ocp.args.JsonSave(_sealed(record, _checksums(state)))}))

  def restore(self, step: int, abstract_state) -> Restored:
    """Reads a checkpoint onto the devices that the abstract state names.

    Args:
      step: from `latest_step`.
      abstract_state: pytree of ShapeDtypeStruct with shardings.

    Raises:
      InputError: the checkpoint does not fit the state, or is damaged.
    """
    try:
      with quiet():
        found = self._manager.restore(step, args=ocp.args.Composite(**{
            _STATE: ocp.args.StandardRestore(abstract_state),
            _RECORD: ocp.args.JsonRestore()}))
      record, checksums = _opened(found[_RECORD])
      _compare(_checksums(found[_STATE]), checksums)
    except Exception as error:  # Orbax raises many kinds for damaged files.
      raise InputError(
          f'checkpoint {self._manager.directory / str(step)} cannot be restored '
          f'({first_line(error)}): it is damaged or of another model; remove it '
          'to go on from the one before') from error
    return Restored(step=step, state=found[_STATE], record=record)

  def finish(self) -> None:
    """Waits until everything is on disk.

    Raises:
      InputError: a save failed.
    """
    with self._failures():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Ends the background work; `finish` says whether it went well."""
    with self._silence:
      # A save that failed was reported, or something else went wrong before.
      with contextlib.suppress(OSError, ValueError):
        self._manager.close()
      if self._failed:
        gc.collect()  # Of futures with errors that nobody asked for.

  @contextlib.contextmanager
  def _failures(self):
    try:
      yield
    except (OSError, ValueError) as error:  # Its storage layer raises ValueError.
      self._failed = True
      raise InputError(
          f'a checkpoint could not be written to {self._manager.directory}: '
          f'{reason(error)}; the ones before it are whole: make room, then run '
          'the same command again') from error


def latest_step(folder: str | pathlib.Path) -> int | None:
  """Step of the newest whole checkpoint in a folder that may not be there."""
  if not pathlib.Path(folder).is_dir():
    return None
  # Checkpoints that are still being written have longer names.
  return max(ocp.utils.checkpoint_steps(folder), default=None)


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
  step = latest_step(folder)
  if step is None:
    raise InputError(f'{folder} holds no finished checkpoint yet')
  path = epath.Path(folder / str(step) / _STATE)
  reader = ocp.PyTreeCheckpointHandler()
  try:
    with quiet():
      tree = reader.metadata(path).tree
      wanted = {name: tree[name] for name in ('params', 'stats')}
      restore_args = jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      found = reader.restore(path, args=ocp.args.PyTreeRestore(
          item=wanted, restore_args=restore_args, partial_restore=True))
    _, checksums = _opened(_read_json(folder, step))
    _compare(_checksums(found), checksums)
  except Exception as error:  # Orbax raises many kinds for damaged files.
    raise InputError(_damaged(path, error)) from error
  finally:
    reader.close()
  return step, found


def read_record(folder: str | pathlib.Path, step: int) -> dict:
  """What was kept beside the state of a checkpoint: its clock, its position.

  Raises:
    InputError: the checkpoint is gone or damaged.
  """
  try:
    return _opened(_read_json(folder, step))[0]
  except Exception as error:
    raise InputError(
        _damaged(epath.Path(folder) / str(step) / _RECORD, error)) from error


def _read_json(folder, step: int) -> dict:
  path = epath.Path(pathlib.Path(folder).absolute() / str(step) / _RECORD)
  return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())


# Checksums: Orbax stores none of array contents, and reads a flipped bit back.


def _checksums(state) -> dict[str, int]:
  """CRC-32 of every array by its path.

  A state that is split over several processes has none: each holds a part.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  if any(isinstance(a, jax.Array) and not a.is_fully_replicated
         and not a.is_fully_addressable for _, a in leaves):
    return {}
  return {
      jax.tree_util.keystr(keys, simple=True, separator='.'):
      zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8))
      for keys, a in leaves}


def _one_copy(array):
  """The first of a process's copies of an array.

  Of several, Orbax saves a slice each, and compiles a program for each shape to
  cut them: seconds in the first save, and nothing gained on one machine.
  """
  copies = isinstance(array, jax.Array) and array.is_fully_replicated
  return array.addressable_data(0) if copies and array.is_fully_addressable else array


def _compare(found: Mapping[str, int], stored: Mapping[str, int]) -> None:
  """Asserts the checksum of all that was found; none are stored of a split state."""
  if not stored or not found:
    return
  if unknown := sorted(found.keys() - stored.keys()):
    raise ValueError(f'it keeps no checksum of {unknown[0]}')
  for path in found:
    if found[path] != stored[path]:
      raise ValueError(f'the checksum of {path} does not match')


def _sealed(record: dict, checksums: dict[str, int]) -> dict:
  content = json.dumps([record, checksums])
  return {'content': content, 'checksum': zlib.crc32(content.encode())}


def _opened(sealed: Mapping) -> tuple[dict, dict[str, int]]:
  if zlib.crc32(sealed['content'].encode()) != sealed['checksum']:
    raise ValueError(f'the checksum of the {_RECORD} does not match')
  record, checksums = json.loads(sealed['content'])
  return record, checksums


def _damaged(path: epath.Path, error: Exception) -> str:
  return (f'checkpoint {path.parent} is damaged or was removed meanwhile '
          f'({first_line(error)}): remove it to use the one before')
