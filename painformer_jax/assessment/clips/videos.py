"""Windows of a recorded video as embeddings."""

import dataclasses
import pathlib

import numpy as np

from painformer_jax.assessment.clips.embeddings import NumberedEmbeddings
from painformer_jax.assessment.clips.recording import PRESENT, Recording, WindowEmbeddings
from painformer_jax.assessment.datasets.recordings import Locator, Sample
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings, SampleReader
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log
from painformer_jax.embedding.inference import Embedder
from painformer_jax.modalities import video

# A frame farther than this from the moment that it should show is not taken, in seconds:
# a video may pause.
_PAUSE = 0.5


class RecordedVideo:
  """One modality of a video, whose frames are read when windows are asked for.

  Args:
    settings: how the modality is embedded.
    trained: what a sample of it was in training.
    recording: the file.
    embedder: computes embeddings.
    image_size: side of the images, pixels.

  Attributes:
    remark: what was assumed to read the file: '', as nothing is.

  Raises:
    InputError: the video cannot be read or does not say the times of its frames, or the
      frame rate in training is not known.
  """

  remark = ''

  def __init__(
    self,
    settings: EmbeddingSettings,
    trained: SampleShape,
    recording: Recording,
    *,
    embedder: Embedder,
    image_size: int,
  ):
    if not trained.timed:
      raise InputError(
        f'this assessor was trained on images of {settings.source} that do not say '
        'their rate, as folders of images never do, so it cannot judge a clip over '
        'time'
      )
    self._path, self._trained, self._settings = recording.path, trained, settings
    self._embedder, self._size = embedder, image_size
    # The time of every frame is read: phones and browsers record at rates that vary, and a
    # container need not say how long it is.
    self._times = np.maximum.accumulate(video.frame_times(recording.path))
    if not self._times[-1] > self._times[0]:
      raise InputError(f'{recording.path}: its frames do not say their times')
    between = np.diff(self._times)
    self._near = max(_PAUSE, float(np.median(between)))
    # The last frame is shown as long as the one before it.
    self.seconds = float(self._times[-1] + min(between[-1], self._near))

  def windows(self, starts: np.ndarray, *, log: Log) -> WindowEmbeddings:
    """Embeds windows as long as the samples of training.

    Args:
      starts: float64 [windows], in seconds.
      log: takes lines.
    """
    settings = self._settings
    apart = settings.frames.every / self._trained.rate  # Seconds between embeddings in training.
    # Windows share images: there is one every `apart` seconds, whatever the windows' step.
    places = np.rint(starts[:, None] / apart).astype(int) + np.arange(self._trained.tokens)
    shown = self._frames_at(places * apart)
    reader = SampleReader(
      dataclasses.replace(settings, max_tokens=0), channels=(), image_size=self._size
    )
    sample = Sample(
      subject='',
      name=self._path,
      level=None,
      data={settings.source: Locator(path=pathlib.Path(self._path))},
    )
    embeddings, found = NumberedEmbeddings(self._embedder), set()
    try:
      for image in reader.images(sample, log=log, numbers=set(shown.flat) - {-1}):
        embeddings.add(image.token, image.image)
        if image.found:
          found.add(image.token)
    except InputError as error:  # A damaged video is judged as far as it can be read.
      log(str(error))
    tokens = embeddings.tokens(shown)
    reasons = tuple(self._reason(*window, found) for window in zip(shown, tokens.mask))
    return WindowEmbeddings(tokens=tokens, reasons=reasons)

  def _reason(self, frames: np.ndarray, there: np.ndarray, found: set[int]) -> str:
    """Why a window of these frames cannot be judged; '' where it can."""
    source, share = self._settings.source, there.mean()
    if share < PRESENT:
      what = 'no face' if self._settings.crops else 'nothing'
      return f'{source}: {what} in {1 - share:.0%} of it'
    if not found & set(frames):
      return f'{source}: no face is found in it, only followed from elsewhere'
    return ''

  def _frames_at(self, moments: np.ndarray) -> np.ndarray:
    """Numbers of the frames nearest to moments in seconds; -1 where none is near."""
    after = np.clip(np.searchsorted(self._times, moments), 1, len(self._times) - 1)
    before = moments - self._times[after - 1] <= self._times[after] - moments
    nearest = after - before
    far = np.abs(self._times[nearest] - moments) > self._near
    return np.where(far, -1, nearest)
