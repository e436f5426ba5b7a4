"""Trains every fold and seed of an experiment at once, and saves finished groups."""

import dataclasses
import os
import time
from collections.abc import Sequence

import jax
import numpy as np

from painformer_jax.assessment.folds.batches import Fold, FoldRun, check_folds, count_steps
from painformer_jax.assessment.mixers import cost
from painformer_jax.assessment.mixers.fit_cache import RunCache, experiment_key
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fit_program import Data
from painformer_jax.assessment.mixers.trainer import GroupTrainer
from painformer_jax.core.errors import InputError
from painformer_jax.core.memory import free_memory
from painformer_jax.core.progress import Log
from painformer_jax.parallel.mesh import data_mesh
from painformer_jax.training.interrupt import Interrupt


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
  """Predictions and losses of all folds.

  Attributes:
    names: of the folds, in the order given.
    seeds: of the config.
    logits: a fold -> [seeds, test samples of the fold, classes] float32, in the
      order of `Fold.test`.
    losses: [folds, seeds, steps] float32, training loss of every step.
    seconds: that training took here, without what the cache held.
    trained: runs that were trained here; the others came from the cache.
  """

  names: tuple[str, ...]
  seeds: tuple[int, ...]
  logits: list[np.ndarray]
  losses: np.ndarray
  seconds: float
  trained: int


def fit_folds(
  inputs: np.ndarray,
  labels: np.ndarray,
  folds: Sequence[Fold],
  *,
  config: FitConfig,
  mask: np.ndarray | None = None,
  cache: str | os.PathLike | None = None,
  memory_limit: int | None = None,
  at_once: int | None = None,
  devices: Sequence[jax.Device] | None = None,
  progress: Log = lambda line: None,
) -> FitResult:
  """Trains one network a fold and seed, and tests each on its own fold.

  All runs (folds × seeds) train in one compiled program, split over the devices,
  in as many groups as the memory asks for. A run's result does not depend on
  which others train beside it, up to the rounding of float32 sums.

  Args:
    inputs: [samples, tokens, width] float32 embeddings.
    labels: [samples] integers from 0 to classes - 1.
    folds: the splits.
    config: how to train.
    mask: [samples, tokens] bool, the embeddings that are there; None for all.
    cache: folder for the results of finished groups, from which the same call resumes
      after an interruption; None saves nothing.
    memory_limit: bytes that training may take on each device, about; None for
      half of what is free.
    at_once: most runs in a group; None for as many as fit.
    devices: to train on; None for all.
    progress: takes lines about the progress.

  Raises:
    InputError: arrays, folds or limits that do not fit.
    KeyboardInterrupt: after SIGINT or SIGTERM, with finished groups in the cache.
  """
  inputs, labels, mask = _checked(inputs, labels, mask, config)
  check_folds(folds, samples=len(labels))
  steps = config.steps or count_steps(folds, epochs=config.epochs, batch=config.batch)
  runs = [FoldRun(fold=fold, seed=seed) for fold in folds for seed in config.seeds]
  store = RunCache(cache, experiment_key(inputs, labels, mask, config, steps=steps))
  results = store.load(runs)
  left = [run for run in runs if run not in results]
  if results:
    progress(f'{len(results)} of {len(runs)} runs are in the cache')
  seconds = 0.0
  if left:
    progress(
      str(
        cost.training_cost(
          config.model, tokens=inputs.shape[1], runs=len(left), steps=steps, batch=config.batch
        )
      )
    )
    mesh = data_mesh(devices)
    microbatch_size = _microbatch_size(config, inputs, mesh)
    size = group_size(
      len(left),
      at_once=at_once,
      devices=mesh.size,
      bytes_a_run=cost.bytes_per_run(
        config.model, tokens=inputs.shape[1], batch=config.batch, microbatch_size=microbatch_size
      ),
      memory=(memory_limit or free_memory(mesh.devices.flat[0]) // 2) - inputs.nbytes,
    )
    start = time.perf_counter()
    with Interrupt() as interrupt:
      trainer = GroupTrainer(
        Data(inputs=inputs, labels=labels, mask=mask),
        config,
        mesh=mesh,
        runs=runs,
        steps=steps,
        group_size=size,
        microbatch_size=microbatch_size,
        progress=progress,
        interrupt=interrupt,
      )
      groups = [left[i : i + size] for i in range(0, len(left), size)]
      for number, group in enumerate(groups):
        done = trainer.train(group, number=number, groups=len(groups))
        store.save(done)
        results |= done
    seconds = time.perf_counter() - start
  by_fold = [[results[FoldRun(fold=fold, seed=seed)] for seed in config.seeds] for fold in folds]
  return FitResult(
    names=tuple(fold.name for fold in folds),
    seeds=config.seeds,
    logits=[np.stack([result.logits for result in row]) for row in by_fold],
    losses=np.stack([[result.losses for result in row] for row in by_fold]),
    seconds=seconds,
    trained=len(left),
  )


def fit_all(
  inputs: np.ndarray,
  labels: np.ndarray,
  *,
  config: FitConfig,
  mask: np.ndarray | None = None,
  progress: Log = lambda line: None,
) -> dict[str, np.ndarray]:
  """Trains one network a seed on all samples of which any embedding is there.

  Args:
    inputs, labels, config, mask, progress: as of `fit_folds`.

  Returns:
    Path -> float32 [seeds, ...], the learned arrays.

  Raises:
    InputError: arrays that do not fit, or a loss that is not finite.
    KeyboardInterrupt: after SIGINT or SIGTERM.
  """
  inputs, labels, mask = _checked(inputs, labels, mask, config)
  there = np.arange(len(labels)) if mask is None else np.flatnonzero(mask.any(axis=1))
  fold = Fold(name='all samples', train=there, test=there[:1])
  runs = [FoldRun(fold=fold, seed=seed) for seed in config.seeds]
  mesh = data_mesh(jax.devices()[:1])
  with Interrupt() as interrupt:
    trainer = GroupTrainer(
      Data(inputs=inputs, labels=labels, mask=mask),
      config,
      mesh=mesh,
      runs=runs,
      steps=config.steps or count_steps([fold], epochs=config.epochs, batch=config.batch),
      group_size=len(runs),
      microbatch_size=_microbatch_size(config, inputs, mesh),
      progress=progress,
      interrupt=interrupt,
    )
    return trainer.parameters(runs)


def _microbatch_size(config: FitConfig, inputs: np.ndarray, mesh: jax.sharding.Mesh) -> int:
  return cost.microbatch_size(
    config.model, tokens=inputs.shape[1], batch=config.batch, platform=mesh.devices.flat[0].platform
  )


def group_size(
  runs: int, *, bytes_a_run: int, memory: int, devices: int, at_once: int | None = None
) -> int:
  """How many runs train together: as many as fit, in groups of even size.

  Args:
    runs: of the experiment.
    bytes_a_run: that one run takes.
    memory: bytes for the runs on each device.
    devices: that share a group evenly.
    at_once: most runs in a group; None for no other limit than memory.

  Raises:
    InputError: not even one run a device fits.
  """
  if at_once is not None and at_once < 1:
    raise InputError(f'at_once {at_once} is below 1')
  fit = memory // bytes_a_run * devices
  if fit < devices:
    raise InputError(
      f'one fold takes about {bytes_a_run / 2**20:.0f} MB to train and '
      f'{max(memory, 0) / 2**20:.0f} MB are allowed beside the data: raise memory_limit, or '
      'take a smaller model or batch'
    )
  most = max(min(fit, at_once or fit, -(-runs // devices) * devices) // devices, 1) * devices
  groups = -(-runs // most)
  return -(-runs // (groups * devices)) * devices


def _checked(inputs, labels, mask, config: FitConfig):
  """The arrays in the types that training takes, or InputError."""
  inputs, labels = np.asarray(inputs), np.asarray(labels)
  if inputs.ndim != 3 or inputs.shape[2] != config.model.input_width or not inputs.size:
    raise InputError(
      f'embeddings have shape {inputs.shape}; the model takes '
      f'[samples, tokens, {config.model.input_width}]'
    )
  if inputs.shape[1] <= config.model.encoder_tokens:
    raise InputError(
      f'embeddings have {inputs.shape[1]} tokens a sample; the encoder alone '
      f'takes {config.model.encoder_tokens}'
    )
  inputs = np.ascontiguousarray(inputs, np.float32)
  if labels.shape != inputs.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
    raise InputError(
      f'labels have shape {labels.shape} and type {labels.dtype}; there are '
      f'{len(inputs)} samples, each needs an integer'
    )
  if labels.min() < 0 or labels.max() >= config.model.outputs:
    raise InputError(
      f'labels go from {labels.min()} to {labels.max()}; the model has classes '
      f'0 to {config.model.outputs - 1}'
    )
  if mask is not None:
    mask = np.asarray(mask)
    if mask.shape != inputs.shape[:2] or mask.dtype != bool:
      raise InputError(
        f'the mask has shape {mask.shape} and type {mask.dtype}; it needs '
        f'{inputs.shape[:2]} booleans'
      )
    # What is not there must not reach the gradient, not even as 0 x NaN.
    inputs = np.where(mask[:, :, None], inputs, 0)
    mask = None if mask.all() else mask
  if not np.isfinite(inputs).all():
    worst = int(np.flatnonzero(~np.isfinite(inputs).all(axis=(1, 2)))[0])
    raise InputError(f'the embeddings of sample {worst} are not finite: mask or drop them')
  return inputs, labels.astype(np.int32), mask
