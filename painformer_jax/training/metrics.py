"""Where a run's figures go: metrics.jsonl, TensorBoard events, the terminal."""

import json
import math
import os
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from clu import metrics as clu_metrics

from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.progress import duration
from painformer_jax.training import speed
from painformer_jax.training.clock import Clock
from painformer_jax.training.event_file import EventFile

# Training and evaluation write a row each.
TRAINED, EVALUATED = 'trained', 'evaluated'


def kind(row: Mapping[str, float]) -> str:
  """Which of the two a row is of."""
  return EVALUATED if any(name.startswith('eval/') for name in row) else TRAINED


class NonFiniteLoss(InputError):
  """The loss is no number any more; says the step and the tasks."""


class Window:
  """Figures of the steps since the last row, averaged over them.

  Args:
    record: of a window that an interrupted run left, see `record`.
    most_skipped: steps in a row that may be skipped where steps say so in 'skipped';
      their other figures are left out.
    skipped: how many in a row were, at the end of that run.

  Attributes:
    skipped: how many of the last steps that were checked were skipped in a row.
  """

  def __init__(
    self,
    record: Mapping[str, list[float]] | None = None,
    *,
    most_skipped: int = 1,
    skipped: int = 0,
  ):
    # The types are those of the compiled step, so that sums come out the same.
    self._merged = {
      name: clu_metrics.Average(
        total=np.float32(total),
        count=np.int32(count) if isinstance(count, int) else np.float32(count),
      )
      for name, (total, count) in (record or {}).items()
    }
    self._pending = []
    self._most_skipped, self.skipped = most_skipped, skipped

  def add(self, step: int, metrics: Mapping[str, clu_metrics.Average], *, in_flight: int) -> None:
    """Takes a step's metrics, which may still be in the making.

    Waits until no more than `in_flight` steps are.
    """
    self._pending.append((step, metrics))
    if len(self._pending) > in_flight:
      jax.block_until_ready(self._pending[-1 - in_flight][1])

  def check(self) -> None:
    """Asserts that all figures of all steps are finite.

    Raises:
      NonFiniteLoss: names the first step where one is not, and the tasks; where steps
        are skipped, the last of too many in a row.
    """
    pending, self._pending = jax.device_get(self._pending), []
    for step, metrics in pending:
      skipped = 'skipped' in metrics and metrics['skipped'].compute() > 0
      self.skipped = self.skipped + 1 if skipped else 0
      if not skipped:
        _assert_finite(step, metrics)
      elif self.skipped > self._most_skipped:
        _assert_finite(step, metrics, before=f'{self._most_skipped} steps were skipped and ')
      else:
        metrics = {'skipped': metrics['skipped']}
      for name, metric in metrics.items():
        before = self._merged.get(name)
        self._merged[name] = before.merge(metric) if before else metric

  def averages(self) -> dict[str, float]:
    """The averages; the window is empty afterwards."""
    self.check()
    merged, self._merged = self._merged, {}
    return {name: float(metric.compute()) for name, metric in sorted(merged.items())}

  def record(self) -> dict[str, list[float]]:
    """What a checkpoint keeps, so that the next row comes out the same."""
    self.check()
    return {
      name: [metric.total.item(), metric.count.item()] for name, metric in self._merged.items()
    }


def _assert_finite(
  step: int, metrics: Mapping[str, clu_metrics.Average], *, before: str = ''
) -> None:
  bad = [name for name, metric in metrics.items() if not math.isfinite(metric.compute())]
  if not bad:
    return
  tasks = [name.split('/')[1] for name in bad if name.endswith('/loss')]
  if tasks or 'loss' in bad:
    what = f'the loss of step {step} is not finite (tasks: {", ".join(tasks) or "none"})'
  else:
    what = f'the loss of step {step} is finite, but not its {" and ".join(bad)}'
  raise NonFiniteLoss(before + what)


class MetricsWriter:
  """Appends figures to a run's files; what lies past `start_step` is dropped.

  A run that was killed after it logged a step, but before it saved one as
  late, logs that step again: the record holds each step once.

  Args:
    workdir: gets metrics.jsonl and TensorBoard event files.
    start_step: the step that the run (re)starts from.
    evaluation_due: whether the evaluation of that step is still to come, so
      that a figure of it on record is dropped too.
    enabled: False in processes that are not to write.

  Attributes:
    found: kind -> step of its last row, before any was dropped.

  Raises:
    InputError: they cannot be written; also by `write` and `sync`.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    start_step: int,
    evaluation_due: bool = False,
    enabled: bool = True,
  ):
    self._enabled, self._mirrors = enabled, []
    self.found = {}
    if not enabled:
      return
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    try:
      found = read_metrics(workdir) if self._path.exists() else []
      self.found = {kind(row): row['step'] for row in found}
      kept = _truncate(self._path, found, last_step=start_step, drop_evaluation=evaluation_due)
      self._file = self._path.open('a')
      self._events = EventFile(self._path.parent / 'tensorboard', start_step=start_step)
      for row in kept:
        if row['step'] == start_step:
          self._events.write(start_step, {k: v for k, v in row.items() if k != 'step'})
    except OSError as error:
      raise InputError(_cannot_write(self._path, error)) from error

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """One line and one event; flushed, so that a kill loses nothing."""
    if not self._enabled:
      return
    try:
      self._file.write(json.dumps({'step': step, **values}) + '\n')
      self._file.flush()
      self._events.write(step, values)
    except OSError as error:
      raise InputError(_cannot_write(self._path, error)) from error
    for mirror in self._mirrors:
      mirror.write(step, values)

  def mirror(self, tracker) -> None:
    """Hands every row from now on to a `tracking.Tracker` too."""
    self._mirrors.append(tracker)

  def sync(self) -> None:
    """Has the system put on disk what was written: rows outlive a machine that dies.

    On what a network brings (NFS, a mounted bucket), others see them from then on.
    """
    if not self._enabled:
      return
    try:
      os.fsync(self._file.fileno())
      self._events.sync()
    except OSError as error:
      raise InputError(_cannot_write(self._path, error)) from error

  def close(self) -> None:
    for file in (self._file, self._events) if self._enabled else ():
      try:
        file.close()
      except OSError:
        pass  # What is still buffered could not be written, as was said before.


def _cannot_write(path: pathlib.Path, error: OSError) -> str:
  return (
    f'cannot write to {path.parent}: {error.strerror}; make room, then run the same command again'
  )


def read_metrics(workdir: str | pathlib.Path) -> list[dict]:
  """The rows of a run's metrics.jsonl; a half-written last line is left out.

  Raises:
    InputError: there is no such file.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  if not path.is_file():
    raise InputError(f'{path} does not exist: {workdir} is not the folder of a run')
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def _truncate(
  path: pathlib.Path, found: list[dict], *, last_step: int, drop_evaluation: bool
) -> list[dict]:
  """Drops rows; returns those that stay."""
  if not path.exists():
    return []
  kept = [
    row
    for row in found
    if row['step'] <= last_step
    and not (drop_evaluation and row['step'] == last_step and kind(row) == EVALUATED)
  ]
  content = ''.join(json.dumps(row) + '\n' for row in kept).encode()
  write_atomically(path, lambda file: file.write(content))
  return kept


def progress_line(
  values: Mapping[str, float], *, clock: Clock, steps: int, images_per_step: int
) -> str:
  """One readable line: where the run stands, its losses, its speed and ETA."""
  rate = values.get(speed.RATE, 0.0)
  eta = duration(clock.remaining(steps, images_per_step=images_per_step, rate=rate))
  tasks = ' '.join(
    f'{name.split("/")[1]} {values[name.replace("/accuracy", "/loss")]:.3f}/{value:.0%}'
    for name, value in sorted(values.items())
    if name.startswith('task/') and name.endswith('/accuracy')
  )
  loss = f'{values["loss"]:.3f}' if 'loss' in values else '?'
  if values.get('skipped'):
    loss += f' ({values["skipped"]:.0%} of steps skipped)'
  return (
    f'step {clock.steps}/{steps}  loss {loss}  '
    f'{speed.line(values, eta=eta)}  loss/accuracy: {tasks}'
  )


def log(message: str) -> None:
  """A line for the person who watches, on standard error; one process speaks."""
  if jax.process_index() == 0:
    progress.log(message)
