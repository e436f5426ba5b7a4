"""What an assessment will take here, told before it begins."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax
import numpy as np

from painformer_jax.assessment import experiment
from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.pictures import count_pictures
from painformer_jax.assessment.datasets.recordings import Study, load_channels, video_path
from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.sample_images import (
  EmbeddingSettings,
  SampleReader,
  channels_of,
)
from painformer_jax.assessment.embedding.store import ModalityFolder
from painformer_jax.assessment.experiment import Job
from painformer_jax.assessment.mixers import cost
from painformer_jax.assessment.mixers.inputs import MixerInput
from painformer_jax.assessment.mixers.speed import measured_rate
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import duration
from painformer_jax.modalities import video
from painformer_jax.modalities.windows import windows
from painformer_jax.models import arithmetic
from painformer_jax.weights.folder import Weights

# A few steps of a few folds are enough to see the rate.
_STEPS, _RUNS = 8, 16
_MOST_FLOPS = 2e11  # Of the measurement, unless one step of one fold takes more.
_READ = 16  # Images that are read to see how long one takes.
_READERS = 2  # Threads of `compute_embeddings`.
# Forward, and backward by inputs and by weights.
_PASSES = 3


def tokens_of(settings: EmbeddingSettings, study: Study) -> int:
  """How many embeddings a sample has, judged by the first that can be read; 1 if none."""
  channels = channels_of(study, settings.source)
  for length, rate in _lengths(settings, study):
    if channels:
      spans = sum(1 for _ in windows(length, rate, settings.signal))
      count = spans * len(channels) * len(settings.signal.of(settings.source))
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
        path = video_path(sample, settings.source)
        yield count_pictures(path), 0.0 if path.is_dir() else frames_a_second(path)
    except InputError:
      continue


def frames_a_second(path: str | os.PathLike) -> float:
  """Of a video, by the times of its first frames; 0 where they do not say."""
  times = [frame.time for frame in itertools.islice(video.frames(path), 26)]
  span = times[-1] - times[0]
  return (len(times) - 1) / span if span > 0 else 0.0


def planned_inputs(
  config: AssessConfig, row: str, tokens: Mapping[str, int], *, width: int
) -> tuple[MixerInput, ...]:
  """The inputs of a row's Mixers in shape alone; see `inputs.assemble`."""
  fusion = config.rows[row].fusion
  counts, coded = [tokens[m] for m in fusion.modalities], 0
  if fusion.kind == 'concat':
    counts = [sum(counts)]
  elif fusion.kind == 'fusion-2':
    counts = [1] * len(counts)
  elif fusion.kind == 'fusion-n':
    coded = tokens[fusion.coded[0]]
    counts = [coded + len(counts) - len(fusion.coded)]
  else:
    counts = [1]
  return tuple(
    MixerInput(
      name=row,
      values=np.broadcast_to(np.float32(0), (1, count, width)),
      mask=np.ones((1, count), bool),
      encoder_tokens=coded,
    )
    for count in counts
  )


def report(
  config: AssessConfig,
  jobs: Sequence[Job],
  study: Study,
  *,
  weights: Weights,
  folder: str | os.PathLike,
  log: Callable[[str], None],
) -> None:
  """Says how much is to be embedded and trained, and how long both take here.

  Args:
    config: of the assessment.
    jobs: all of it, without inputs.
    study: its samples.
    weights: of the backbone.
    folder: of the embeddings; what an earlier run has left there is not counted.
    log: takes lines.
  """
  tokens = {name: tokens_of(each, study) for name, each in config.used.items()}
  to_embed = {
    name: tokens[name] * _left(each, study, pathlib.Path(folder, name))
    for name, each in config.used.items()
  }
  an_image = 2 * sum(arithmetic.multiply_adds(weights.config).values())
  images = sum(to_embed.values())
  videos = {name for name, each in config.used.items() if not channels_of(study, each.source)}
  tuned = [_tuning(config, job, tokens, videos) for job in jobs] if config.finetunes else []
  rate = images_a_second(weights, config.batch_size) if images or tuned else 0.0
  reading = (
    {
      name: seconds_to_read(each, study, image_size=weights.config.image_size)
      for name, each in config.used.items()
    }
    if images or tuned
    else {}
  )
  if images:
    threads = sum(to_embed[name] * reading[name] for name in to_embed) / _READERS
    log(
      f'to embed: about {images:,} images, {images * an_image / 1e12:,.3g} TFLOP: '
      f'{duration(images / rate)} at the {rate:.3g} images/s that the backbone reaches here, '
      f'and beside it {duration(threads)} of reading and drawing in {_READERS} threads'
    )
  for job, each in zip(jobs, tuned):
    runs = len(config.seeds) + config.shuffled
    passes = each.trained * each.passes + each.tested
    threads = sum(count * reading[name] for name, count in each.read.items())
    log(
      f'to fine-tune: {job.row}, {job.task.name}: {len(job.folds[0].train):,} samples x '
      f'{config.finetune.epochs} epochs x {runs} runs, {runs * each.trained:,} images, '
      f'{runs * passes * an_image / 1e12:,.3g} TFLOP: {duration(runs * passes / rate)} at '
      f'{rate:.3g} images/s a pass, {each.passes} passes an image, and beside it '
      f'{duration(runs * threads / config.finetune.readers)} of reading and drawing'
    )
  if config.finetunes and config.finetune.keep_images and videos:
    kept = sum(
      tokens[name] * sum(config.used[name].source in s.data for s in study.samples)
      for name in videos
    )
    log(
      f'to fine-tune: at most {kept * 3 * weights.config.image_size**2 / 1e9:.3g} GB of images '
      'are kept on the disk until the run is finished (config.finetune.keep_images)'
    )
  if not config.finetunes:
    width = weights.config.embedding_width
    _report_mixers(
      config,
      [
        dataclasses.replace(job, inputs=planned_inputs(config, job.row, tokens, width=width))
        for job in jobs
      ],
      log=log,
    )


def _report_mixers(
  config: AssessConfig, jobs: Sequence[Job], *, log: Callable[[str], None]
) -> None:
  """Of training on frozen embeddings; jobs have planned inputs."""
  total, seconds, rates = 0.0, 0.0, {}
  for job in jobs:
    own = 0.0
    for source in job.inputs:
      model = experiment.model_of(config, job, source, config.points[0])
      flops = experiment.train_flops(config, dataclasses.replace(job, inputs=(source,)))
      if model not in rates:
        rates[model] = measure_rate(config, job, source)
        size = cost.size(model, tokens=source.values.shape[1])
        log(
          f'to train: {job.row}, {job.task.name}: {config.mixer["name"]}, {size.parameters:,} '
          f'parameters, {size.multiply_adds / 1e9:.3g} G multiply-adds a sample; '
          f'{rates[model] / 1e9:.3g} GFLOP/s in a few steps here'
        )
      own += flops
      seconds += flops / rates[model]
    total += own
    fit = config.fit_config(experiment.model_of(config, job, job.inputs[0], config.points[0]))
    passes = f'{fit.steps:,} steps' if fit.steps else f'{fit.epochs} epochs'
    log(
      f'to train: {job.row}, {job.task.name}: {len(job.positions):,} samples x '
      f'{len(job.folds)} folds x {len(config.seeds)} seeds x {passes}, '
      + experiment.describe_choices(config)
      + f'{own / 1e12:,.3g} TFLOP'
    )
  log(f'to train: {total / 1e12:,.3g} TFLOP altogether, about {duration(seconds)} here')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tuning:
  """Of one training of a backbone: images trained on and tested, passes forward that
  training an image is worth, and images read in all by modality."""

  trained: int
  tested: int
  passes: int
  read: Mapping[str, int]


def _tuning(
  config: AssessConfig, job: Job, tokens: Mapping[str, int], videos: Collection[str]
) -> _Tuning:
  tune, (fold,) = config.finetune, job.folds
  own = {name: tokens[name] for name in config.rows[job.row].fusion.modalities}
  seen = -(-len(fold.train) * tune.epochs // tune.batch) * tune.batch
  of_a_step = tune.batch * sum(min(tune.frames, count) for count in own.values())
  in_pieces = 0 < tune.images_at_once * jax.device_count() < of_a_step
  return _Tuning(
    trained=seen * of_a_step // tune.batch,
    tested=len(fold.test) * sum(own.values()),
    passes=_PASSES + in_pieces,
    read={
      name: count
      * (len(fold.test) + (len(fold.train) if tune.keep_images and name in videos else seen))
      for name, count in own.items()
    },
  )


def _left(settings: EmbeddingSettings, study: Study, folder: pathlib.Path) -> int:
  """Samples of a modality that are not embedded yet."""
  target = ModalityFolder(folder)
  done = len(study.samples) if target.finished else target.done()
  return sum(settings.source in sample.data for sample in study.samples[done:])


def images_a_second(weights: Weights, batch_size: int) -> float:
  """Images that the backbone embeds a second, on all devices, measured now."""
  network = embeddings.Network(weights, batch_size=batch_size, devices=None)
  size = weights.config.image_size
  images = [np.zeros((size, size, 3), np.uint8)] * network.batch_size
  network(images)  # Compiles.
  start = time.perf_counter()
  network(images)
  return len(images) / (time.perf_counter() - start)


def seconds_to_read(settings: EmbeddingSettings, study: Study, *, image_size: int) -> float:
  """Of one image, by the first of a sample that can be read; 0 if there is none."""
  try:
    reader = SampleReader(
      settings, channels=channels_of(study, settings.source), image_size=image_size
    )
  except InputError:
    return 0.0
  for sample in [s for s in study.samples if settings.source in s.data][:5]:
    start, count = time.perf_counter(), 0
    with contextlib.suppress(InputError):
      for _ in itertools.islice(reader.images(sample, log=lambda line: None), _READ):
        count += 1
    if count:
      return (time.perf_counter() - start) / count
  return 0.0


def measure_rate(config: AssessConfig, job: Job, source: MixerInput) -> float:
  """Floating-point operations a second of training a job's Mixer on an input, measured now."""
  point = config.points[0]
  model = experiment.model_of(config, job, source, point)
  fit, tokens = config.fit_config(model, point, seeds=(0,)), source.values.shape[1]
  a_step = fit.batch * cost.size(model, tokens=tokens).train_flops
  runs = int(np.clip(_MOST_FLOPS / (a_step * _STEPS), 1, min(len(job.folds), _RUNS)))
  steps = int(np.clip(_MOST_FLOPS / (a_step * runs), 1, _STEPS))
  return measured_rate(fit, tokens=tokens, runs=runs, steps=steps)
