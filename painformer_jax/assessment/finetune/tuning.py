"""Everything that one training of a backbone depends on."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.embedding.record import INFORMATION
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.folds.batches import FoldRun
from painformer_jax.assessment.mixers import finetune_config
from painformer_jax.assessment.mixers.finetune_batches import frames_a_step
from painformer_jax.assessment.mixers.finetune_config import FinetuneConfig
from painformer_jax.assessment.mixers.finetune_program import TunePlan
from painformer_jax.core.errors import InputError
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.weights.folder import Weights

_VERSION = 2  # Raised when the same inputs would train to other results.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tuning:
  """One training of one backbone: a job with one of its seeds.

  Attributes:
    job: with inputs and a single fold.
    study: that the job's samples are of.
    run: the fold and the seed.
    config: how to fine-tune.
    settings: modality -> how its images are made.
    tokens: modality -> embeddings by the original weights, which say what images exist.
    weights: that the backbone starts from.
    plan: of the compiled training step.
    rates: path in the backbone -> highest learning rate of each parameter that learns.
    steps: of training.
    frames: modality -> images of a sample in a step.
    label: int64 [samples of the study], -1 for those that take no part.
    batch_size: images per batch when the test samples are embedded.
    folder: of this training alone.
    fingerprint: hash of all that the result depends on, except the devices.
  """

  job: Job
  study: Study
  run: FoldRun
  config: FinetuneConfig
  settings: Mapping[str, EmbeddingSettings]
  tokens: Mapping[str, Tokens]
  weights: Weights
  plan: TunePlan
  rates: Mapping[str, float]
  steps: int
  frames: Mapping[str, int]
  label: np.ndarray
  batch_size: int
  folder: pathlib.Path
  fingerprint: str

  @property
  def images_a_step(self) -> int:
    """Images that a step trains on."""
    return self.config.batch * sum(self.frames.values())

  def check_fingerprint(self, stored: str) -> None:
    """Checks that a stored result is of this training.

    Raises:
      InputError: it is not.
    """
    if stored != self.fingerprint:
      raise InputError(
        f'{self.folder} is of another configuration, other weights or other '
        'data: remove it, or take another --workdir'
      )


def make_tuning(
  config: AssessConfig,
  job: Job,
  study: Study,
  *,
  seed: int,
  weights: Weights,
  store: EmbeddingStore,
  folder: pathlib.Path,
) -> Tuning:
  """Collects what the training of a job with one seed needs; reads no recording.

  Args:
    config: of the assessment.
    job: with inputs and a single fold.
    study: that the job's samples are of.
    seed: of everything random.
    weights: that the backbone starts from.
    store: the embeddings by these weights, not normalised.
    folder: of this training alone.
  """
  (fold,) = job.folds
  backbone = training_model(config.finetune, weights)
  tokens = {name: store.tokens(name) for name in job.fusion.modalities}
  label = np.full(len(study.samples), -1, np.int64)
  label[job.positions] = job.label
  plan = TunePlan(
    backbone=backbone,
    fusion=job.fusion,
    fits=tuple(dataclasses.replace(fit, seeds=(seed,)) for fit in job.fits[0]),
    tokens={name: part.mask.shape[1] for name, part in tokens.items()},
    images_at_once=config.finetune.images_at_once,
  )
  steps = -(-len(fold.train) * config.finetune.epochs // config.finetune.batch)
  records = {name: store.record(name) for name in tokens}
  return Tuning(
    job=job,
    study=study,
    run=FoldRun(fold=fold, seed=seed),
    config=config.finetune,
    settings={name: config.modalities[name] for name in tokens},
    tokens=tokens,
    weights=weights,
    plan=plan,
    rates=finetune_config.learning_rates(config.finetune, backbone),
    steps=steps,
    frames=frames_a_step(tokens, frames=config.finetune.frames),
    label=label,
    batch_size=config.batch_size,
    folder=folder,
    fingerprint=_fingerprint(config.finetune, plan, job, records=records, steps=steps, label=label),
  )


def training_model(config: FinetuneConfig, weights: Weights) -> PainFormerConfig:
  """The backbone while it trains: without a head and without stochastic depth."""
  return dataclasses.replace(weights.config, num_classes=0, dtype=config.dtype, drop_path_rate=0.0)


def check_tuning(
  config: FinetuneConfig, weights: Weights, *, devices: Sequence[jax.Device] | None = None
) -> None:
  """Checks that these weights can be fine-tuned so, on these devices.

  Raises:
    InputError: the batch cannot be divided among the devices, or `frozen` does not fit
      the backbone.
  """
  count = len(jax.devices() if devices is None else devices)
  if config.batch % count:
    raise InputError(
      f'config.finetune.batch is {config.batch}, which does not split '
      f'over {count} devices: take a multiple of {count}'
    )
  finetune_config.learning_rates(config, training_model(config, weights))


def _fingerprint(
  config: FinetuneConfig,
  plan: TunePlan,
  job: Job,
  *,
  records: Mapping[str, Mapping],
  steps: int,
  label: np.ndarray,
) -> str:
  """A hash of all that the result depends on, except the devices."""
  (fold,) = job.folds
  tune = dataclasses.asdict(config)
  del tune['readers'], tune['keep_images']
  fits = [dataclasses.asdict(fit) for fit in plan.fits]
  for fit in fits:
    del fit['epochs'], fit['steps'], fit['batch']  # Those of `FinetuneConfig` count.
    # Its name when the first fine-tuned backbones were stored.
    fit['final_ratio'] = fit.pop('end_learning_rate_ratio')
  made = {
    name: {k: v for k, v in record.items() if k != INFORMATION} for name, record in records.items()
  }
  parts = [_VERSION, tune, fits, dataclasses.asdict(plan.fusion), made, steps, fold.name]
  digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
  for array in (label, job.positions, fold.train, fold.test):
    digest.update(np.ascontiguousarray(array, np.int64))
  return digest.hexdigest()
