"""Checkpoints of a training run: each holds all that the run needs to resume."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from painformer_jax.checkpoints import record as records
from painformer_jax.checkpoints.arrays import check_space
from painformer_jax.checkpoints.checksums import checksums
from painformer_jax.checkpoints.orbax_errors import first_line, reason
from painformer_jax.checkpoints.read import read_twice
from painformer_jax.checkpoints.record import DamagedError
from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import processes
from painformer_jax.parallel.mesh import is_main, many_processes, wait_for_all

# Damaged checkpoints get this before their step as their name, which Orbax passes over.
_DAMAGED = 'damaged-'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
  """A checkpoint read back: its step, the state on its devices, and the record."""

  step: int
  state: Any
  record: dict


class CheckpointStore:
  """Checkpoints of a run by step, written in the background.

  A checkpoint is the state (a pytree of arrays) and a record (JSON: the clock
  and the position in the data), with a checksum of each. Orbax writes it under
  a temporary name and renames it when it is complete, so that a kill at any moment
  leaves the ones before. Where several processes train together, each makes a store
  and makes the same calls.

  Args:
    folder: made on demand.
    keep: how many of the newest stay.

  Raises:
    InputError: the folder cannot be made or read.
  """

  def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
    self._folder = pathlib.Path(folder).absolute()
    # Whether a save failed, and the error of one that failed in the background.
    self._failed, self._failure = False, None
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        self._folder,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=keep,
          cleanup_tmp_directories=True,
          async_options=ocp.AsyncOptions(barrier_sync_fn=self._barrier),
        ),
      )
    except (OSError, ValueError) as error:
      if not self._is_of_disk(error):
        raise
      raise InputError(f'checkpoints cannot be kept in {self._folder}: {reason(error)}') from error

  def save(self, step: int, state, record: dict) -> None:
    """Starts a save; returns once the arrays are copied.

    Args:
      step: number of the checkpoint, above those saved before.
      state: pytree of arrays.
      record: of plain JSON values.

    Raises:
      InputError: the disk is full, or the save before this one failed.
    """
    with self._failures():
      if is_main():
        check_space(self._folder, sum(array.nbytes for array in jax.tree.leaves(state)))
      self._manager.save(
        step,
        args=ocp.args.Composite(
          **{
            records.STATE: ocp.args.StandardSave(jax.tree.map(_one_copy, state)),
            records.RECORD: ocp.args.JsonSave(records.seal(record, checksums(state))),
          }
        ),
      )

  def restore_newest(self, abstract_state) -> Restored | None:
    """The newest checkpoint that is sound, None where there is none at all.

    Newer ones that are damaged are renamed with a warning, so that their steps can be
    saved again.

    Args:
      abstract_state: pytree of ShapeDtypeStruct with shardings, which say on what
        devices the arrays go.

    Raises:
      InputError: none of them fits the state and is sound; then all keep their names.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        found = read_twice(self._read, step, abstract_state)
      except DamagedError as error:
        damaged[step] = str(error)
        continue
      self._put_aside(damaged, instead=step)
      return found
    if damaged:
      newest = max(damaged)
      raise InputError(
        f'none of the {len(damaged)} checkpoint(s) in {self._folder} can be '
        f'restored (step {newest}: {damaged[newest]}): damaged or of another model; take '
        'another --workdir to start anew'
      )
    return None

  def check(self) -> None:
    """Raises the error of a save that has failed in the background, if any has.

    Raises:
      InputError: one has.
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
    if not (self._failed and many_processes()):
      with contextlib.suppress(OSError, ValueError):
        self._manager.close()

  def _read(self, step: int, abstract_state) -> Restored:
    """Reads a checkpoint in all processes; they agree on whether it is sound.

    Without the manager, in which the processes that succeed wait for one that fails.
    """
    state = record = stored = why = None
    reader = ocp.StandardCheckpointHandler()
    try:
      record, stored = records.read(self._folder, step)
      state = reader.restore(
        epath.Path(self._folder / str(step) / records.STATE),
        args=ocp.args.StandardRestore(abstract_state),
      )
    except Exception as error:  # Orbax raises many kinds of errors for damaged files.
      why = first_line(error)
    finally:
      reader.close()
    if processes.all_agree(not why):
      try:
        records.compare(checksums(state), stored)
      except ValueError as error:
        why = str(error)
      if processes.all_agree(not why):
        return Restored(step=step, state=state, record=record)
    raise DamagedError(why or 'as another process found')

  def _put_aside(self, damaged: Mapping[int, str], *, instead: int) -> None:
    """Renames damaged checkpoints: process 0 does it, and the others wait."""
    for step, why in damaged.items() if is_main() else ():
      path, number = self._folder / str(step), 1
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
        f'warning: checkpoint {path} is damaged ({why}): it is renamed {aside.name}, '
        f'and the run resumes from step {instead}'
      )
    if damaged:
      wait_for_all('damaged checkpoints put aside')
      self._manager.reload()

  def _barrier(self, *, key: str, timeout_ms: int) -> None:
    """Where the processes of a save wait for one another, but not after one has failed.

    Orbax calls it while it handles the error of a failed save too. Then the other
    processes would wait for this one, and this one for them.
    """
    if failure := sys.exception():
      self._failure = failure
      raise failure
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

  @contextlib.contextmanager
  def _failures(self):
    """Turns an error of the disk into an InputError."""
    try:
      yield
    except (OSError, ValueError) as error:
      self._failed = True
      if not self._is_of_disk(error):
        raise
      raise InputError(
        f'a checkpoint could not be written to {self._folder}: '
        f'{reason(error)}; the ones before it are whole: make room, then run '
        'the same command again'
      ) from error

  def _is_of_disk(self, error: Exception) -> bool:
    """Whether the disk failed, rather than another process that this one waits for.

    The storage library below Orbax raises ValueError, and so does JAX where another
    process is gone. Only the former names the file.
    """
    if not many_processes():
      return True
    if isinstance(error, ValueError):
      return str(self._folder) in str(error)
    return not isinstance(error, TimeoutError | ConnectionError)


def _one_copy(array):
  """The first of a process's copies of an array.

  Of several, Orbax saves a part each, and compiles a program for each shape to
  cut them: seconds in the first save, and nothing gained on one machine.
  """
  copies = isinstance(array, jax.Array) and array.is_fully_replicated
  return array.addressable_data(0) if copies and array.is_fully_addressable else array
