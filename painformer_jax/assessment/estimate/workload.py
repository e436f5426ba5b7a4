"""How much an assessment has to compute: images, passes, floating-point operations."""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping

import jax

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.experiment.job import Job, steps
from painformer_jax.assessment.mixers import cost

# Of the backbone while it trains: forward, and backward by inputs and by weights.
_PASSES = 3


def images_to_embed(
  config: AssessConfig,
  study: Study,
  *,
  shapes: Mapping[str, SampleShape],
  folder: str | os.PathLike,
) -> dict[str, int]:
  """Images of each modality that are not embedded yet.

  Args:
    config: of the assessment.
    study: all its samples.
    shapes: of each modality's samples.
    folder: of the embeddings.
  """
  counts = {}
  for name, settings in config.used.items():
    target = ModalityFolder(pathlib.Path(folder, name))
    done = len(study.samples) if target.finished else target.done()
    left = sum(settings.source in sample.data for sample in study.samples[done:])
    counts[name] = shapes[name].tokens * left
  return counts


def train_flops(job: Job, *, shuffled: int) -> tuple[float, ...]:
  """Floating-point operations of training each of a job's Mixers on frozen embeddings.

  Args:
    job: planned or with inputs.
    shuffled: number of runs with permuted labels.

  Returns:
    One number for each input.
  """
  points = len(job.points)
  # Without a grid nothing is chosen; with one, each point trains on all inner folds.
  choosing = job.inner_folds if points > 1 else 0
  # Each fold then trains at one point only; which one is not known yet.
  runs = len(job.seeds) / points + choosing + shuffled * (1 / points + choosing)
  return tuple(
    sum(
      runs
      * len(job.folds)
      * steps(fit, job.folds)
      * fit.batch
      * cost.size(fit.model, tokens=source.values.shape[1]).train_flops
      for fit in fits
    )
    for source, fits in zip(job.inputs, zip(*job.fits))
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningWork:
  """One training of a backbone.

  Attributes:
    trained: images trained on, repetitions included.
    tested: images that are embedded to test.
    passes: forward passes of the backbone that training on one image costs.
    read: modality -> images that are read from recordings.
  """

  trained: int
  tested: int
  passes: int
  read: Mapping[str, int]


def tuning_work(
  config: AssessConfig, job: Job, *, shapes: Mapping[str, SampleShape], videos: Collection[str]
) -> TuningWork:
  """The work of one training of a job's backbone.

  Args:
    config: of the assessment.
    job: planned, with a single fold.
    shapes: of each modality's samples.
    videos: names of the modalities whose images can be kept on the disk.
  """
  tune, (fold,) = config.finetune, job.folds
  own = {name: shapes[name].tokens for name in job.fusion.modalities}
  samples = -(-len(fold.train) * tune.epochs // tune.batch) * tune.batch
  images_a_step = tune.batch * sum(min(tune.frames, count) for count in own.values())
  # A step of more images than a device holds computes their activations twice.
  recomputed = 0 < tune.images_at_once * jax.device_count() < images_a_step
  return TuningWork(
    trained=samples * images_a_step // tune.batch,
    tested=len(fold.test) * sum(own.values()),
    passes=_PASSES + recomputed,
    read={
      name: count
      * (len(fold.test) + (len(fold.train) if tune.keep_images and name in videos else samples))
      for name, count in own.items()
    },
  )
