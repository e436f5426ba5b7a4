"""Training states on disk: one Orbax checkpoint holds all that a run needs."""

import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from painformer_jax.checkpoints.checksums import checksums
from painformer_jax.checkpoints.orbax_messages import first_line, quiet, quiet_for_good, reason
from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import mesh as parallel
from painformer_jax.parallel import processes

_STATE, _RECORD = 'state', 'record'

# Names of checkpoints that turned out to be damaged, which Orbax passes over.
_DAMAGED = 'damaged-'
# Before what could not be read is read again, seconds.
_PAUSE = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
  """A checkpoint read back: the state on its devices, and what was kept with it."""

  step: int
  state: Any
  record: dict


class _Damaged(Exception):
  """Why a checkpoint cannot be restored, by this process or another."""


class CheckpointStore:
  """Checkpoints of a run by step, written in the background.

  A checkpoint is the state (a pytree of arrays) and a record (JSON: the clock
  and the position in the data), with a checksum of each. Orbax writes it under
  a temporary name and renames it when whole, so that a kill at any moment
  leaves the ones before. Where several processes train together, each makes a store
  and calls it alike.

  Args:
    folder: made on demand.
    keep: how many of the newest stay.

  Raises:
    InputError: the folder cannot be made or read.
  """

  def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
    folder = pathlib.Path(folder).absolute()
    self._failed, self._failure = False, None
    self._silence = contextlib.ExitStack()
    self._silence.enter_context(quiet())
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=keep,
          cleanup_tmp_directories=True,
          async_options=ocp.AsyncOptions(barrier_sync_fn=self._barrier),
        ),
      )
    except (OSError, ValueError) as error:
      self._silence.close()
      raise InputError(f'checkpoints cannot be kept in {folder}: {reason(error)}') from error

  def latest_step(self) -> int | None:
    """Step of the newest whole checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state, record: dict) -> None:
    """Starts a save; returns once the arrays are copied.

    Raises:
      InputError: the save before this one failed, such as on a full disk.
    """
    with self._failures():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          **{
            _STATE: ocp.args.StandardSave(jax.tree.map(_one_copy, state)),
            _RECORD: ocp.args.JsonSave(_sealed(record, checksums(state))),
          }
        ),
      )

  def restore(self, step: int, abstract_state) -> Restored:
    """Reads a checkpoint onto the devices that the abstract state names.

    Args:
      step: of a checkpoint.
      abstract_state: pytree of ShapeDtypeStruct with shardings.

    Raises:
      InputError: the checkpoint does not fit the state, or is damaged, for this
        process or another.
    """
    try:
      return self._read(step, abstract_state)
    except _Damaged as error:
      raise InputError(
        f'checkpoint {self._path(step)} cannot be restored ({error}): it is damaged or '
        'of another model; remove it to go on from the one before'
      ) from None

  def restore_newest(self, abstract_state) -> Restored | None:
    """The newest checkpoint that is sound, None where there is none at all.

    Newer ones that are damaged are said to be so and put aside under another name,
    so that their steps can be saved again.

    Raises:
      InputError: none of them fits the state and is sound; then all stay.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        found = _read_surely(self._read, step, abstract_state)
      except _Damaged as error:
        damaged[step] = str(error)
        continue
      self._put_aside(damaged, instead=step)
      return found
    if damaged:
      newest = max(damaged)
      raise InputError(
        f'none of the {len(damaged)} checkpoint(s) in {self._manager.directory} can be '
        f'restored (step {newest}: {damaged[newest]}): damaged or of another model; take '
        'another --workdir to start anew'
      )
    return None

  def _read(self, step: int, abstract_state) -> Restored:
    """Not with the manager, in which those that succeed wait for one that fails."""
    state = record = why = None
    reader = ocp.StandardCheckpointHandler()
    try:
      with quiet():
        record, stored = _opened(_read_json(self._manager.directory, step))
        state = reader.restore(
          epath.Path(self._path(step) / _STATE), args=ocp.args.StandardRestore(abstract_state)
        )
    except Exception as error:  # Orbax raises many kinds for damaged files.
      why = first_line(error)
    finally:
      reader.close()
    if why:  # The error is gone; what it held says more of it when it goes.
      with quiet():
        gc.collect()
    if processes.all_agree(not why):
      try:
        _compare(checksums(state), stored)
      except ValueError as error:
        why = str(error)
      if processes.all_agree(not why):
        return Restored(step=step, state=state, record=record)
    raise _Damaged(why or 'as another process found')

  def _path(self, step: int) -> pathlib.Path:
    return pathlib.Path(self._manager.directory) / str(step)

  def _put_aside(self, damaged: Mapping[int, str], *, instead: int) -> None:
    for step, why in damaged.items() if parallel.is_main() else ():
      path, number = self._path(step), 1
      aside = path.with_name(f'{_DAMAGED}{step}')
      while aside.exists():
        number += 1
        aside = path.with_name(f'{_DAMAGED}{step}-{number}')
      try:
        os.rename(path, aside)
      except OSError as error:
        raise InputError(
          f'{path} is damaged and cannot be renamed: {error.strerror}; remove it, '
          'then run the same command again'
        ) from error
      progress.log(
        f'warning: checkpoint {path} is damaged ({why}): it is {aside.name} '
        f'now, and the run goes on from step {instead}'
      )
    if damaged:
      parallel.wait_for_all('damaged checkpoints put aside')
      self._manager.reload()

  def check(self) -> None:
    """Says as soon as it is known that a save failed in the background.

    Raises:
      InputError: it did.
    """
    with self._failures():
      if self._failure:
        raise self._failure

  def finish(self) -> None:
    """Waits until everything is on disk.

    Raises:
      InputError: a save failed.
    """
    with self._failures():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Ends the background work; `finish` says whether it went well."""
    # A save that failed was reported, or something else went wrong before.
    if not (self._failed and parallel.many_processes()):
      with contextlib.suppress(OSError, ValueError):
        self._manager.close()
    if self._failed:
      quiet_for_good(self._silence)
    else:
      self._silence.close()

  def _barrier(self, *, key: str, timeout_ms: int) -> None:
    """Where processes wait for one another, but not after a failed save.

    Orbax lets a process whose save failed wait for the others, which wait for it.
    """
    if failure := sys.exception():
      self._failure = failure
      raise failure
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

  @contextlib.contextmanager
  def _failures(self):
    try:
      yield
    except (OSError, ValueError) as error:  # Its storage layer raises ValueError.
      self._failed = True
      if isinstance(error, TimeoutError) and parallel.many_processes():
        raise  # Another process did not come; whoever sees the processes says why.
      raise InputError(
        f'a checkpoint could not be written to {self._manager.directory}: '
        f'{reason(error)}; the ones before it are whole: make room, then run '
        'the same command again'
      ) from error


def _read_surely(read: Callable[..., Any], *args) -> Any:
  """Twice where need be: a shared file system may fail for a moment, and is no damage."""
  with contextlib.suppress(_Damaged):
    return read(*args)
  time.sleep(_PAUSE)
  return read(*args)


def latest_step(folder: str | pathlib.Path) -> int | None:
  """Step of the newest whole checkpoint in a folder that may not be there."""
  if not pathlib.Path(folder).is_dir():
    return None
  # Checkpoints that are still being written have longer names.
  return max(ocp.utils.checkpoint_steps(folder), default=None)


def restore_arrays(folder: str | pathlib.Path) -> tuple[int, dict]:
  """The newest sound checkpoint's parameters and statistics, as host arrays.

  Only reads, so that a run which is still going is not disturbed. Of a damaged
  checkpoint it warns, and takes the one before.

  Args:
    folder: a run's 'checkpoints' folder.

  Returns:
    The step, and {'params': {path: array}, 'stats': {path: array}}; the parameters are
    their moving averages in a run that keeps those.

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
      arrays = _read_surely(_read_arrays, folder, step)
    except _Damaged as error:
      failures[step] = error
      continue
    for error in failures.values():
      progress.log(f'warning: {error}; the one of step {step} is taken')
    return step, arrays
  if not failures:
    raise InputError(f'{folder} holds no finished checkpoint yet')
  older = f'; so is every one before it ({len(failures) - 1})' if len(failures) > 1 else ''
  raise InputError(f'{failures[max(failures)]}{older}')


def _read_arrays(folder: pathlib.Path, step: int) -> dict:
  path = epath.Path(folder / str(step) / _STATE)
  reader = ocp.PyTreeCheckpointHandler()
  try:
    with quiet():
      tree = reader.metadata(path).tree
      # Where a run keeps averages of its parameters, those are its result.
      parameters = 'ema' if tree.get('ema') else 'params'
      wanted = {name: tree[name] for name in (parameters, 'stats')}
      restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      found = reader.restore(
        path,
        args=ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True),
      )
    _, stored = _opened(_read_json(folder, step))
    _compare(checksums(found), stored)
  except Exception as error:  # Orbax raises many kinds for damaged files.
    raise _Damaged(_damaged(path, error)) from error
  finally:
    reader.close()
  return {'params': found[parameters], 'stats': found['stats']}


def read_record(folder: str | pathlib.Path, step: int) -> dict:
  """What was kept beside the state of a checkpoint: its clock, its position.

  Raises:
    InputError: the checkpoint is gone or damaged.
  """
  try:
    return _opened(_read_json(folder, step))[0]
  except Exception as error:
    raise InputError(_damaged(epath.Path(folder) / str(step) / _RECORD, error)) from error


def _read_json(folder, step: int) -> dict:
  path = epath.Path(pathlib.Path(folder).absolute() / str(step) / _RECORD)
  return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())


def _one_copy(array):
  """The first of a process's copies of an array.

  Of several, Orbax saves a slice each, and compiles a program for each shape to
  cut them: seconds in the first save, and nothing gained on one machine.
  """
  copies = isinstance(array, jax.Array) and array.is_fully_replicated
  return array.addressable_data(0) if copies and array.is_fully_addressable else array


def _compare(found: Mapping[str, int], stored: Mapping[str, int]) -> None:
  if unknown := sorted(found.keys() - stored.keys()):
    raise ValueError(f'it keeps no checksum of {unknown[0]}')
  for path in found:
    if found[path] != stored[path]:
      raise ValueError(f'the checksum of {path} does not match')


def _sealed(record: dict, sums: dict[str, int]) -> dict:
  content = json.dumps([record, sums])
  return {'content': content, 'checksum': zlib.crc32(content.encode())}


def _opened(sealed: Mapping) -> tuple[dict, dict[str, int]]:
  if zlib.crc32(sealed['content'].encode()) != sealed['checksum']:
    raise ValueError(f'the checksum of the {_RECORD} does not match')
  record, sums = json.loads(sealed['content'])
  return record, sums


def _damaged(path: epath.Path, error: Exception) -> str:
  return f'checkpoint {path.parent} is damaged or was removed meanwhile ({first_line(error)})'
