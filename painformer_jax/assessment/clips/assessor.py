"""A trained Mixer on disk, with all that it takes to use it on a new recording.

    assessor.json   what it tells apart, from what, how well, and how embeddings are made
    arrays.npz      its parameters of every seed, and the embeddings' mean and spread

It is trained on all samples; how well it does is what the folds of the same assessment
say of such Mixers on samples they had not seen.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import scipy.optimize
import scipy.special

from painformer_jax.assessment import experiment
from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.embedding.embed import EmbeddingSettings, EmbeddingStore
from painformer_jax.assessment.embedding.store import Tokens
from painformer_jax.assessment.folds.batches import Fold, Run, class_weights, minibatches
from painformer_jax.assessment.mixers import cost, fit_program, fusion
from painformer_jax.assessment.mixers.fit_program import Data, FitConfig, RunInputs
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.assessment.mixers.predict import predict
from painformer_jax.assessment.results import summary as results
from painformer_jax.assessment.statistics import metrics
from painformer_jax.core.config_fields import build
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically, write_json
from painformer_jax.models import embedding_mixer
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig
from painformer_jax.parallel import mesh as parallel

DESCRIPTION = 'assessor.json'
_ARRAYS = 'arrays.npz'
_FORMAT = 'painformer assessor'
_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """What a sample of one modality was in training.

  Attributes:
    seconds: how long it lasts.
    tokens: embeddings of it.
    rate: of a video, frames a second; 0 of a signal, and of images that do not say it.
    channels: of a signal; none of a video.
  """

  seconds: float
  tokens: int
  rate: float = 0.0
  channels: tuple[str, ...] = ()

  @property
  def timed(self) -> bool:
    """Whether it is known when its tokens come, without which no clip can be judged."""
    return bool(self.channels) or self.rate > 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Assessor:
  """What `load` gives.

  Attributes:
    task: name of the task.
    classes: names of what it tells apart.
    fusion: of its modalities.
    settings: name -> how that modality is embedded.
    sources: name -> what a sample of it was in training.
    normalise: of `AssessConfig.normalise`.
    mean, std: name -> float64 [tokens, width], of the training samples.
    models: of each input of the fusion.
    parameters: of each input, path -> [seeds, ...].
    temperature: that logits are divided by.
    weights: of the backbone, 'path' and 'sha256'.
    measured: accuracy, its interval and calibration, of the folds.
  """

  task: str
  classes: tuple[str, ...]
  fusion: FusionConfig
  settings: Mapping[str, EmbeddingSettings]
  sources: Mapping[str, Source]
  normalise: str
  mean: Mapping[str, np.ndarray]
  std: Mapping[str, np.ndarray]
  models: tuple[EmbeddingMixerConfig, ...]
  parameters: tuple[Mapping[str, np.ndarray], ...]
  temperature: float
  weights: Mapping[str, str]
  measured: Mapping[str, Any]

  def probabilities(self, tokens: Mapping[str, Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """What it says of samples.

    Args:
      tokens: embeddings of its modalities, not normalised, all of the same samples.

    Returns:
      float64 [samples, classes], and bool [samples], whether anything was there to
      judge by.
    """
    ready = {name: self._normalised(name, part) for name, part in tokens.items()}
    inputs = assemble(self.fusion, ready)
    logits = [
      predict(model, parameters, each, seeds=True)
      for model, parameters, each in zip(self.models, self.parameters, inputs)
    ]
    there = [each.there for each in inputs]
    joined = fusion.decide(self.fusion, logits, there=there)
    probability = scipy.special.softmax(joined.astype(np.float64) / self.temperature, axis=-1)
    return probability.mean(axis=0), np.any(there, axis=0)

  def _normalised(self, name: str, tokens: Tokens) -> Tokens:
    if self.normalise == 'none':
      return tokens
    if self.normalise == 'subject':
      one = np.zeros(len(tokens.values), int).astype(str)
      return experiment.normalised(tokens, one, how='subject')
    values = (tokens.values - self.mean[name]) / self.std[name]
    return dataclasses.replace(tokens, values=values.astype(np.float32))


def train(
  inputs: np.ndarray, labels: np.ndarray, mask: np.ndarray, *, config: FitConfig, steps: int
) -> dict[str, np.ndarray]:
  """Trains a Mixer on all samples, once a seed: path -> [seeds, ...].

  Args:
    inputs: float32 [samples, tokens, width].
    labels: int [samples].
    mask: bool [samples, tokens].
    config: how.
    steps: of training.
  """
  rows = np.flatnonzero(mask.any(axis=1))
  fold = Fold(name='all samples', train=rows, test=rows[:1])
  runs = [Run(fold=fold, seed=seed) for seed in config.seeds]
  mesh = parallel.data_mesh(jax.devices()[:1])
  config = dataclasses.replace(config, steps=steps)
  program = dataclasses.replace(config, seeds=(0,), epochs=1, class_weights='none')
  place = lambda tree: fit_program.put_runs(mesh, tree)
  data = jax.device_put(
    Data(
      inputs=np.where(mask[:, :, None], inputs, 0).astype(np.float32),
      labels=labels.astype(np.int32),
      mask=None if mask.all() else mask,
    ),
    parallel.replicated(mesh),
  )
  told = place(
    RunInputs(
      batches=np.stack([minibatches(run, steps=steps, batch=config.batch) for run in runs]),
      weights=np.stack(
        [
          class_weights(
            run, labels, classes=config.model.outputs, balanced=config.class_weights == 'balanced'
          )
          for run in runs
        ]
      ),
      test=np.zeros((len(runs), 1, 1), np.int32),
    )
  )
  state = fit_program.make_initial(program, mesh)(place(np.stack([run.key for run in runs])))
  piece = cost.piece_size(
    config.model, tokens=inputs.shape[1], batch=config.batch, platform=mesh.devices.flat[0].platform
  )
  state, losses, _ = fit_program.make_advance(program, mesh, steps=steps, piece=piece)(
    state, data, told, np.int32(0), np.int32(steps), False
  )
  if not np.isfinite(np.asarray(losses)).all():
    raise InputError('the loss on all samples is not finite: take a lower learning rate')
  return {path: np.asarray(array) for path, array in state.params.items()}


def temperature(label: np.ndarray, probability: np.ndarray) -> float:
  """What to divide logits by, so that probabilities are as right as they say.

  Minimises the log loss (Guo et al. 2017) on predictions of samples not trained on.

  Args:
    label: int [n].
    probability: float [n, classes].

  Returns:
    Between 0.05 and 20.
  """
  logits = np.log(np.maximum(probability, 1e-12))

  def loss(log_temperature: float) -> float:
    scaled = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return -scaled[np.arange(len(label)), label].mean()

  bound = np.log(20)
  found = scipy.optimize.minimize_scalar(loss, bounds=(-bound, bound), method='bounded')
  return float(np.exp(found.x))


def keep(
  config: AssessConfig,
  job: experiment.Job,
  outcome: experiment.Outcome,
  *,
  summary: results.Summary,
  store: EmbeddingStore,
  sources: Mapping[str, Source],
  folder: str | os.PathLike,
  log: Callable[[str], None] = lambda line: None,
) -> None:
  """Trains a job's Mixers on all its samples, and writes them.

  Of a grid, the point is taken that most folds chose.

  Args:
    config: of the assessment.
    job: with inputs.
    outcome: of its folds.
    summary: of the same.
    store: the embeddings, not normalised.
    sources: see `Assessor`.
    folder: made, or replaced file by file; the description comes last.
    log: takes lines.

  Raises:
    InputError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  if (folder / DESCRIPTION).is_file():
    log(f'{folder} is there already')
    return
  row = config.rows[job.row]
  chosen = [json.dumps(dict(p), sort_keys=True) for p in outcome.chosen.values()]
  point = json.loads(max(set(chosen), key=chosen.count)) if chosen else {}
  arrays, models = {}, []
  for number, source in enumerate(job.inputs):
    log(f'training on all {len(job.positions):,} samples: {job.row}, {source.name}')
    model = experiment.model_of(config, job, source, point)
    fit = config.fit_config(model, point)
    everything = Fold(name='all', train=np.arange(len(job.label)), test=np.arange(1))
    learned = train(
      source.values, job.label, source.mask, config=fit, steps=experiment.steps(fit, [everything])
    )
    models.append(dataclasses.asdict(model))
    arrays |= {f'{number}/{path}': array for path, array in learned.items()}
  tokens = {name: store.tokens(name) for name in row.fusion.modalities}
  for name, part in tokens.items():
    if config.normalise == 'study':
      statistics = experiment.statistics(part)
      arrays[f'mean/{name}'], arrays[f'std/{name}'] = statistics
  label = np.concatenate([run.label for run in outcome.runs])
  probability = np.concatenate([run.probability for run in outcome.runs])
  heat = temperature(label, probability)
  cooled = scipy.special.softmax(np.log(np.maximum(probability, 1e-12)) / heat, axis=1)
  accuracy = summary.scores['accuracy']
  description = {
    'format': _FORMAT,
    'version': _VERSION,
    'notice': results.NOTICE,
    'task': job.task.name,
    'classes': list(job.task.classes),
    'fusion': dataclasses.asdict(row.fusion),
    'settings': {name: dataclasses.asdict(config.modalities[name]) for name in tokens},
    'sources': {name: dataclasses.asdict(sources[name]) for name in tokens},
    'normalise': config.normalise,
    'models': models,
    'temperature': heat,
    'weights': {
      'path': os.path.abspath(config.weights),
      'sha256': store.record(next(iter(tokens)))['weights']['sha256'],
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
      'calibration_error_after_temperature': metrics.calibration(label, cooled).error,
    },
  }
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made: {error.strerror}') from error
  write_atomically(folder / _ARRAYS, lambda file: np.savez(file, **arrays))
  write_json(folder / DESCRIPTION, description)


def load(folder: str | os.PathLike) -> Assessor:
  """Reads what `keep` wrote.

  Raises:
    InputError: it is none, or damaged.
  """
  folder = pathlib.Path(folder)
  if not (folder / DESCRIPTION).is_file():
    raise InputError(
      f'{folder} holds no trained assessor (no {DESCRIPTION}): `painformer assess` '
      'with --config.assessor=True writes them to assessors/ of its workdir'
    )
  try:
    tree = json.loads((folder / DESCRIPTION).read_text())
    if tree['format'] != _FORMAT or tree['version'] > _VERSION:
      raise ValueError('of another format or a newer version')
    with np.load(folder / _ARRAYS, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    models = tuple(build(EmbeddingMixerConfig, m, where='models') for m in tree['models'])
    part = lambda prefix: {
      name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)
    }
    parameters = tuple(part(f'{n}/') for n in range(len(models)))
    for model, own in zip(models, parameters):
      if own.keys() != embedding_mixer.abstract_parameters(model).keys():
        raise ValueError('its arrays are not those of its models')
    return Assessor(
      task=tree['task'],
      classes=tuple(tree['classes']),
      fusion=build(FusionConfig, tree['fusion'], where='fusion'),
      settings={
        name: build(EmbeddingSettings, s, where=name) for name, s in tree['settings'].items()
      },
      sources={name: build(Source, s, where=name) for name, s in tree['sources'].items()},
      normalise=tree['normalise'],
      mean=part('mean/'),
      std=part('std/'),
      models=models,
      parameters=parameters,
      temperature=float(tree['temperature']),
      weights=tree['weights'],
      measured=tree['measured'],
    )
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    InputError,
  ) as error:
    raise InputError(f'{folder} is damaged ({error}): make it again') from error


def _number(value: float) -> float | None:
  return None if np.isnan(value) else value
