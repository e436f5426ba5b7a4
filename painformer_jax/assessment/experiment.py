"""One line of the table on one task: folds, hyper-parameters, predictions."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.store import Tokens
from painformer_jax.assessment.folds import permuted_labels, protocols
from painformer_jax.assessment.folds.batches import Fold, count_steps
from painformer_jax.assessment.folds.protocols import BLOCKS
from painformer_jax.assessment.folds.tasks import TASKS, Task
from painformer_jax.assessment.mixers import cost, fusion
from painformer_jax.assessment.mixers.fit import fit_folds
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.inputs import MixerInput, assemble
from painformer_jax.assessment.mixers.normalise import Standardiser, zscore_by_subject
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
  """What one line of the table is made of.

  Attributes:
    row: name in the config.
    task: what is told apart.
    positions: int [n], of the samples in the study that take part.
    label: int64 [n].
    folds: of positions in `label`.
    inputs: of the Mixers, [n, tokens, width] each; none before embedding.
  """

  row: str
  task: Task
  positions: np.ndarray
  label: np.ndarray
  folds: list[Fold]
  inputs: tuple[MixerInput, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
  """What came out of a job.

  Attributes:
    runs: predictions, one a seed.
    chosen: fold -> the point of the grid it chose; empty without a grid.
  """

  runs: tuple[Predictions, ...]
  chosen: Mapping[str, Mapping[str, Any]]


def jobs(
  config: AssessConfig, study: Study, *, tokens: Mapping[str, Tokens] | None = None
) -> Iterator[Job]:
  """Every line of the table on every task of its own, one after the other.

  Args:
    config: of the assessment.
    study: all its samples.
    tokens: embeddings by name, normalised already; without them, jobs tell who would
      take part and cannot be run.

  Raises:
    InputError: a task without samples, or a protocol that does not fit the study.
  """
  subjects, splits = study.subject_array(), study.split_array()
  for name, row in config.rows.items():
    inputs = [] if tokens is None else assemble(row.fusion, tokens)
    sources = {config.modalities[m].source for m in row.fusion.modalities}
    there = np.array([bool(sources & s.data.keys()) for s in study.samples])
    if inputs:
      there = np.any([i.there for i in inputs], axis=0)
    for task_name in config.tasks_of(name):
      task = TASKS[task_name]
      label = task.labels(study.level_array())
      positions = np.flatnonzero(there & (label >= 0))
      if not positions.size:
        raise InputError(
          f'config.rows.{name}: {study.name} has no sample of '
          f'{", ".join(sorted(sources))} for the task {task_name}'
        )
      yield Job(
        row=name,
        task=task,
        positions=positions,
        label=label[positions],
        folds=_folds(config, subjects[positions], splits[positions]),
        inputs=tuple(_rows(i, positions) for i in inputs),
      )


def normalised(tokens: Tokens, subjects: np.ndarray, *, how: str) -> Tokens:
  """Embeddings by one of `AssessConfig.normalise`; each place among the tokens apart."""
  if how == 'none':
    return tokens
  if how == 'study':
    mean, std = statistics(tokens)
    return dataclasses.replace(tokens, values=((tokens.values - mean) / std).astype(np.float32))
  values = np.empty(tokens.values.shape, np.float32)
  for place in range(values.shape[1]):
    values[:, place] = zscore_by_subject(_there(tokens, place), subjects)
  return dataclasses.replace(tokens, values=values)


def statistics(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
  """Mean and spread over the samples, float64 [tokens, width] each."""
  each = [Standardiser.fit(_there(tokens, place)) for place in range(tokens.values.shape[1])]
  return np.stack([s.mean for s in each]), np.stack([s.std for s in each])


def _there(tokens: Tokens, place: int) -> np.ndarray:
  """[samples, width] of one place among the tokens, NaN where nothing is."""
  return np.where(tokens.mask[:, place, None], tokens.values[:, place], np.nan)


def train_flops(config: AssessConfig, job: Job) -> float:
  """Floating-point operations of a job's training, those of choosing included.

  Args:
    config: of the assessment.
    job: with inputs, of which only the shapes count.
  """
  total = 0.0
  for point in config.points:
    for source in job.inputs:
      model = model_of(config, job, source, point)
      fit = config.fit_config(model, point)
      a_step = fit.batch * cost.size(model, tokens=source.values.shape[1]).train_flops
      outer = len(job.folds) * steps(fit, job.folds) * a_step
      # Each fold trains at one point only; which one is not known yet.
      total += outer * len(config.seeds) / len(config.points)
      if len(config.points) > 1:
        total += outer * config.inner_folds
      total += (
        outer
        * config.shuffled
        * (1 / len(config.points) + (config.inner_folds if len(config.points) > 1 else 0))
      )
  return total


def describe_choices(config: AssessConfig) -> str:
  """What comes on top of training each fold once, for people; '' for nothing."""
  parts = []
  if len(config.points) > 1:
    parts.append(f'{len(config.points)} points chosen among on {config.inner_folds} inner folds, ')
  if config.shuffled:
    parts.append(f'{config.shuffled} runs with shuffled labels, ')
  return ''.join(parts)


def run(
  config: AssessConfig,
  job: Job,
  study: Study,
  *,
  cache: str,
  shuffle: int | None = None,
  progress: Progress = lambda line: None,
) -> Outcome:
  """Trains and tests all folds of a job; goes on where it was stopped.

  Args:
    config: of the assessment.
    job: with inputs.
    study: that it is of.
    cache: folder that keeps finished folds.
    shuffle: seed to shuffle the labels within subjects with, or to move them round in time
      within blocks; None: true labels.
    progress: takes lines.
  """
  subjects = study.subject_array()[job.positions]
  seeds = config.seeds
  if shuffle is not None:
    # Windows of a block of time overlap; the study lists them by time.
    deal = (
      permuted_labels.shift_labels if config.protocol == BLOCKS else permuted_labels.shuffle_labels
    )
    job = dataclasses.replace(job, label=deal(job.label, subjects, seed=shuffle))
    seeds = seeds[:1]
  protocols.check_subjects(job.folds, subjects)
  points = config.points
  best = _choose(config, job, subjects, cache=cache, progress=progress)
  logits: dict[str, np.ndarray] = {}
  for number, point in enumerate(points):
    own = [fold for fold in job.folds if best[fold.name] == number]
    if own:
      found = _logits(
        config, job, own, point, steps_of=job.folds, seeds=seeds, cache=cache, progress=progress
      )
      logits |= {fold.name: values for fold, values in zip(own, found)}
  names = np.array([study.samples[p].name for p in job.positions])
  return Outcome(
    runs=metrics.gather(
      job.folds,
      [logits[f.name] for f in job.folds],
      sample=names,
      subject=subjects,
      label=job.label,
    ),
    chosen={f.name: points[best[f.name]] for f in job.folds} if len(points) > 1 else {},
  )


def model_of(config: AssessConfig, job: Job, source: MixerInput, point: Mapping[str, Any] = {}):
  """The Mixer that reads an input of a job."""
  model = config.mixer_config(point, outputs=len(job.task.classes))
  return source.fitted(model, encoder=config.encoder_config() if source.encoder_tokens else None)


def _choose(config, job, subjects, *, cache, progress) -> dict[str, int]:
  """Fold -> the best point of the grid by inner folds of its training subjects."""
  points = config.points
  if len(points) == 1:
    return {fold.name: 0 for fold in job.folds}
  inner = {
    fold.name: protocols.inner_folds(fold, subjects, count=config.inner_folds) for fold in job.folds
  }
  flat = [fold for folds in inner.values() for fold in folds]
  scores = {fold.name: [] for fold in job.folds}
  for number, point in enumerate(points, 1):
    progress(
      f'choosing, point {number} of {len(points)}: '
      + ', '.join(f'{k} {v}' for k, v in point.items())
    )
    found = dict(
      zip(
        (f.name for f in flat),
        _logits(
          config,
          job,
          flat,
          point,
          steps_of=flat,
          seeds=config.seeds[:1],
          cache=cache,
          progress=progress,
        ),
      )
    )
    for name, folds in inner.items():
      counts = sum(
        metrics.confusion(
          job.label[fold.test], found[fold.name][0].argmax(axis=-1), classes=len(job.task.classes)
        )
        for fold in folds
      )
      scores[name].append(float(metrics.macro_accuracy(counts)))
  return {name: int(np.argmax(values)) for name, values in scores.items()}


def _logits(config, job, folds, point, *, steps_of, seeds, cache, progress) -> list[np.ndarray]:
  """Of each fold, [seeds, test samples, classes], the Mixers' decisions joined."""
  by_input = []
  for source in job.inputs:
    fit = config.fit_config(model_of(config, job, source, point), point, seeds=seeds)
    # The same steps, whichever folds happen to train together.
    fit = dataclasses.replace(fit, steps=steps(fit, steps_of))
    result = fit_folds(
      source.values,
      job.label,
      [_present(fold, source) for fold in folds],
      config=fit,
      mask=source.mask,
      cache=cache,
      memory_limit=config.memory_limit or None,
      progress=progress,
    )
    by_input.append(result.logits)
  kind = config.rows[job.row].fusion
  return [
    fusion.decide(kind, parts, there=[i.there[fold.test] for i in job.inputs])
    for fold, *parts in zip(folds, *by_input)
  ]


def _present(fold: Fold, source: MixerInput) -> Fold:
  """The fold without training samples that lack the input altogether."""
  train = fold.train[source.there[fold.train]]
  if not len(train):
    raise InputError(f'fold {fold.name}: no training sample has {source.name}')
  return dataclasses.replace(fold, train=train)


def steps(fit: FitConfig, folds: Sequence[Fold]) -> int:
  """Of every fold: those of the config, else so many epochs of the largest fold."""
  return fit.steps or count_steps(folds, epochs=fit.epochs, batch=fit.batch)


def _folds(config: AssessConfig, subjects: np.ndarray, splits: np.ndarray) -> list[Fold]:
  if config.protocol == BLOCKS:
    return protocols.leave_one_subject_out(subjects)
  return protocols.make_folds(
    config.protocol, subjects=subjects, splits=splits, test_subjects=config.hold_out
  )


def _rows(source: MixerInput, positions: np.ndarray) -> MixerInput:
  return dataclasses.replace(source, values=source.values[positions], mask=source.mask[positions])
