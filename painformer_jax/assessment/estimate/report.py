"""Tells how much is to be embedded and trained, and how long that takes here."""

import os
from collections.abc import Mapping, Sequence

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.estimate import speed
from painformer_jax.assessment.estimate.workload import images_to_embed, train_flops, tuning_work
from painformer_jax.assessment.experiment.job import Job
from painformer_jax.assessment.mixers import cost
from painformer_jax.core.progress import Log, duration
from painformer_jax.models import arithmetic
from painformer_jax.weights.folder import Weights

_READERS = 2  # Threads of `compute_embeddings`.


def report(
  config: AssessConfig,
  jobs: Sequence[Job],
  study: Study,
  *,
  shapes: Mapping[str, SampleShape],
  weights: Weights,
  folder: str | os.PathLike,
  log: Log,
) -> None:
  """Logs how much there is to do and how long it takes here, by a short measurement.

  Args:
    config: of the assessment.
    jobs: all of it, planned.
    study: all its samples.
    shapes: of each modality's samples.
    weights: of the backbone.
    folder: of the embeddings; those that it holds already are not counted.
    log: gets the lines.
  """
  counts = images_to_embed(config, study, shapes=shapes, folder=folder)
  if any(counts.values()) or config.finetunes:
    size = weights.config.image_size
    rate = speed.images_a_second(weights, config.batch_size)
    reading = {
      name: speed.seconds_to_read(each, study, image_size=size)
      for name, each in config.used.items()
    }
    flops = 2 * sum(arithmetic.multiply_adds(weights.config).values())
    if any(counts.values()):
      _report_embedding(counts, flops=flops, rate=rate, reading=reading, log=log)
    if config.finetunes:
      _report_finetuning(config, jobs, shapes, flops=flops, rate=rate, reading=reading, log=log)
      _report_kept_images(config, study, shapes, image_size=size, log=log)
  if not config.finetunes:
    _report_mixers(config, jobs, log=log)


def _report_embedding(
  counts: Mapping[str, int], *, flops: float, rate: float, reading: Mapping[str, float], log: Log
) -> None:
  images = sum(counts.values())
  seconds = sum(count * reading[name] for name, count in counts.items()) / _READERS
  log(
    f'to embed: about {images:,} images, {images * flops / 1e12:,.3g} TFLOP: '
    f'{duration(images / rate)} at the {rate:.3g} images/s that the backbone reaches here, '
    f'and beside it {duration(seconds)} of reading and drawing in {_READERS} threads'
  )


def _report_finetuning(
  config: AssessConfig,
  jobs: Sequence[Job],
  shapes: Mapping[str, SampleShape],
  *,
  flops: float,
  rate: float,
  reading: Mapping[str, float],
  log: Log,
) -> None:
  videos = _videos(config, shapes)
  for job in jobs:
    work = tuning_work(config, job, shapes=shapes, videos=videos)
    runs = len(job.seeds) + config.shuffled
    passes = runs * (work.trained * work.passes + work.tested)
    seconds = runs * sum(count * reading[name] for name, count in work.read.items())
    log(
      f'to fine-tune: {job.name}: {len(job.folds[0].train):,} samples x '
      f'{config.finetune.epochs} epochs x {runs} runs, {runs * work.trained:,} images, '
      f'{passes * flops / 1e12:,.3g} TFLOP: {duration(passes / rate)} at '
      f'{rate:.3g} images/s a pass, {work.passes} passes an image, and beside it '
      f'{duration(seconds / config.finetune.readers)} of reading and drawing'
    )


def _report_kept_images(
  config: AssessConfig,
  study: Study,
  shapes: Mapping[str, SampleShape],
  *,
  image_size: int,
  log: Log,
) -> None:
  if not config.finetune.keep_images:
    return
  kept = sum(
    shapes[name].tokens * sum(config.used[name].source in s.data for s in study.samples)
    for name in _videos(config, shapes)
  )
  if kept:
    log(
      f'to fine-tune: at most {kept * 3 * image_size**2 / 1e9:.3g} GB of images '
      'are kept on the disk until the run is finished (config.finetune.keep_images)'
    )


def _videos(config: AssessConfig, shapes: Mapping[str, SampleShape]) -> set[str]:
  return {name for name in config.used if not shapes[name].channels}


def _report_mixers(config: AssessConfig, jobs: Sequence[Job], *, log: Log) -> None:
  """Of training Mixers on frozen embeddings; Mixers of one shape are measured once."""
  total, seconds, rates = 0.0, 0.0, {}
  for job in jobs:
    flops = train_flops(job, shuffled=config.shuffled)
    for source, fit, own in zip(job.inputs, job.fits[0], flops):
      tokens = source.values.shape[1]
      if fit.model not in rates:
        rates[fit.model] = speed.train_rate(fit, tokens=tokens, folds=len(job.folds))
        size = cost.size(fit.model, tokens=tokens)
        log(
          f'to train: {job.name}: {config.mixer["name"]}, {size.parameters:,} '
          f'parameters, {size.multiply_adds / 1e9:.3g} G multiply-adds a sample; '
          f'{rates[fit.model] / 1e9:.3g} GFLOP/s in a few steps here'
        )
      seconds += own / rates[fit.model]
    total += sum(flops)
    fit = job.fits[0][0]
    passes = f'{fit.steps:,} steps' if fit.steps else f'{fit.epochs} epochs'
    log(
      f'to train: {job.name}: {len(job.positions):,} samples x '
      f'{len(job.folds)} folds x {len(job.seeds)} seeds x {passes}, '
      + _further_work(config)
      + f'{sum(flops) / 1e12:,.3g} TFLOP'
    )
  log(f'to train: {total / 1e12:,.3g} TFLOP altogether, about {duration(seconds)} here')


def _further_work(config: AssessConfig) -> str:
  """What is trained besides each fold once a seed; '' for nothing."""
  parts = []
  if len(config.points) > 1:
    parts.append(f'{len(config.points)} points chosen among on {config.inner_folds} inner folds, ')
  if config.shuffled:
    parts.append(f'{config.shuffled} runs with shuffled labels, ')
  return ''.join(parts)
