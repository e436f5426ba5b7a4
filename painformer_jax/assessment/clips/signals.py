"""Windows of recorded signals as embeddings."""

from collections.abc import Callable

import numpy as np

from painformer_jax.assessment.clips.embeddings import NumberedEmbeddings
from painformer_jax.assessment.clips.recording import PRESENT, Recording, WindowEmbeddings
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings, SampleReader
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.inference import Embedder
from painformer_jax.modalities.signal_files import SignalSpan, read_span


class RecordedSignals:
  """One modality of signals, read whole.

  Args:
    settings: how the modality is embedded.
    trained: what a sample of it was in training.
    recording: the file, its columns and its rate.
    embedder: computes embeddings.
    image_size: side of the images, pixels.

  Raises:
    InputError: the rate is missing, columns and channels differ in number, or the file
      cannot be read.
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
    if not recording.rate > 0:
      raise InputError(f'{recording.path}: say how many samples a second it has (--rate)')
    columns = recording.columns or ('',)
    if len(columns) != len(trained.channels):
      raise InputError(
        f'{recording.path}: this assessor takes {len(trained.channels)} channels, '
        f'{len(columns)} columns are named (--column)'
      )
    self._name, self._trained, self._rate = settings.source, trained, recording.rate
    self._embedder = embedder
    self._reader = SampleReader(settings, channels=trained.channels, image_size=image_size)
    self._signals = np.stack(
      [
        read_span('', SignalSpan(file=recording.path, rate=recording.rate, column=column))
        for column in columns
      ]
    )
    self.seconds = self._signals.shape[1] / self._rate

  def windows(self, starts: np.ndarray, *, log: Callable[[str], None]) -> WindowEmbeddings:
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
        for image in self._reader.signal_images(signals, self._rate, log=remarks.append):
          if image.token < tokens:
            embeddings.add(number * tokens + image.token, image.image)
            count += 1
      except InputError as error:
        remarks.append(str(error))
      reasons.append(
        '' if count >= PRESENT * tokens else f'{self._name}: {"; ".join(remarks) or "missing"}'
      )
    log(f'{self._name}: {len(embeddings)} images')
    numbers = np.arange(len(starts) * tokens).reshape(len(starts), tokens)
    return WindowEmbeddings(tokens=embeddings.tokens(numbers), reasons=tuple(reasons))
