"""A trained assessor on one recording: a level with a probability over time.

Windows as long as the samples of its training slide over the recording. It abstains where
the face or a signal is missing for too much of a window, and where no face is found in a
window but only followed from others.
"""

import csv
import dataclasses
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from painformer_jax.assessment.clips.assessor import Assessor, Source
from painformer_jax.assessment.datasets.recordings import Locator, Sample
from painformer_jax.assessment.embedding.embed import EmbeddingSettings
from painformer_jax.assessment.embedding.record import arrays_sha256
from painformer_jax.assessment.embedding.sample_images import SampleReader
from painformer_jax.assessment.embedding.store import Tokens
from painformer_jax.assessment.results import summary as results
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.inference import Embedder
from painformer_jax.modalities import depth, signal_files, video
from painformer_jax.models import functional
from painformer_jax.weights.load import read_weights

# Share of a window's embeddings that must be there, for each modality.
_PRESENT = 0.5
# Share of a window that a recording must last at least.
_WHOLE = 0.98
# Fewest windows to standardise a person's embeddings by.
_OWN_WINDOWS = 8
# A frame farther than this from the moment that it should show is none, seconds: a video
# may pause.
_PAUSE = 0.5
RELATIVE = (
  'levels are relative to this recording: its own windows give the mean and the spread '
  'that embeddings are standardised by, so one without any pain may show every level'
)

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
  """One file of what was recorded; several start at the same moment.

  Attributes:
    path: a video, whose frames count by their time stamps, or signals in .csv, .tsv,
      .npy, .npz or .parquet.
    columns: of signals: names or numbers of the columns; none where there is one.
    rate: of signals, samples a second, Hz.
  """

  path: str
  columns: tuple[str, ...] = ()
  rate: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
  """Levels over time.

  Attributes:
    classes: names.
    start, stop: float64 [windows], in seconds.
    probability: float64 [windows, classes], NaN where it abstains.
    reason: of abstaining; '' where it does not.
  """

  classes: tuple[str, ...]
  start: np.ndarray
  stop: np.ndarray
  probability: np.ndarray
  reason: tuple[str, ...]

  @property
  def level(self) -> list[str]:
    """The most probable class, '' where it abstains."""
    return [
      '' if why else self.classes[int(np.argmax(row))]
      for row, why in zip(self.probability, self.reason)
    ]


def assess_clip(
  assessor: Assessor,
  recordings: Mapping[str, Recording],
  *,
  step: float = 1.0,
  weights: str | os.PathLike | None = None,
  batch_size: int = 16,
  log: Log = lambda line: None,
) -> Curve:
  """Slides the assessor over a recording.

  Args:
    assessor: from `assessor.load`.
    recordings: source, such as 'video' or 'gsr' -> its file; all that it needs.
    step: seconds from one window's start to the next one's.
    weights: of the backbone; None for where they were in training. They must be the
      same.
    batch_size: images at once.
    log: takes lines.

  Raises:
    InputError: a source is missing or unknown, other weights, a file that cannot be
      read, or one shorter than a window.
  """
  needed = {each.source for each in assessor.settings.values()}
  if needed != recordings.keys():
    raise InputError(
      f'this assessor takes {", ".join(sorted(needed))}; given were '
      f'{", ".join(sorted(recordings)) or "none"}'
    )
  if not 0 < step < float('inf'):
    raise InputError(f'the step must be above 0 s, not {step:g}')
  if batch_size < 1:
    raise InputError(f'the batch size must be at least 1, not {batch_size}')
  embedder, size = _embedder(assessor, weights, batch_size)
  window = max(source.seconds for source in assessor.sources.values())
  found, lengths = {}, []
  for name, settings in assessor.settings.items():
    source, recording = assessor.sources[name], recordings[settings.source]
    make = _SignalTokens if source.channels else _VideoTokens
    found[name] = make(settings, source, recording, embedder=embedder, image_size=size)
    lengths.append(found[name].seconds)
  length = min(lengths)
  if length < _WHOLE * window:
    raise InputError(
      f'the recording lasts {length:.2f} s; this assessor judges windows of {window:.2f} s'
    )
  # A window may reach a sample or a frame beyond the end, as those of training may.
  starts = np.arange(max(1, int((length - window) / step + 1.001))) * step
  log(f'{len(starts)} windows of {window:.2f} s')
  if is_relative(assessor):
    log(RELATIVE)
  tokens, reasons = {}, [''] * len(starts)
  for name, part in found.items():
    tokens[name], own = part.windows(starts, log=log)
    reasons = ['; '.join(filter(None, pair)) for pair in zip(reasons, own)]
  judged = [n for n, why in enumerate(reasons) if not why]
  probability = np.full((len(starts), len(assessor.classes)), np.nan)
  if is_relative(assessor) and 0 < len(judged) < _OWN_WINDOWS:
    raise InputError(
      f'{len(judged)} windows can be judged; this assessor needs {_OWN_WINDOWS} to '
      "standardise a person's recording by: give a longer one, or a shorter step"
    )
  if judged:
    kept = {
      name: dataclasses.replace(part, values=part.values[judged], mask=part.mask[judged])
      for name, part in tokens.items()
    }
    probability[judged] = assessor.probabilities(kept)[0]
  return Curve(
    classes=assessor.classes,
    start=starts,
    stop=starts + window,
    probability=probability,
    reason=tuple(reasons),
  )


def is_relative(assessor: Assessor) -> bool:
  """Whether its levels say how a window differs from the others of the recording."""
  return assessor.normalise == 'subject'


def write_curve(curve: Curve, assessor: Assessor) -> dict[str, str]:
  """The curve as text: 'csv' and 'json'.

  Each with the notice, whether levels are relative, and what is a stand-in.
  """
  text = io.StringIO()
  text.write(f'# {results.NOTICE}\n')
  relative = RELATIVE if is_relative(assessor) else None
  if relative:
    text.write(f'# {relative}\n')
  stand_ins = {
    name: depth.STAND_IN for name, settings in assessor.settings.items() if settings.stand_in
  }
  text.writelines(f'# {name}: a stand-in: {what}\n' for name, what in stand_ins.items())
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(('start', 'stop', 'level', *(f'p {c}' for c in curve.classes), 'abstained'))
  rows = list(zip(curve.start, curve.stop, curve.level, curve.probability, curve.reason))
  for start, stop, level, probability, why in rows:
    writer.writerow(
      (f'{start:.3f}', f'{stop:.3f}', level, *('' if why else f'{p:.4f}' for p in probability), why)
    )
  record = {
    'notice': results.NOTICE,
    'task': assessor.task,
    'classes': list(curve.classes),
    'relative': relative,
    'stand_ins': stand_ins,
    'measured': dict(assessor.measured),
    'windows': [
      {
        'start': round(float(start), 3),
        'stop': round(float(stop), 3),
        'level': level or None,
        'probability': None if why else [round(float(p), 4) for p in probability],
        'abstained': why or None,
      }
      for start, stop, level, probability, why in rows
    ],
  }
  return {'csv': text.getvalue(), 'json': json.dumps(record, indent=2) + '\n'}


def _embedder(assessor: Assessor, weights, batch_size: int) -> tuple[Embedder, int]:
  path = weights or assessor.weights['path']
  stored = read_weights(path)
  arrays = {name: a for name, a in stored.variables.items() if not name.startswith('head/')}
  if arrays_sha256(arrays) != assessor.weights['sha256']:
    raise InputError(
      f'{path} holds other weights than this assessor was trained with: name those (--weights)'
    )
  config = dataclasses.replace(stored.config, num_classes=0)
  return Embedder(
    functional.from_variables(config, arrays), batch_size=batch_size
  ), config.image_size


class _Embeddings:
  """Embeddings by number; of images, no more are in memory than a batch."""

  def __init__(self, embedder: Embedder):
    self._embedder = embedder
    self._numbers, self._images, self._values = [], [], {}

  def __len__(self) -> int:
    return len(self._values) + len(self._images)

  def add(self, number: int, image: np.ndarray) -> None:
    """uint8 [size, size, 3], under a number of its own."""
    self._numbers.append(number)
    self._images.append(image)
    if len(self._images) == self._embedder.batch_size:
      self._run()

  def tokens(self, numbers: np.ndarray) -> Tokens:
    """Those of int [windows, tokens]; numbers that were not added are masked."""
    self._run()
    width = len(next(iter(self._values.values()))) if self._values else 1
    values = np.full((*numbers.shape, width), np.nan, np.float32)
    mask = np.zeros(numbers.shape, bool)
    for place, number in np.ndenumerate(numbers):
      if number in self._values:
        values[place], mask[place] = self._values[number], True
    return Tokens(values=values, mask=mask, labels=('',) * numbers.shape[1])

  def _run(self) -> None:
    if self._images:
      self._values.update(zip(self._numbers, self._embedder(np.stack(self._images))))
      self._numbers.clear()
      self._images.clear()


class _SignalTokens:
  """Windows of one modality of signals."""

  def __init__(
    self,
    settings: EmbeddingSettings,
    source: Source,
    recording: Recording,
    *,
    embedder: Embedder,
    image_size: int,
  ):
    if not recording.rate > 0:
      raise InputError(f'{recording.path}: say how many samples a second it has (--rate)')
    columns = recording.columns or ('',)
    if len(columns) != len(source.channels):
      raise InputError(
        f'{recording.path}: this assessor takes {len(source.channels)} channels, '
        f'{len(columns)} columns are named (--column)'
      )
    self._settings, self._source, self._rate = settings, source, recording.rate
    self._embedder = embedder
    self._reader = SampleReader(settings, channels=source.channels, image_size=image_size)
    self._values = np.stack([_read_column(recording, c) for c in columns])
    self.seconds = self._values.shape[1] / self._rate

  def windows(self, starts: np.ndarray, *, log: Log) -> tuple[Tokens, list[str]]:
    """Embeddings [windows, tokens, width] and why some cannot be judged."""
    source, rows = self._source, round(self._source.seconds * self._rate)
    # An hour of images would be gigabytes.
    embeddings, reasons = _Embeddings(self._embedder), []
    with tempfile.TemporaryDirectory() as folder:
      for number, start in enumerate(starts):
        first = round(start * self._rate)
        path = pathlib.Path(folder, f'{number}.csv')
        _write_window(path, source.channels, self._values[:, first : first + rows])
        sample = Sample(
          subject='',
          name=f'{start:g} s',
          level=None,
          data={
            self._settings.source: Locator(path=path, columns=source.channels, rate=self._rate)
          },
        )
        remarks, count = [], 0
        try:
          for image in self._reader.images(sample, log=remarks.append):
            if image.token < source.tokens:
              embeddings.add(number * source.tokens + image.token, image.image)
              count += 1
        except InputError as error:
          remarks.append(str(error))
        path.unlink()
        reasons.append(
          ''
          if count >= _PRESENT * source.tokens
          else f'{self._settings.source}: {"; ".join(remarks) or "missing"}'
        )
    log(f'{self._settings.source}: {len(embeddings)} images')
    numbers = np.arange(len(starts) * source.tokens).reshape(len(starts), source.tokens)
    return embeddings.tokens(numbers), reasons


class _VideoTokens:
  """Windows of one modality of a video."""

  def __init__(
    self,
    settings: EmbeddingSettings,
    source: Source,
    recording: Recording,
    *,
    embedder: Embedder,
    image_size: int,
  ):
    if not source.timed:
      raise InputError(
        f'this assessor was trained on images of {settings.source} that do not say '
        'their rate, as folders of images never do, so it cannot judge a clip over '
        'time'
      )
    self._path, self._source, self._settings = recording.path, source, settings
    self._embedder, self._size = embedder, image_size
    # Of every frame: phones and browsers record at rates that vary, and a container need
    # not say how long it is.
    self._times = np.maximum.accumulate(video.frame_times(recording.path))
    if not self._times[-1] > self._times[0]:
      raise InputError(f'{recording.path}: its frames do not say their times')
    between = np.diff(self._times)
    self._near = max(_PAUSE, float(np.median(between)))
    # The last frame is shown as long as the one before it.
    self.seconds = float(self._times[-1] + min(between[-1], self._near))

  def windows(self, starts: np.ndarray, *, log: Log) -> tuple[Tokens, list[str]]:
    """Embeddings [windows, tokens, width] and why some cannot be judged."""
    source, settings = self._source, self._settings
    apart = settings.frames.every / source.rate  # Seconds between embeddings in training.
    # Windows share images: one of every `apart` seconds, whatever their step.
    places = np.rint(starts[:, None] / apart).astype(int) + np.arange(source.tokens)
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
    embeddings, found = _Embeddings(self._embedder), set()
    try:
      for image in reader.images(sample, log=log, numbers=set(shown.flat) - {-1}):
        embeddings.add(image.token, image.image)
        if image.found:
          found.add(image.token)
    except InputError as error:
      log(str(error))
    tokens, reasons = embeddings.tokens(shown), []
    for row, there in zip(shown, tokens.mask):
      share = there.mean()
      if share < _PRESENT:
        reasons.append(
          f'{settings.source}: {"no face" if settings.crops else "nothing"} in '
          f'{1 - share:.0%} of it'
        )
      elif not found & set(row):
        reasons.append(f'{settings.source}: no face is found in it, only followed from elsewhere')
      else:
        reasons.append('')
    return tokens, reasons

  def _frames_at(self, moments: np.ndarray) -> np.ndarray:
    """Numbers of the frames nearest to moments in seconds; -1 where none is near."""
    after = np.clip(np.searchsorted(self._times, moments), 1, len(self._times) - 1)
    before = moments - self._times[after - 1] <= self._times[after] - moments
    nearest = after - before
    far = np.abs(self._times[nearest] - moments) > self._near
    return np.where(far, -1, nearest)


def _read_column(recording: Recording, column: str) -> np.ndarray:
  span = signal_files.Span(file=recording.path, rate=recording.rate, key='', column=column)
  return signal_files.read_span('', span)


def _write_window(path: pathlib.Path, channels: Sequence[str], values: np.ndarray) -> None:
  lines = [','.join(f'{v:.9g}' for v in row) for row in values.T]
  path.write_text('\n'.join([','.join(channels), *lines]) + '\n')
