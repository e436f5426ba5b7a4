"""Trains the Mixers of a job on embeddings of a frozen backbone, all folds at once."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from painformer_jax.assessment.experiment.fit import Outcome
from painformer_jax.assessment.experiment.job import Job, steps
from painformer_jax.assessment.folds import protocols
from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.mixers import fusion
from painformer_jax.assessment.mixers.fit import fit_folds
from painformer_jax.assessment.mixers.inputs import MixerInput
from painformer_jax.assessment.statistics import metrics
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log


def train(
  job: Job,
  *,
  cache: str | os.PathLike | None,
  memory_limit: int | None = None,
  log: Log = lambda line: None,
) -> Outcome:
  """Trains and tests all folds and seeds of a job.

  Args:
    job: with inputs.
    cache: folder that keeps finished folds, from which an interrupted call resumes; None
      keeps none.
    memory_limit: bytes for training on each device; None for half of what is free.
    log: gets lines of progress.

  Raises:
    InputError: a subject is on both sides of a fold, or no training sample of a fold has
      an input.
    KeyboardInterrupt: after SIGINT or SIGTERM; finished folds are in the cache.
  """
  protocols.check_subjects(job.folds, job.subjects)
  options = {'cache': cache, 'memory_limit': memory_limit, 'log': log}
  best = _choose_points(job, **options)
  logits: dict[str, np.ndarray] = {}
  for number in range(len(job.points)):
    folds = [fold for fold in job.folds if best[fold.name] == number]
    if folds:
      found = _logits(job, folds, number, steps_of=job.folds, seeds=job.seeds, **options)
      logits |= {fold.name: values for fold, values in zip(folds, found)}
  return Outcome(
    runs=metrics.gather(
      job.folds,
      [logits[fold.name] for fold in job.folds],
      sample=job.samples,
      subject=job.subjects,
      label=job.label,
    ),
    chosen={f.name: job.points[best[f.name]] for f in job.folds} if len(job.points) > 1 else {},
  )


def _choose_points(job: Job, *, log: Log, **options) -> dict[str, int]:
  """Fold -> the grid's best point on inner folds of its training subjects, by number."""
  if len(job.points) == 1:
    return {fold.name: 0 for fold in job.folds}
  inner = {
    fold.name: protocols.inner_folds(fold, job.subjects, count=job.inner_folds)
    for fold in job.folds
  }
  folds = [fold for own in inner.values() for fold in own]
  scores = {fold.name: [] for fold in job.folds}
  for number, point in enumerate(job.points):
    values = ', '.join(f'{k} {v}' for k, v in point.items())
    log(f'choosing, point {number + 1} of {len(job.points)}: {values}')
    logits = _logits(job, folds, number, steps_of=folds, seeds=job.seeds[:1], log=log, **options)
    predicted = {f.name: part[0].argmax(axis=-1) for f, part in zip(folds, logits)}
    for name, own in inner.items():
      counts = sum(
        metrics.confusion(job.label[f.test], predicted[f.name], classes=len(job.task.classes))
        for f in own
      )
      scores[name].append(float(metrics.macro_accuracy(counts)))
  return {name: int(np.argmax(values)) for name, values in scores.items()}


def _logits(
  job: Job,
  folds: Sequence[Fold],
  point: int,
  *,
  steps_of: Sequence[Fold],
  seeds: tuple[int, ...],
  cache: str | os.PathLike | None,
  memory_limit: int | None,
  log: Log,
) -> list[np.ndarray]:
  """Of each fold, [seeds, test samples, classes], the Mixers' decisions combined.

  The number of steps follows from `steps_of`, whichever folds happen to train together.
  """
  by_input = []
  for source, config in zip(job.inputs, job.fits[point]):
    config = dataclasses.replace(config, seeds=seeds, steps=steps(config, steps_of))
    result = fit_folds(
      source.values,
      job.label,
      [_with_input(fold, source) for fold in folds],
      config=config,
      mask=source.mask,
      cache=cache,
      memory_limit=memory_limit,
      progress=log,
    )
    by_input.append(result.logits)
  return [
    fusion.decide(job.fusion, parts, there=[source.there[fold.test] for source in job.inputs])
    for fold, *parts in zip(folds, *by_input)
  ]


def _with_input(fold: Fold, source: MixerInput) -> Fold:
  """The fold without training samples that lack the input altogether."""
  train = fold.train[source.there[fold.train]]
  if not len(train):
    raise InputError(f'fold {fold.name}: no training sample has {source.name}')
  return dataclasses.replace(fold, train=train)
