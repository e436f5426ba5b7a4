"""Describes a finished job for tables and results.json: labels, settings, notes."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.assessment.experiment.fit import Outcome
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.folds import protocols
from painformer_jax.assessment.folds.tasks import DATASET_TASKS
from painformer_jax.assessment.results.summary import Experiment
from painformer_jax.assessment.statistics import intervals, metrics
from painformer_jax.training.run import environment


def describe(
  config: AssessConfig, job: Job, outcome: Outcome, *, study: Study, store: EmbeddingStore
) -> Experiment:
  """A finished job with all that its results depend on.

  Args:
    config: of the assessment.
    job: with inputs.
    outcome: of the job.
    study: that the job's samples are of.
    store: of the embeddings.
  """
  modalities = job.fusion.modalities
  settings: dict[str, Any] = {
    'row': job.row,
    'config': json.loads(config.to_json()),
    'environment': environment(),
    'folds': len(job.folds),
    'embeddings': {name: store.record(name) for name in modalities},
    'samples_without_modality': {
      name: sum(t.left_out for t in store.troubles(name)) for name in modalities
    },
  }
  notes = [*_notes(config, job, outcome), *_stand_ins(job, store)]
  if outcome.chosen:
    settings['chosen'] = {fold: dict(point) for fold, point in outcome.chosen.items()}
  if outcome.shuffled:
    # The first seed's accuracy, because permuted labels are trained with that seed too.
    accuracy = float(metrics.accuracy(outcome.runs[0].confusion()))
    p = intervals.shuffle_test(accuracy, np.array(outcome.shuffled))
    settings['shuffled'] = {'accuracy': list(outcome.shuffled), 'p': p}
    notes.append(_chance_note(config, outcome, accuracy=accuracy, p=p))
  return Experiment(
    name=job.name,
    dataset=study.name,
    task=job.task.name,
    modality=modality_label(config, job.row),
    method=f'{job.fusion.kind}, {config.mixer["name"]}'
    + (', fine-tuned' if config.finetunes else ''),
    protocol=_protocol(config, job),
    classes=job.task.classes,
    runs=outcome.runs,
    unit=_unit(config),
    settings=settings,
    notes=tuple(notes),
  )


def modality_label(config: AssessConfig, row: str) -> str:
  """The name of a row's modalities in tables, which says where one is a stand-in."""
  modalities = config.rows[row].fusion.modalities
  label = config.rows[row].label or '+'.join(modalities)
  stand_in = any(config.modalities[name].stand_in for name in modalities)
  return f'{label} (stand-in)' if stand_in else label


def _unit(config: AssessConfig) -> str:
  return 'block' if config.dataset == 'demo' else 'subject'


def _protocol(config: AssessConfig, job: Job) -> str:
  """The name of the protocol in tables, for a single split with its numbers of subjects."""
  name = protocols.PROTOCOLS[config.protocol]
  if config.protocol not in protocols.FIXED:
    return name
  (fold,) = job.folds
  counts = (len(set(job.subjects[part])) for part in (fold.train, fold.test))
  return f'{name}, {"/".join(map(str, counts))} subjects'


def _chance_note(config: AssessConfig, outcome: Outcome, *, accuracy: float, p: float) -> str:
  how = 'rotated in time' if config.protocol == protocols.BLOCKS else 'shuffled'
  low, high = min(outcome.shuffled), max(outcome.shuffled)
  return (
    f'with labels {how} within each {_unit(config)}: mean {100 * np.mean(outcome.shuffled):.1f} '
    f'%, {100 * low:.1f}-{100 * high:.1f} % in {len(outcome.shuffled)} runs; '
    f"the first seed's {100 * accuracy:.1f} % has p = {p:.3f}"
  )


def _stand_ins(job: Job, store: EmbeddingStore) -> Iterator[str]:
  for name in job.fusion.modalities:
    if store.stand_in(name):
      yield f'{name}: a stand-in: {store.stand_in(name)}'


def _notes(config: AssessConfig, job: Job, outcome: Outcome) -> Iterator[str]:
  """What a reader of the results must know."""
  if config.dataset == 'demo':
    yield (
      f'one person, windows at least {config.gap:g} s apart from those trained on: says '
      'how well a state is recognised at another time, not in another person'
    )
    if _trained_on_demo(config.weights):
      yield (
        'the backbone was trained on these recordings and their labels, so these results are '
        'too good: take other weights'
      )
  if config.finetunes:
    yield 'the backbone was fine-tuned with the Mixer, on the training subjects alone'
  if config.normalise == 'subject':
    yield "embeddings standardised over each subject's own recordings, without labels"
  if config.normalise == 'study':
    yield 'embeddings standardised over all recordings, without labels'
  if outcome.chosen:
    yield f'hyper-parameters chosen on {config.inner_folds} inner folds of the training subjects'
  if config.dataset == 'planted' and job.task.name in DATASET_TASKS['planted']:
    known = 100 * config.planted.accuracy(job.task.name)
    unseen = 100 * config.planted.accuracy_on_unseen_subjects(job.task.name)
    yield (
      f'synthetic: by construction the best possible accuracy is {known:.1f} % where each '
      f"subject's shift is known and {unseen:.1f} % on unseen subjects"
    )


def _trained_on_demo(weights: str | os.PathLike) -> bool:
  """Whether weights are of a pretraining run that had the tasks of dataset 'demo'."""
  try:
    tasks = json.loads(pathlib.Path(weights, 'config.json').read_text())['tasks']
  except (OSError, ValueError, KeyError, TypeError):
    return False
  return bool({'stimulus_rest', 'tapping_rest'} & set(tasks))
