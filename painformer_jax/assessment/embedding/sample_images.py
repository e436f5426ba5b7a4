"""One modality of a study's samples as images, each with a fixed token position."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Container, Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np

from painformer_jax.assessment.datasets.clip_check import clip_faults, read_state
from painformer_jax.assessment.datasets.image_sources import image_files, is_clip
from painformer_jax.assessment.datasets.recordings import (
  VIDEO,
  Sample,
  UnusableError,
  load_channels,
  video_path,
)
from painformer_jax.core.config_fields import Renamed
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log
from painformer_jax.embedding.pictures import PictureConfig, PictureReader
from painformer_jax.modalities import faces, images
from painformer_jax.modalities.quality import Tally, fitted
from painformer_jax.modalities.windows import SignalConfig, SignalDrawer, windows

# Modality of a study -> key of `cleaning.METHODS`.
CLEANING = {
  'ecg': 'ecg',
  'gsr': 'gsr',
  'eda': 'gsr',
  'emg_trapezius': 'emg',
  'emg_corrugator': 'emg',
  'emg_zygomaticus': 'emg',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
  """How one modality of a study becomes images, on which its embeddings depend.

  Attributes:
    source: modality of the study, such as 'video', 'gsr', 'ecg', 'emg_trapezius', 'fnirs';
      or a name in `config.image_sources`.
    image_type: of a video: 'face' crops the face; 'rgb' takes whole frames; 'thermal'
      and 'depth' are frames of that kind, or made by `network` or by the face mesh. From
      the study's own 'video' they are made of the cropped face, as in the paper; from
      other sources as `frames.crop` says.
    frames: of a video: every how many frames, how faces are found, what becomes of
      frames without one, what the network takes.
    network: of a video: an .onnx file that turns RGB into thermal or depth frames.
    stand_in: of a video: depth by the face mesh, in place of a depth network.
    signal: of a signal: window and step in seconds, representations (none for the
      paper's: all four, of fNIRS the waveform), cleaning, drawing, quality rules.
    max_tokens: most embeddings of a sample; later frames or windows are not read. 0 for
      all. All samples are stored with as many tokens as the longest one.
  """

  RENAMED: ClassVar = Renamed(fields={'picture': 'image_type'})

  source: str
  image_type: Literal['face', 'rgb', 'thermal', 'depth'] = 'face'
  frames: PictureConfig = PictureConfig()
  network: str = ''
  stand_in: bool = False
  signal: SignalConfig = SignalConfig()
  max_tokens: int = 0

  def __post_init__(self):
    if self.max_tokens < 0:
      raise InputError(f'max_tokens must be at least 0, not {self.max_tokens}')
    if self.frames.face.choose == 'all':
      raise InputError(
        "frames.face.choose is 'all', but a sample is of one person: take 'largest' or 'central'"
      )

  @property
  def crops(self) -> bool:
    """Whether images are of the face alone."""
    return bool(
      self.image_type == 'face'
      or self.stand_in
      or self.frames.crop
      or self.network
      and self.source == VIDEO
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenImage:
  """One image of a sample.

  Attributes:
    token: its position among the sample's tokens.
    image: uint8 [size, size, 3].
    found: False where no face was found in this very frame: it was tracked from other
      frames, or the whole frame was taken.
  """

  token: int
  image: np.ndarray
  found: bool = True


class SampleReader:
  """Reads one modality of sample after sample; for one thread.

  Args:
    settings: see `EmbeddingSettings`.
    channels: from `Study.channels_of`.
    image_size: side of the images, pixels.

  Raises:
    InputError: settings that do not fit, or a package that is not installed.
  """

  def __init__(self, settings: EmbeddingSettings, *, channels: tuple[str, ...], image_size: int):
    self._settings, self._channels, self._size = settings, channels, image_size
    self._image_reader = None
    if not channels:
      self._image_reader = PictureReader(
        settings.image_type,
        dataclasses.replace(settings.frames, crop=settings.crops),
        network=settings.network or None,
        mesh=settings.stand_in,
      )
    elif settings.signal.clean and settings.source not in CLEANING:
      raise InputError(
        f'there is no cleaning for {settings.source}, only for {", ".join(CLEANING)}'
      )

  def images(
    self, sample: Sample, *, log: Log, numbers: Container[int] | None = None
  ) -> Iterator[TokenImage]:
    """The sample's images, tokens rising; none where nothing in it can be used.

    Args:
      sample: of the study.
      log: told what was left out of a sample of which something is used.
      numbers: of the frames to take from a video file, in place of every
        `frames.every`; a token is then the number of its frame.

    Raises:
      InputError: the file is missing, damaged or has nothing to use, perhaps after
        some images.
    """
    if self._image_reader:
      yield from self._limited(self._video(sample, log, numbers))
      return
    signals, rate = load_channels(sample, self._settings.source)
    if len(signals) != len(self._channels):
      raise InputError(
        f'{self._settings.source} of {sample.name} has {len(signals)} channels, not '
        f'{len(self._channels)}'
      )
    rows = sample.data[self._settings.source].rows
    yield from self.signal_images(signals, rate, rows=rows, log=log)

  def signal_images(
    self, signals: np.ndarray, rate: float, *, log: Log, rows: int = 0
  ) -> Iterator[TokenImage]:
    """Images of signals in memory, tokens rising; as those of a sample with these signals.

    Args:
      signals: float [channels, n], which may hold NaN.
      rate: samples a second, Hz.
      log: told what was left out, where something is used.
      rows: samples that a channel should have; 0 for as many as there are. See `fitted`.

    Raises:
      InputError: nothing in them can be used.
    """
    yield from self._limited(self._drawn(fitted(signals, rows), rate, log))

  def _limited(self, images: Iterator[TokenImage]) -> Iterator[TokenImage]:
    for image in images:
      if self._settings.max_tokens and image.token >= self._settings.max_tokens:
        return
      yield image

  def _video(self, sample: Sample, log, numbers) -> Iterator[TokenImage]:
    every, path = self._settings.frames.every, video_path(sample, self._settings.source)
    if numbers is None and is_clip(path):
      try:
        faults = list(clip_faults(sample.data[self._settings.source], read_state(path)))
      except InputError:  # Damaged: what can be read is used below, which says so.
        faults = []
      for finding in faults:
        if finding.unusable:
          raise UnusableError(finding)
    if path.is_dir():
      yield from self._folder(image_files(path), log)
      return
    for each in self._image_reader.images(
      str(path),
      image_size=self._size,
      log=log,
      numbers=numbers,
      most=self._settings.max_tokens or None,
    ):
      frame = max(each.location['frame'], 0)  # A single image says -1.
      yield TokenImage(
        token=frame // every if numbers is None else frame,
        image=each.image,
        found=each.location.get('face', 'detected') == 'detected',
      )

  def _folder(self, files: Sequence[pathlib.Path], log) -> Iterator[TokenImage]:
    """Image by image, each by itself; every page of one that has several."""
    troubles, before, every = [], 0, self._settings.frames.every
    for file in files:
      pages = max(1, images.count_pages(file))
      # Of all pages of the folder, every `every`th is taken.
      taken = range(-before % every, pages, every)
      try:
        if taken:
          for each in self._image_reader.images(
            str(file), image_size=self._size, log=log, numbers=taken
          ):
            yield TokenImage(
              token=(before + max(each.location['frame'], 0)) // every,
              image=each.image,
              found=each.location.get('face', 'detected') == 'detected',
            )
      except InputError as error:
        troubles.append(error)
      before += pages
    if len(troubles) == len(files):
      raise troubles[0]
    if troubles:
      log(f'{len(troubles)} of {len(files)} images left out, such as {troubles[0]}')

  def _drawn(self, signals: np.ndarray, rate: float, log) -> Iterator[TokenImage]:
    source, config, tally = self._settings.source, self._settings.signal, Tally()
    # Blanks at an edge stay: cut off, what is left would be stretched to the whole window.
    drawers = [
      SignalDrawer(
        values,
        rate,
        config,
        modality=source,
        image_size=self._size,
        cleaned_as=CLEANING.get(source, ''),
      )
      for values in signals
    ]
    count = len(config.of(source))
    for window in windows(signals.shape[1], rate, config):
      for channel, drawer in enumerate(drawers):
        quality, drawn = drawer.draw(window)
        tally.add(quality)
        first = (window.number * len(signals) + channel) * count
        for offset, image in enumerate(drawn.values()):
          yield TokenImage(token=first + offset, image=image)
    if not tally.kept:
      raise InputError(str(tally))
    if str(tally):
      log(str(tally))


def token_labels(
  settings: EmbeddingSettings, channels: tuple[str, ...], tokens: int
) -> tuple[str, ...]:
  """What each token is: 'frame 12', 'gsr psd', 'S1_D2 waveform, 5-10 s'."""
  if not channels:
    return tuple(f'frame {token * settings.frames.every}' for token in range(tokens))
  kinds, config = settings.signal.of(settings.source), settings.signal
  labels = []
  for token in range(tokens):
    rest, kind = divmod(token, len(kinds))
    number, channel = divmod(rest, len(channels))
    label = f'{channels[channel]} {kinds[kind]}'
    if config.window:
      start = number * (config.step or config.window)
      label += f', {start:g}-{start + config.window:g} s'
    labels.append(label)
  return tuple(labels)


def settings_record(settings: EmbeddingSettings, channels: tuple[str, ...]) -> dict:
  """All that shapes the images, for JSON; what the modality does not use is left out.

  Raises:
    InputError: the network's file cannot be read.
  """
  record = {'source': settings.source, 'max_tokens': settings.max_tokens}
  if channels:
    signal = dataclasses.asdict(settings.signal)
    del signal['pathlength_factor']
    signal['representations'] = settings.signal.of(settings.source)
    for part in signal['images'].values():
      del part['height'], part['width']
    return record | {'channels': channels, 'signal': signal}
  frames = dataclasses.asdict(settings.frames) | {'crop': settings.crops}
  if not settings.crops:
    del frames['face'], frames['faceless']
  else:
    frames['face']['version'] = faces.VERSION
  network = frames.pop('network')
  record |= {'picture': settings.image_type, 'frames': frames, 'stand_in': settings.stand_in}
  if settings.network:
    try:
      digest = hashlib.sha256(pathlib.Path(settings.network).read_bytes()).hexdigest()
    except OSError as error:
      raise InputError(f'{settings.network} cannot be read: {error.strerror}') from error
    record['network'] = network | {'sha256': digest}
  return record
