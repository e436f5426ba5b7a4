"""Stores a task with Apache Beam: many machines, one shard each at a time.

The shards are identical to those of `base.store`, byte for byte. `data_dir` and the
dataset's folder must have the same path on the machine that starts the pipeline and on
all workers (NFS, Lustre, Filestore).
"""

import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.progress import Log
from painformer_jax.data.builders.base import Allowance, finish, opened, plan_shards
from painformer_jax.data.builders.shards import (
  Shard,
  finished_shard,
  read_images,
  write_shard,
  written,
)
from painformer_jax.data.prepared import PreparedTask, open_task
from painformer_jax.data.task_source import Item, TaskSource

# Folder beside the shards, with what each shard is to hold.
_PLAN = 'plan'


def store_with_beam(
  task: TaskSource,
  data_dir: str | Path,
  *,
  options: Sequence[str] = (),
  progress: Log = print,
  max_unreadable: float = 0.0,
  threads: int = 1,
) -> PreparedTask:
  """Does what `base.store` does, by a Beam pipeline.

  Args:
    task: what to store; its `read` and items are sent to the workers.
    data_dir: as for `base.store`, on storage that all workers share.
    options: for Beam, such as '--runner=DataflowRunner'; by default the pipeline
      runs in this process.
    progress: takes lines of text to show.
    max_unreadable: share of a split that may be unreadable.
    threads: of each worker.

  Raises:
    InputError: as `base.store`; Beam is not installed; the pipeline failed.
  """
  beam = import_extra('apache_beam', extra='beam')
  pipeline_options = import_extra(
    'apache_beam.options.pipeline_options', extra='beam'
  ).PipelineOptions
  shards = plan_shards(task)
  with opened(task, shards, data_dir, progress=progress) as work:
    if work is None:
      progress(f'{task.name}: already in {data_dir}, skipped')
      return open_task(data_dir, task.name)
    todo = [s for s in shards if finished_shard(s, work) is None]
    progress(f'{task.name}: {len(todo):,} of {len(shards):,} shards to write')
    _write_plan(todo, work)
    write = _writer(Path(work).absolute(), task.read, threads, checked=task.checked)
    try:
      with beam.Pipeline(options=pipeline_options(list(options))) as pipeline:
        # Reshuffled, so that runners do not fuse all shards onto one worker.
        (pipeline | beam.Create([s.name for s in todo]) | beam.Reshuffle() | beam.Map(write))
    except Exception as error:
      # Runners wrap what workers raise in exceptions of their own.
      raise InputError(
        f"task '{task.name}': the pipeline failed: {_last_line(error)}; finished shards "
        'are kept, the same command resumes'
      ) from error
    done = {s.name: finished_shard(s, work) for s in shards}
    absent = [name for name, result in done.items() if result is None]
    if absent:
      raise InputError(
        f"task '{task.name}': {len(absent)} shards are not in {work}, the first "
        f'{absent[0]}: do all workers see that folder under this name?'
      )
    allowance = Allowance(task, max_unreadable=max_unreadable, progress=progress)
    for shard in shards:
      items = {item.key: item for item in shard.items}
      for key, reason in done[shard.name].skipped.items():
        allowance.skip(shard.split, items[key], reason)
    with written(work.parent):
      shutil.rmtree(work / _PLAN)
    finish(task, shards, done, work, progress=progress)
  return open_task(data_dir, task.name)


def _write_plan(shards: Sequence[Shard], work: Path) -> None:
  """Writes the lists of items to files, from which workers read their shard.

  They do not fit into the pipeline itself: a dataset's items take hundreds of MB, and
  Dataflow, for example, allows 20 MB.
  """
  with written(work.parent):
    (work / _PLAN).mkdir(exist_ok=True)
    for shard in shards:
      (work / _PLAN / f'{shard.name}.pickle').write_bytes(pickle.dumps(shard))


def _writer(work: Path, read: Callable[[Item], bytes], threads: int, *, checked: bool) -> Log:
  """The function that a worker calls with a shard's name."""

  def write(name: str) -> None:
    shard = pickle.loads((work / _PLAN / f'{name}.pickle').read_bytes())
    if finished_shard(shard, work) is None:
      write_shard(shard, work, read_images(shard.items, read, threads=threads, checked=checked))

  return write


def _last_line(error: Exception) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__
