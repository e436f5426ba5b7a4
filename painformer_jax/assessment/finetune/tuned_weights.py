"""Weights of a fine-tuned backbone, and the record of whom they were trained on."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.record import arrays_sha256
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.finetune.tuning import Tuning
from painformer_jax.assessment.mixers.finetune_program import TuneState
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_json
from painformer_jax.training.state import BACKBONE, group
from painformer_jax.weights.folder import Weights, WeightsSource, save_weights

TRAINED_ON = 'trained_on.json'  # Beside the arrays of fine-tuned weights.


def tuned_weights(tuning: Tuning, state: TuneState) -> Weights:
  """The backbone of a trained state, complete with its frozen arrays."""
  learned = {path: np.asarray(a) for path, a in group(state.params, BACKBONE).items()}
  source = tuning.weights.source
  return Weights(
    variables=_without_head(tuning.weights) | learned,
    config=dataclasses.replace(tuning.weights.config, num_classes=0),
    source=WeightsSource(
      name=f'{source.name}, fine-tuned on {tuning.study.name}: {tuning.job.name}',
      model=source.model,
    ),
  )


def save(tuning: Tuning, tuned: Weights) -> None:
  """Writes fine-tuned weights to the folder `weights` of their training.

  Raises:
    InputError: they cannot be written.
  """
  target = tuning.folder / 'weights'
  save_weights(target, tuned.variables, config=tuned.config, source=tuned.source)
  record = {
    'study': tuning.study.name,
    'subjects': sorted(set(tuning.job.subjects[tuning.run.fold.train].tolist())),
    'from': tuning.weights.source.name,
    'from_sha256': arrays_sha256(_without_head(tuning.weights)),
  }
  write_json(target / TRAINED_ON, record)


def check_unseen(weights: str | os.PathLike, jobs: Sequence[Job], study: Study) -> None:
  """Checks that fine-tuned weights were not trained on any test subject.

  Args:
    weights: path, in any form; only folders that `save` wrote say whom they were trained on.
    jobs: all of an assessment.
    study: that they are of.

  Raises:
    InputError: a test subject of a fold was trained on, or the record is damaged.
  """
  path = pathlib.Path(weights, TRAINED_ON)
  if not path.is_file():
    return
  try:
    record: Mapping = json.loads(path.read_text())
    seen = set(record['subjects']) if record['study'] == study.name else set()
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path} is damaged ({error}): fine-tune the weights again') from error
  for job in jobs:
    for fold in job.folds:
      shared = sorted(seen & set(job.subjects[fold.test].tolist()))
      if shared:
        raise InputError(
          f'{weights} was fine-tuned on {shared[0]}, who is tested on in fold '
          f'{fold.name} of {job.row}: take the weights it started from'
        )


def _without_head(weights: Weights) -> dict[str, np.ndarray]:
  return {path: a for path, a in weights.variables.items() if not path.startswith('head/')}
