"""Where a run's figures go: metrics.jsonl, TensorBoard events, the terminal."""

import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
from tensorboardX import SummaryWriter

from painformer_jax.errors import InputError
from painformer_jax.training.clock import Clock, duration


class NonFiniteLoss(InputError):
  """The loss is no number any more; says the step and the tasks."""


def reduce(window: Sequence[tuple[int, Mapping]], *, total: str = 'loss') -> dict[str, float]:
  """Averages the clu metrics of several steps, asserting that all are finite.

  Args:
    window: (step, {name: clu.metrics.Average}) in order.
    total: name of the value to look at beside the tasks' losses.

  Raises:
    NonFiniteLoss: names the first step and the tasks whose loss is not finite.
  """
  window = jax.device_get(list(window))
  merged = {}
  for step, metrics in window:
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    bad = [name for name, value in values.items()
           if name.endswith('/loss') and not math.isfinite(value)]
    if bad or not math.isfinite(values[total]):
      tasks = ', '.join(name.split('/')[1] for name in bad) or 'none of its own'
      raise NonFiniteLoss(f'the loss of step {step} is not finite (tasks: {tasks})')
    for name, metric in metrics.items():
      merged[name] = merged[name].merge(metric) if name in merged else metric
  return {name: float(metric.compute()) for name, metric in merged.items()}


class MetricsWriter:
  """Appends figures to a run's files; what lies past `start_step` is dropped.

  A run that was killed after it logged a step, but before it saved one as
  late, logs that step again: the record holds each step once.

  Args:
    workdir: gets metrics.jsonl and TensorBoard event files.
    start_step: the step that the run (re)starts from.
  """

  def __init__(self, workdir: str | pathlib.Path, *, start_step: int):
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    _truncate(self._path, start_step)
    self._file = self._path.open('a')
    self._events = SummaryWriter(
        logdir=str(pathlib.Path(workdir) / 'tensorboard'),
        purge_step=start_step + 1 if start_step else None)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """One line and one event each; flushed, so that a kill loses nothing."""
    try:
      self._file.write(json.dumps({'step': step, **values}) + '\n')
      self._file.flush()
      for name, value in values.items():
        self._events.add_scalar(name, value, step)
      self._events.flush()
    except OSError as error:
      raise InputError(
          f'cannot write to {self._path}: {error.strerror}; make room, then run '
          'the same command again') from error

  def close(self) -> None:
    self._file.close()
    self._events.close()


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


def _truncate(path: pathlib.Path, last_step: int) -> None:
  if not path.exists():
    return
  kept = [row for row in read_metrics(path.parent) if row['step'] <= last_step]
  temporary = path.with_suffix('.jsonl.tmp')
  temporary.write_text(''.join(json.dumps(row) + '\n' for row in kept))
  os.replace(temporary, path)


def progress_line(values: Mapping[str, float], *, clock: Clock, steps: int,
                  images_per_step: int) -> str:
  """One readable line: where the run stands, its losses, its rate and ETA."""
  rate = values['images_per_second']
  eta = duration(clock.remaining(steps, images_per_step=images_per_step, rate=rate))
  tasks = ' '.join(
      f"{name.split('/')[1]} {values[name.replace('/accuracy', '/loss')]:.3f}/{value:.0%}"
      for name, value in sorted(values.items())
      if name.startswith('task/') and name.endswith('/accuracy'))
  return (f'step {clock.steps}/{steps}  loss {values["loss"]:.3f}  '
          f'{rate:.1f} images/s  eta {eta}  loss/accuracy: {tasks}')


def say(message: str) -> None:
  """A line for the person who watches, on standard error."""
  print(message, file=sys.stderr, flush=True)
