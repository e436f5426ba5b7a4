"""Weights of a fine-tuned backbone, which say whom they were trained on."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.record import arrays_sha256
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.finetune.tuning import Tuning
from painformer_jax.assessment.mixers.finetune_program import TuneState
from painformer_jax.core.errors import InputError
from painformer_jax.training.state import BACKBONE, group
from painformer_jax.weights.folder import Weights, WeightsSource, save_weights
from painformer_jax.weights.trained_on import TrainedOn


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
      trained_on=(
        *source.trained_on,
        TrainedOn(
          study=tuning.study.name,
          subjects=tuple(sorted(set(tuning.job.subjects[tuning.run.fold.train].tolist()))),
          start=source.name,
          start_sha256=arrays_sha256(_without_head(tuning.weights)),
        ),
      ),
    ),
  )


def save(tuning: Tuning, tuned: Weights) -> None:
  """Writes fine-tuned weights to the folder `weights` of their training.

  Raises:
    InputError: they cannot be written.
  """
  save_weights(tuning.folder / 'weights', tuned.variables, config=tuned.config, source=tuned.source)


def check_unseen(source: WeightsSource, jobs: Sequence[Job], study: Study) -> None:
  """Checks that fine-tuned weights were not trained on any test subject.

  Args:
    source: of the weights, which says whom they were trained on, in whatever form they are.
    jobs: all of an assessment.
    study: that they are of.

  Raises:
    InputError: a test subject of a fold was trained on.
  """
  records = [record for record in source.trained_on if record.study == study.name]
  seen = {subject for record in records for subject in record.subjects}
  for job in jobs:
    for fold in job.folds:
      shared = sorted(seen & set(job.subjects[fold.test].tolist()))
      if shared:
        raise InputError(
          f'{source.name}: the weights were fine-tuned on {shared[0]}, who is tested on in fold '
          f'{fold.name} of {job.row}: take the weights it started from'
        )


def _without_head(weights: Weights) -> dict[str, np.ndarray]:
  return {path: a for path, a in weights.variables.items() if not path.startswith('head/')}
