"""Trains the Embedding-Mixers of one line of an assessment on all samples, and saves them."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from painformer_jax.assessment.clips import assessor
from painformer_jax.assessment.clips.calibration import calibrated, fit_temperature, logits_of
from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.assessment.experiment.fit import Outcome
from painformer_jax.assessment.experiment.job import Job, steps
from painformer_jax.assessment.experiment.normalise import statistics
from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.mixers.fit import fit_all
from painformer_jax.assessment.results import summary as results
from painformer_jax.assessment.statistics import metrics
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically, write_json
from painformer_jax.core.progress import Log


def save(
  config: AssessConfig,
  job: Job,
  outcome: Outcome,
  *,
  summary: results.Summary,
  store: EmbeddingStore,
  shapes: Mapping[str, SampleShape],
  folder: str | os.PathLike,
  synthetic: bool = False,
  log: Log = lambda line: None,
) -> None:
  """Trains a job's Embedding-Mixers on all its samples, and writes them.

  Of a grid, they train with the point that most folds chose. Where the images of a
  modality do not say their rate, nothing is written.

  Args:
    config: of the assessment.
    job: what they are trained on, with inputs.
    outcome: predictions of the job's folds.
    summary: of those predictions.
    store: the embeddings, not normalised.
    shapes: name -> what a sample of that modality is.
    folder: where they are written; the description comes last, and a folder that holds
      one is left as it is.
    synthetic: whether nobody was recorded in the study.
    log: takes lines.

  Raises:
    InputError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  if (folder / assessor.DESCRIPTION).is_file():
    log(f'{folder} is there already')
    return
  untimed = [name for name in job.fusion.modalities if not shapes[name].timed]
  if untimed:
    log(
      f'{job.name}: no assessor is saved: the images of {", ".join(untimed)} do not say '
      'their rate, as folders of images never do, so it could not judge a clip over time'
    )
    return
  arrays, models = {}, []
  for number, (source, fit) in enumerate(zip(job.inputs, job.fits[_most_chosen(job, outcome)])):
    log(f'training on all {len(job.positions):,} samples: {job.row}, {source.name}')
    everything = Fold(name='all', train=np.arange(len(job.label)), test=np.arange(1))
    fit = dataclasses.replace(fit, steps=steps(fit, [everything]))
    learned = fit_all(source.values, job.label, config=fit, mask=source.mask, progress=log)
    models.append(dataclasses.asdict(fit.model))
    arrays |= {f'{number}/{path}': array for path, array in learned.items()}
  names = job.fusion.modalities
  if config.normalise == 'study':
    for name in names:
      arrays[f'mean/{name}'], arrays[f'std/{name}'] = statistics(store.tokens(name))
  label = np.concatenate([run.label for run in outcome.runs])
  probability = np.concatenate([run.probability for run in outcome.runs])
  temperature = fit_temperature(label, probability)
  after = calibrated(logits_of(probability), temperature)
  accuracy = summary.scores['accuracy']
  description = {
    'format': assessor.FORMAT,
    'version': assessor.VERSION,
    'notice': results.NOTICE,
    'synthetic': synthetic,
    'task': job.task.name,
    'classes': list(job.task.classes),
    'fusion': dataclasses.asdict(job.fusion),
    'settings': {name: dataclasses.asdict(config.modalities[name]) for name in names},
    'sources': {
      name: dataclasses.asdict(shapes[name]) | {'tokens': store.tokens(name).values.shape[1]}
      for name in names
    },
    'normalise': config.normalise,
    'models': models,
    'temperature': temperature,
    'weights': {
      'path': os.path.abspath(config.weights),
      'sha256': store.record(names[0])['weights']['sha256'],
    },
    'measured': {
      'dataset': summary.experiment.dataset,
      'protocol': summary.experiment.protocol,
      'accuracy': accuracy.estimate,
      'low': _number(accuracy.low),
      'high': _number(accuracy.high),
      'samples': len(outcome.runs[0].label),
      'chance': summary.chance,
      'calibration_error': metrics.calibration(label, probability).error,
      'calibration_error_after_temperature': metrics.calibration(label, after).error,
    },
  }
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made: {error.strerror}') from error
  write_atomically(folder / assessor.ARRAYS, lambda file: np.savez(file, **arrays))
  write_json(folder / assessor.DESCRIPTION, description)


def _most_chosen(job: Job, outcome: Outcome) -> int:
  """Number of the grid's point that most folds chose; 0 without a grid."""
  chosen = [job.points.index(point) for point in outcome.chosen.values()]
  return max(sorted(set(chosen)), key=chosen.count) if chosen else 0


def _number(value: float) -> float | None:
  """For JSON, which has no NaN."""
  return None if np.isnan(value) else value
