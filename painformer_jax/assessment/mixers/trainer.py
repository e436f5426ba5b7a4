"""Trains groups of runs in the compiled program, chunk by chunk, and reports progress."""

import dataclasses
import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from painformer_jax.assessment.folds.batches import FoldRun, class_weights, minibatches, padded
from painformer_jax.assessment.mixers import cost, fit_program
from painformer_jax.assessment.mixers.fit_cache import RunResult
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fit_program import Data, RunInputs, RunState
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log, duration
from painformer_jax.parallel.mesh import replicated
from painformer_jax.training.interrupt import Interrupt

_SECONDS_A_LINE = 10.0  # Between two lines of progress, about.
_MOST_STEPS = 256  # Of a chunk.


class GroupTrainer:
  """Holds the compiled program; trains one group after the other.

  Args:
    data: all samples, as host arrays.
    config: how to train.
    mesh: devices that share each group's runs.
    runs: of all groups.
    steps: of each run.
    group_size: runs of a group; a multiple of the devices.
    microbatch_size: see `fit_program.make_advance`.
    progress: takes lines.
    interrupt: asked between two chunks.
  """

  def __init__(
    self,
    data: Data,
    config: FitConfig,
    *,
    mesh: jax.sharding.Mesh,
    runs: Sequence[FoldRun],
    steps: int,
    group_size: int,
    microbatch_size: int,
    progress: Log,
    interrupt: Interrupt,
  ):
    self._labels, self._config, self._mesh = data.labels, config, mesh
    self._steps, self._size, self._chunk = steps, group_size, min(steps, _MOST_STEPS)
    self._progress, self._interrupt = progress, interrupt
    # The same padding in every group, so that one program serves all.
    longest = max(len(run.fold.test) for run in runs)
    self._test_shape = group_size, -(-longest // microbatch_size), microbatch_size
    self._flops = config.batch * cost.size(config.model, tokens=data.inputs.shape[1]).train_flops
    self._data = jax.device_put(data, replicated(mesh))
    # Fields that the program does not depend on must not make it compile again.
    program = dataclasses.replace(config, seeds=(0,), epochs=1, steps=steps, class_weights='none')
    self._initial = fit_program.make_initial(program, mesh)
    self._advance = fit_program.make_advance(
      program, mesh, steps=steps, microbatch_size=microbatch_size
    )
    self._seconds = self._done = 0

  def train(
    self, group: Sequence[FoldRun], *, number: int, groups: int
  ) -> dict[FoldRun, RunResult]:
    """Trains and tests a group.

    Args:
      group: the runs; a group smaller than the others is filled up with copies of its
        first run.
      number: of the group, from 0.
      groups: how many there are.

    Raises:
      InputError: the loss of a run is not finite.
      KeyboardInterrupt: after a signal.
    """
    _, losses, logits = self._train(group, number=number, groups=groups)
    logits = np.asarray(logits).reshape(self._size, -1, self._config.model.outputs)
    return {
      run: RunResult(logits=logits[i, : len(run.fold.test)], losses=losses[i])
      for i, run in enumerate(group)
    }

  def parameters(self, group: Sequence[FoldRun]) -> dict[str, np.ndarray]:
    """Trains a single group: path -> [runs, ...] of the finished networks; raises as `train`."""
    state, _, _ = self._train(group, number=0, groups=1)
    return {path: np.asarray(array)[: len(group)] for path, array in state.params.items()}

  def _train(
    self, group: Sequence[FoldRun], *, number: int, groups: int
  ) -> tuple[RunState, np.ndarray, jax.Array]:
    """The last state; losses [runs, steps]; logits [runs, blocks, rows, classes]."""
    config, steps = self._config, self._steps
    filled = list(group) + [group[0]] * (self._size - len(group))
    batches = np.stack([minibatches(run, steps=steps, batch=config.batch) for run in filled])
    inputs = self._inputs(filled)
    state = self._initial(fit_program.put_runs(self._mesh, np.stack([run.key for run in filled])))
    chunks, step, count = [], 0, 1
    while step < steps:
      count = min(count, steps - step)
      chunk = np.zeros((self._size, self._chunk, config.batch), np.int32)
      chunk[:, :count] = batches[:, step : step + count]
      start = time.perf_counter()
      state, chunk_losses, logits = self._advance(
        state,
        self._data,
        dataclasses.replace(inputs, batches=fit_program.put_runs(self._mesh, chunk)),
        np.int32(step),
        np.int32(count),
        step + count == steps,
      )
      chunks.append(np.asarray(chunk_losses)[:, :count])
      seconds = time.perf_counter() - start
      step += count
      # The first call compiles: its time says nothing of the rate.
      if step > 1 or number:
        self._seconds, self._done = self._seconds + seconds, self._done + count
        self._report(number, groups, step, losses=chunks[-1][: len(group)])
        count = int(np.clip(_SECONDS_A_LINE * self._done / self._seconds, 1, self._chunk))
      if self._interrupt.asked:
        raise KeyboardInterrupt
    losses = np.concatenate(chunks, axis=1)
    if not np.isfinite(losses[: len(group)]).all():
      worst = group[int(np.flatnonzero(~np.isfinite(losses[: len(group)]).all(axis=1))[0])]
      raise InputError(
        f'fold {worst.fold.name!r}, seed {worst.seed}: the loss is not finite; '
        'take a lower learning rate or clip_norm'
      )
    return state, losses, logits

  def _inputs(self, runs: Sequence[FoldRun]) -> RunInputs:
    """What the program needs to know of each run, without minibatches."""
    config = self._config
    weights = [
      class_weights(
        run, self._labels, classes=config.model.outputs, balanced=config.class_weights == 'balanced'
      )
      for run in runs
    ]
    test = padded([run.fold.test for run in runs], length=math.prod(self._test_shape[1:]))
    return fit_program.put_runs(
      self._mesh,
      RunInputs(
        batches=np.zeros((self._size, self._chunk, config.batch), np.int32),
        weights=np.stack(weights),
        test=test.reshape(self._test_shape),
      ),
    )

  def _report(self, number: int, groups: int, step: int, *, losses: np.ndarray) -> None:
    rate = self._done / self._seconds
    left = (groups - number) * self._steps - step
    self._progress(
      f'group {number + 1} of {groups}, {self._size} runs: step {step} of {self._steps}, '
      f'{rate:.3g} steps/s, {rate * self._size * self._flops / 1e9:.3g} GFLOP/s, '
      f'loss {losses.mean():.3f}, {duration(left / rate)} left'
    )
