"""Windows of recorded signals as embeddings."""

import numpy as np

from painformer_jax.assessment.clips.embeddings import NumberedEmbeddings
from painformer_jax.assessment.clips.recording import PRESENT, Recording, WindowEmbeddings
from painformer_jax.assessment.embedding.sample_images import (
  CLEANING,
  EmbeddingSettings,
  SampleReader,
)
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.progress import Log
from painformer_jax.core.text_format import is_workbook
from painformer_jax.embedding.inference import Embedder
from painformer_jax.modalities.resampling import resample
from painformer_jax.modalities.sample_times import TimesError
from painformer_jax.modalities.signal_files import NO_TIMES, SignalSpan, read_span, recorded_rate

# Signals at another rate are resampled to that of training, down to this share of it. Below,
# spectrograms lack frequencies that they showed in training, and waveforms detail.
_LEAST_RATE = {'waveform': 0.5, 'angle': 0.9, 'phase': 0.9, 'psd': 0.9}
_SAME_RATE = 1e-3


class RecordedSignals:
  """One modality of signals, read whole.

  Args:
    settings: how the modality is embedded.
    trained: what a sample of it was in training.
    recording: the file, its columns and its rate.
    embedder: computes embeddings.
    image_size: side of the images, pixels.

  Attributes:
    remark: what was assumed to read the file, in words; '' for nothing.

  Raises:
    InputError: the rate is not known, contradicts the file's times or is too far below that
      of training, columns and channels differ in number, or the file cannot be read.
  """

  def __init__(
    self,
    settings: EmbeddingSettings,
    trained: SampleShape,
    recording: Recording,
    *,
    embedder: Embedder,
    image_size: int,
  ):
    if is_workbook(recording.path):
      raise InputError(f'{recording.path} is a workbook: save its sheet as CSV')
    if recording.time == NO_TIMES and not recording.rate:
      raise InputError(f'{settings.source} without times needs a sampling rate (--rate)')
    try:
      found = recorded_rate(
        recording.path,
        stated=recording.rate,
        modality=CLEANING.get(settings.source, settings.source),
        time=recording.time,
      )
    except TimesError as error:
      raise InputError(f'{error}; --time none goes by --rate alone') from error
    rate = found.hertz
    self.remark = f'{recording.path}: {found.remark}' if found.remark else ''
    columns = recording.columns or ('',)
    if len(columns) != len(trained.channels):
      raise InputError(
        f'{recording.path}: this assessor takes {counted(len(trained.channels), "channel")}, '
        f'not {counted(len(columns), "column")} (--column)'
      )
    least = max(_LEAST_RATE[kind] for kind in settings.signal.of(settings.source))
    if trained.rate and rate < least * trained.rate:
      raise InputError(
        f'{recording.path}: this assessor was trained on {settings.source} at '
        f'{trained.rate:g} Hz; at {rate:g} Hz its images would not be comparable'
      )
    self._name, self._trained, self._rate = settings.source, trained, rate
    self._embedder = embedder
    self._reader = SampleReader(settings, channels=trained.channels, image_size=image_size)
    self._signals = np.stack(
      [
        read_span(
          '', SignalSpan(file=recording.path, rate=rate, column=column, time=recording.time)
        )
        for column in columns
      ]
    )
    self.seconds = self._signals.shape[1] / self._rate
    if trained.rate and abs(self._rate / trained.rate - 1) > _SAME_RATE:
      self._signals = np.stack([_resampled(s, self._rate, trained.rate) for s in self._signals])
      self._rate = trained.rate

  def windows(self, starts: np.ndarray, *, log: Log) -> WindowEmbeddings:
    """Embeds windows as long as the samples of training.

    Args:
      starts: float64 [windows], in seconds.
      log: takes lines.
    """
    tokens, length = self._trained.tokens, round(self._trained.seconds * self._rate)
    embeddings, reasons = NumberedEmbeddings(self._embedder), []
    for number, start in enumerate(starts):
      first = round(start * self._rate)
      signals = self._signals[:, first : first + length]
      remarks, count = [], 0
      try:
        for image in self._reader.signal_images(
          signals, self._rate, rows=length, log=remarks.append
        ):
          if image.token < tokens:
            embeddings.add(number * tokens + image.token, image.image)
            count += 1
      except InputError as error:
        remarks.append(str(error))
      reasons.append(
        '' if count >= PRESENT * tokens else f'{self._name}: {"; ".join(remarks) or "missing"}'
      )
    log(f'{self._name}: {counted(len(embeddings), "image")}')
    numbers = np.arange(len(starts) * tokens).reshape(len(starts), tokens)
    return WindowEmbeddings(tokens=embeddings.tokens(numbers), reasons=tuple(reasons))


def _resampled(signal: np.ndarray, rate: float, to: float) -> np.ndarray:
  """A signal at another rate; what was missing is missing again."""
  known = np.isfinite(signal)
  if not known.any():
    return np.full(round(len(signal) * to / rate), np.nan)
  result = resample(signal, rate, to=to)
  nearest = np.minimum(np.rint(np.arange(len(result)) * rate / to).astype(int), len(signal) - 1)
  return np.where(known[nearest], result, np.nan)
