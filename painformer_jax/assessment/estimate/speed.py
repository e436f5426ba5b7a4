"""How fast this machine embeds, reads recordings and trains Mixers, measured now."""

import contextlib
import dataclasses
import time

import numpy as np

from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding.network import Network
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings, SampleReader
from painformer_jax.assessment.mixers import cost
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.speed import measured_rate
from painformer_jax.core.errors import InputError
from painformer_jax.weights.folder import Weights

# A few steps of a few folds are enough to see the rate.
_STEPS, _RUNS = 8, 16
_MOST_FLOPS = 2e11  # Of the measurement, unless one step of one fold takes more.
_IMAGES = 16  # Images that are read to see how long one takes.
_TRIED = 5  # Samples that are tried to find one that can be read.


def images_a_second(weights: Weights, batch_size: int) -> float:
  """Images that the backbone embeds per second, on all devices."""
  network = Network(weights, batch_size=batch_size, devices=None)
  size = weights.config.image_size
  images = [np.zeros((size, size, 3), np.uint8)] * network.batch_size
  network(images)  # Compiles.
  start = time.perf_counter()
  network(images)
  return len(images) / (time.perf_counter() - start)


def seconds_to_read(settings: EmbeddingSettings, study: Study, *, image_size: int) -> float:
  """Seconds that reading and drawing one image takes; 0 if no sample can be read.

  Args:
    settings: how the modality is embedded.
    study: all its samples, of which the first that can be read is timed.
    image_size: side of the images, pixels.
  """
  # Of a video with faces, all frames that are wanted are searched before the first image comes.
  few = dataclasses.replace(settings, max_tokens=min(settings.max_tokens or _IMAGES, _IMAGES))
  try:
    reader = SampleReader(few, channels=study.channels_of(settings.source), image_size=image_size)
  except InputError:
    return 0.0
  for sample in [s for s in study.samples if settings.source in s.data][:_TRIED]:
    start, count = time.perf_counter(), 0
    with contextlib.suppress(InputError):
      for _ in reader.images(sample, log=lambda line: None):
        count += 1
    if count:
      return (time.perf_counter() - start) / count
  return 0.0


def train_rate(fit: FitConfig, *, tokens: int, folds: int) -> float:
  """Floating-point operations per second of training many Mixers at once.

  Args:
    fit: how a Mixer is trained.
    tokens: embeddings of a sample.
    folds: number of folds; no more are measured.
  """
  a_step = fit.batch * cost.size(fit.model, tokens=tokens).train_flops
  runs = int(np.clip(_MOST_FLOPS / (a_step * _STEPS), 1, min(folds, _RUNS)))
  steps = int(np.clip(_MOST_FLOPS / (a_step * runs), 1, _STEPS))
  return measured_rate(fit, tokens=tokens, runs=runs, steps=steps)
