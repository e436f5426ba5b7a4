"""How long the samples of a modality are, and how many embeddings they have."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping

from painformer_jax.assessment.datasets.image_sources import count_images
from painformer_jax.assessment.datasets.recordings import Study, load_channels, video_path
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.core.errors import InputError
from painformer_jax.modalities import images, video
from painformer_jax.modalities.windows import windows

_TRIED = 5  # Samples that are tried to find one that can be read.
_FRAMES_TIMED = 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleShape:
  """A sample of one modality.

  Attributes:
    seconds: its length; 0 if unknown.
    tokens: number of its embeddings.
    rate: frames or samples per second; 0 for images without times, and for a signal where
      an older release did not record it.
    channels: of a signal; none for a video.
  """

  seconds: float
  tokens: int
  rate: float = 0.0
  channels: tuple[str, ...] = ()

  @property
  def timed(self) -> bool:
    """Whether the time of each embedding is known, which judging a clip needs."""
    return bool(self.channels) or self.rate > 0


def sample_shapes(
  study: Study, settings: Mapping[str, EmbeddingSettings]
) -> dict[str, SampleShape]:
  """The shape of each modality's samples, taken from the first that can be read.

  Args:
    study: all its samples.
    settings: name -> how a modality is embedded.

  Returns:
    Name -> shape; where no sample can be read, one of a single token and unknown length.

  Raises:
    InputError: no sample of the study has a modality.
  """
  return {name: _sample_shape(each, study) for name, each in settings.items()}


def _sample_shape(settings: EmbeddingSettings, study: Study) -> SampleShape:
  channels = study.channels_of(settings.source)
  for length, rate in _lengths(settings, study):
    if channels:
      spans = sum(1 for _ in windows(length, rate, settings.signal))
      count = spans * len(channels) * len(settings.signal.of(settings.source))
    else:
      count = -(-length // settings.frames.every)
    return SampleShape(
      seconds=length / rate if rate > 0 else 0.0,
      tokens=max(min(count, settings.max_tokens or count), 1),
      rate=rate,
      channels=channels,
    )
  return SampleShape(seconds=0.0, tokens=1, channels=channels)


def _lengths(settings: EmbeddingSettings, study: Study) -> Iterator[tuple[int, float]]:
  """Frames or table rows, and how many per second, of the first samples that can be read."""
  channels = study.channels_of(settings.source)
  for sample in [s for s in study.samples if settings.source in s.data][:_TRIED]:
    try:
      if channels:
        place = sample.data[settings.source]
        if place.rows:
          yield place.rows, place.rate
          continue
        signals, rate = load_channels(sample, settings.source)
        yield signals.shape[1], rate
      else:
        path = video_path(sample, settings.source)
        yield count_images(path), frame_rate(path)
    except InputError:
      continue


def frame_rate(path: str | os.PathLike) -> float:
  """Frames per second of a video, from the times of its first frames; 0 without times.

  Images and folders of images have none.

  Raises:
    InputError: the video cannot be read.
  """
  if os.path.isdir(path) or pathlib.Path(path).suffix.lower() in images.SUFFIXES:
    return 0.0
  times = [frame.time for frame in itertools.islice(video.frames(path), _FRAMES_TIMED)]
  span = times[-1] - times[0]
  return (len(times) - 1) / span if span > 0 else 0.0
