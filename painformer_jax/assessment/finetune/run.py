"""Fine-tunes and tests a job, once with each seed."""

import os
import pathlib
import shutil
import zipfile
from collections.abc import Sequence

import jax
import numpy as np

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.assessment.experiment.fit import Outcome
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.finetune import testing, training, tuned_weights
from painformer_jax.assessment.finetune.tuning import Tuning, check_tuning, make_tuning
from painformer_jax.assessment.folds import protocols
from painformer_jax.assessment.results.write import slug
from painformer_jax.assessment.statistics import metrics
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.progress import Log
from painformer_jax.parallel.mesh import data_mesh
from painformer_jax.weights.folder import Weights


def train(
  job: Job,
  *,
  config: AssessConfig,
  study: Study,
  weights: Weights,
  store: EmbeddingStore,
  folder: str | os.PathLike,
  images: str | os.PathLike | None = None,
  devices: Sequence[jax.Device] | None = None,
  log: Log = lambda line: None,
) -> Outcome:
  """Fine-tunes and tests a job, once with each seed; resumes where it was stopped.

  Args:
    job: with inputs and a single fold.
    config: of the assessment.
    study: that the job's samples are of.
    weights: that the backbone starts from.
    store: the embeddings by these weights, not normalised; they say which images a sample
      has.
    folder: of the fine-tuned backbones of all jobs; see the package.
    images: folder that keeps images of videos, for all jobs of a run; None keeps none.
    devices: to train on; None for all.
    log: gets lines of progress.

  Raises:
    InputError: the job has more than one fold, a subject is on both sides of it, the batch
      cannot be divided among the devices, or the folder is of another configuration.
    KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.
  """
  check_tuning(config.finetune, weights, devices=devices)
  if len(job.folds) != 1:
    raise InputError(
      f'the backbone is fine-tuned on one fixed split, not on {len(job.folds)} '
      "folds: take the protocol 'hold-out', 'validation' or 'test'"
    )
  protocols.check_subjects(job.folds, job.subjects)
  mesh = data_mesh(devices)
  own = slug(job.name) + ('' if job.shuffle is None else f'-shuffled-{job.shuffle}')
  logits = []
  for seed in job.seeds:
    tuning = make_tuning(
      config,
      job,
      study,
      seed=seed,
      weights=weights,
      store=store,
      folder=pathlib.Path(folder, own, f'seed-{seed}'),
    )
    logits.append(_logits(tuning, mesh=mesh, images=images and pathlib.Path(images), log=log))
  return Outcome(
    runs=metrics.gather(
      job.folds, [np.stack(logits)], sample=job.samples, subject=job.subjects, label=job.label
    ),
    chosen={},
  )


def _logits(
  tuning: Tuning, *, mesh: jax.sharding.Mesh, images: pathlib.Path | None, log: Log
) -> np.ndarray:
  """Logits of the test samples, [test samples, classes] float32; from the disk if finished."""
  path = tuning.folder / 'logits.npz'
  if path.is_file():
    log(f'{tuning.folder} is finished')
    return _read(path, tuning)
  tuning.folder.mkdir(parents=True, exist_ok=True)
  state = training.train(tuning, mesh=mesh, images=images, log=log)
  tuned = tuned_weights.tuned_weights(tuning, state)
  logits = testing.test(tuning, tuned, state, mesh=mesh, log=log)
  tuned_weights.save(tuning, tuned)
  write_atomically(
    path, lambda file: np.savez(file, logits=logits, fingerprint=np.array(tuning.fingerprint))
  )
  shutil.rmtree(tuning.folder / 'checkpoints', ignore_errors=True)
  return logits


def _read(path: pathlib.Path, tuning: Tuning) -> np.ndarray:
  try:
    with np.load(path, allow_pickle=False) as file:
      logits, fingerprint = file['logits'], str(file['fingerprint'])
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(f'{path} is damaged: remove {tuning.folder}') from error
  tuning.check_fingerprint(fingerprint)
  return logits
