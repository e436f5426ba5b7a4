"""Measures everything that a report says about a run; terminal, page and JSON show it."""

import dataclasses
from typing import Any

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log
from painformer_jax.models import functional, heads
from painformer_jax.report import data_notes
from painformer_jax.report.baseline import Baseline, pixel_baseline
from painformer_jax.report.embeddings import Embedded, TaskArrays
from painformer_jax.report.probe import Probe, chance, is_unbalanced, linear_probe, verdict
from painformer_jax.report.run_folder import TrainedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
  """The results of one task.

  Attributes:
    name: of the task.
    description, licence, modality: as prepared.
    split: how training and test images differ, briefly where possible.
    classes: number of classes.
    n_train, n_test: numbers of images.
    probe: linear probe on the embeddings of the run.
    untrained: linear probe on embeddings of the backbone before training.
    pixels: the baseline on pixels.
    head_accuracy: of the task's own head, on test images.
    chance: accuracy of always naming the most frequent class.
    unbalanced: whether the test classes differ so much in size that macro-F1 is shown.
  """

  name: str
  description: str
  licence: str
  modality: str
  split: str
  classes: int
  n_train: int
  n_test: int
  probe: Probe
  untrained: Probe
  pixels: Baseline
  head_accuracy: float
  chance: float
  unbalanced: bool

  @property
  def verdict(self) -> str:
    """'above chance', 'at chance' or 'below chance', by the probe's interval."""
    return verdict(self.probe.interval, self.chance)

  def record(self) -> dict[str, Any]:
    """What report.json keeps under tasks/<name>."""

    def interval(result):
      return [result.interval.low, result.interval.high]

    return {
      'classes': self.classes,
      'modality': self.modality,
      'description': self.description,
      'licence': self.licence,
      'n_train': self.n_train,
      'n_test': self.n_test,
      'n_test_effective': self.probe.interval.n_eff,
      'probe_accuracy': self.probe.accuracy,
      'probe_interval': interval(self.probe),
      'probe_macro_f1': self.probe.macro_f1,
      'probe_verdict': self.verdict,
      'probe_strength': self.probe.strength,
      'probe_folds': self.probe.folds,
      'head_accuracy': self.head_accuracy,
      'chance': self.chance,
      'pixel_baseline_accuracy': self.pixels.accuracy,
      'pixel_baseline_interval': interval(self.pixels),
      'pixel_baseline_size': self.pixels.size,
      'pixel_baseline_components': self.pixels.components,
      'untrained_probe_accuracy': self.untrained.accuracy,
      'untrained_probe_interval': interval(self.untrained),
      'unbalanced': self.unbalanced,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """The results of a run.

  Attributes:
    title: name of the run's folder.
    model, image_size, parameters: of the backbone.
    step, steps: of the checkpoint, and of the whole run.
    images: of training up to the checkpoint.
    train_seconds, images_per_second: of training steps alone, without
      compilation, evaluation and checkpoints.
    initial_weights: what the backbone started from, '' for random values.
    devices: in words, where the run has recorded them.
    data: what the data is, and what it cannot show.
    tasks: in the order of the run's record.
    embedded_images, embed_seconds: see `Embedded`.
  """

  title: str
  model: str
  image_size: int
  parameters: int
  step: int
  steps: int
  images: int
  train_seconds: float
  images_per_second: float
  initial_weights: str
  devices: str
  data: str
  tasks: tuple[TaskResult, ...]
  embedded_images: int
  embed_seconds: float

  @property
  def finished(self) -> bool:
    return self.step >= self.steps


def measure(run: TrainedRun, embedded: Embedded, *, log: Log) -> Results:
  """Probes and baselines of every task.

  Raises:
    InputError: a task that cannot be probed; scikit-learn is not installed.
  """
  log(f'fits probes and baselines of {len(run.tasks)} tasks')
  return Results(
    title=run.folder.resolve().name,
    model=run.config.model['name'],
    image_size=run.model.image_size,
    parameters=functional.count_parameters(run.model),
    step=run.step,
    steps=run.config.steps,
    images=run.step * sum(run.config.batch_sizes.values()),
    train_seconds=run.clock.seconds,
    images_per_second=run.clock.images / (run.clock.seconds or 1),
    initial_weights=run.config.initial_weights,
    devices=_devices(run),
    data=data_notes.what_it_is(run.tasks),
    tasks=tuple(_task(run, name, embedded.tasks[name]) for name in run.tasks),
    embedded_images=embedded.images,
    embed_seconds=embedded.seconds,
  )


def _task(run: TrainedRun, name: str, arrays: TaskArrays) -> TaskResult:
  train, test, task = arrays['train'], arrays['test'], run.tasks[name]
  labels = dict(train_label=train.label, test_label=test.label)
  try:
    probe = linear_probe(train.embedding, test=test.embedding, **labels)
    untrained = linear_probe(train.untrained, test=test.untrained, **labels)
  except ValueError as error:
    raise InputError(f"task '{name}' cannot be probed: {error}; prepare it with more") from error
  logits = np.asarray(heads.logits(run.heads, name, test.embedding, classes=len(task.classes)))
  return TaskResult(
    name=name,
    description=task.description,
    licence=task.licence,
    modality=task.modality,
    split=data_notes.split_note(task),
    classes=len(task.classes),
    n_train=len(train.label),
    n_test=len(test.label),
    probe=probe,
    untrained=untrained,
    pixels=pixel_baseline(train.grey, test=test.grey, **labels),
    head_accuracy=float((logits.argmax(-1) == test.label).mean()),
    chance=chance(test.label),
    unbalanced=is_unbalanced(test.label),
  )


def _devices(run: TrainedRun) -> str:
  """'1 x cpu (2 cores), jax 0.10.2', or '' before the run has recorded it."""
  there = run.recorded.get('environment')
  if not there:
    return ''
  cores = f' ({there["cpu_cores"]} cores)' if there['device_kind'] == 'cpu' else ''
  return f'{there["devices"]} x {there["device_kind"]}{cores}, jax {there["jax"]}'
