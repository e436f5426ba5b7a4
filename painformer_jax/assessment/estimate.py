"""What an assessment will take here, told before it begins."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from painformer_jax.assessment import cost, experiment
from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.experiment import Job
from painformer_jax.assessment.recordings import Study, load_channels, video_path
from painformer_jax.assessment.sample_images import (
    EmbeddingSettings, channels_of, resolved_representations, windows)
from painformer_jax.benchmark_folds import measured_rate
from painformer_jax.errors import InputError
from painformer_jax.modalities import video
from painformer_jax.models import arithmetic
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.progress import duration

# A few steps of a few folds are enough to see the rate.
_STEPS, _RUNS = 8, 16
_MOST_FLOPS = 2e11  # Of the measurement, unless one step of one fold takes more.


def tokens_of(settings: EmbeddingSettings, study: Study) -> int:
  """How many embeddings a sample has, judged by the first that can be read; 1 if none."""
  channels = channels_of(study, settings.source)
  for length, rate in _lengths(settings, study):
    if channels:
      spans = sum(1 for _ in windows(length, rate, settings.signal))
      count = spans * len(channels) * len(resolved_representations(settings))
    else:
      count = -(-length // settings.frames.every)
    return max(min(count, settings.max_tokens or count), 1)
  return 1


def seconds_of(settings: EmbeddingSettings, study: Study) -> float:
  """How long a sample lasts, judged by the first that can be read; 0 if none."""
  return next((length / rate for length, rate in _lengths(settings, study) if rate > 0), 0.0)


def frame_rate(settings: EmbeddingSettings, study: Study) -> float:
  """Frames a second of a video, judged by the first that can be read; 0 of a signal."""
  if channels_of(study, settings.source):
    return 0.0
  return next((rate for _, rate in _lengths(settings, study)), 0.0)


def _lengths(settings: EmbeddingSettings, study: Study) -> Iterator[tuple[int, float]]:
  """Frames or rows, and how many a second, of the first few samples that can be read."""
  channels = channels_of(study, settings.source)
  for sample in [s for s in study.samples if settings.source in s.data][:5]:
    try:
      if channels:
        signals, rate = load_channels(sample, settings.source)
        yield signals.shape[1], rate
      else:
        path = video_path(sample)
        yield video.count_frames(path), frames_a_second(path)
    except InputError:
      continue


def frames_a_second(path: str | os.PathLike) -> float:
  """Of a video, by the times of its first frames; 0 where they do not say."""
  times = [frame.time for frame in itertools.islice(video.frames(path), 26)]
  span = times[-1] - times[0]
  return (len(times) - 1) / span if span > 0 else 0.0


def tokens_of_inputs(config: AssessConfig, row: str, tokens: dict[str, int]) -> list[int]:
  """How many tokens each Mixer of a row reads; see `fusion.assemble`."""
  fusion = config.rows[row].fusion
  counts = [tokens[m] for m in fusion.modalities]
  if fusion.kind == 'concat':
    return [sum(counts)]
  if fusion.kind == 'fusion-2':
    return [1] * len(counts)
  if fusion.kind == 'fusion-n':
    return [tokens[fusion.coded[0]] + len(counts) - len(fusion.coded)]
  return [1]


def report(config: AssessConfig, jobs: Sequence[Job], study: Study, *,
           backbone: PainFormerConfig, say: Callable[[str], None]) -> None:
  """Says how much is to be embedded and trained, and how long training takes here.

  Args:
    config: of the assessment.
    jobs: all of it, without inputs.
    study: its samples.
    backbone: that embeds.
    say: takes lines.
  """
  tokens = {name: tokens_of(each, study) for name, each in config.used.items()}
  images = sum(tokens[name] * sum(each.source in s.data for s in study.samples)
               for name, each in config.used.items())
  flops = 2 * images * sum(arithmetic.multiply_adds(backbone).values())
  say(f'to embed: about {images:,} images, {flops / 1e12:,.3g} TFLOP; what an earlier run has '
      'embedded is not embedded again')
  total, runs = 0.0, 0
  for job in jobs:
    counts = tokens_of_inputs(config, job.row, tokens)
    own = experiment.train_flops(config, job, tokens=counts)
    total += own
    runs += len(job.folds) * len(config.seeds)
    say(f'to train: {job.row}, {job.task.name}: {len(job.positions):,} samples, '
        f'{len(job.folds)} folds x {len(config.seeds)} seeds, '
        + experiment.describe_choices(config) + f'{own / 1e12:,.3g} TFLOP')
  rate = measure_rate(config, jobs[0], tokens=max(
      tokens_of_inputs(config, jobs[0].row, tokens)), width=backbone.embedding_width)
  say(f'to train: {total / 1e12:,.3g} TFLOP altogether, {duration(total / rate)} at the '
      f'{rate / 1e9:.3g} GFLOP/s that a few steps reach here')


def measure_rate(config: AssessConfig, job: Job, *, tokens: int, width: int) -> float:
  """Floating-point operations a second of training this job's Mixer, measured now."""
  point = config.points[0]
  model = config.mixer_config(
      point, outputs=len(job.task.classes), input_width=width, positions=tokens)
  fit = config.fit_config(model, point, seeds=(0,))
  a_step = fit.batch * cost.size(model, tokens=tokens).train_flops
  runs = int(np.clip(_MOST_FLOPS / (a_step * _STEPS), 1, min(len(job.folds), _RUNS)))
  steps = int(np.clip(_MOST_FLOPS / (a_step * runs), 1, _STEPS))
  return measured_rate(fit, tokens=tokens, runs=runs, steps=steps)
