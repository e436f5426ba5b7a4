"""The classification tasks of the demo corpus."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.data.demo import faces, fnirs, signals
from painformer_jax.data.demo.fetch import require
from painformer_jax.data.demo.png import encode_png
from painformer_jax.data.demo.sources import BIOSIGNALS, LFW, ORL, PYPHYSIO, SYSTOLE
from painformer_jax.data.task_source import Item, TaskSource
from painformer_jax.modalities.spectrogram import SpectrogramConfig, spectrogram_image
from painformer_jax.modalities.waveform import (
  WaveformConfig,
  stacked_waveform_image,
  waveform_image,
)

_BIOSIGNAL_SPLIT = (
  'Windows of 5.5 s at 512 Hz, 200 of each kind for training and 40 for '
  'testing, evenly spread and overlapping within a split only. Test windows '
  'come from other recordings than training windows; recordings of one '
  'laboratory are on both sides, perhaps of the same people. Nothing is '
  'filtered, so that amplifier noise, mains hum and the resolution of the '
  'converter (10 to 16 bits) remain and may help to tell the kinds apart.'
)


def demo_tasks(cache_dir: str | os.PathLike, *, image_size: int = 96) -> list[TaskSource]:
  """The tasks; their images are made from the cache each time they are read.

  Args:
    cache_dir: what `fetch` returned.
    image_size: side of the square images, in pixels.

  Returns:
    Tasks with splits 'train' and 'test' that share no recording and no span
    of time, across all tasks.

  Raises:
    InputError: a source is missing from the cache, or a bad image size.
  """
  if image_size < 8:
    raise InputError(f'image_size must be at least 8 pixels, not {image_size}')
  root = require(cache_dir)
  waveform = WaveformConfig(height=image_size, width=image_size)
  spectrogram = SpectrogramConfig(height=image_size, width=image_size)
  onsets, recording = signals.read_onsets(root), fnirs.read_recording(root)

  def windows(split: str) -> list[Item]:
    return _window_items(signals.biosignal_windows(split))

  def read_window(draw: Callable[[np.ndarray], np.ndarray]) -> Callable[[Item], bytes]:
    return functools.partial(_read_window, root, draw)

  task = functools.partial(_task, settings=f'{image_size} x {image_size} pixels, PNG')

  return [
    task(
      faces.orl_items,
      functools.partial(faces.read_orl, root, image_size),
      name='orl_identity',
      modality='face',
      licence=ORL.licence,
      classes=tuple(f's{n}' for n in range(1, faces.ORL_PEOPLE + 1)),
      description=(
        'Which of 40 people, from grey photographs (ORL). Closed set: '
        'the same people in both splits; images 1-5 of each for '
        'training, 6-10 for testing.'
      ),
    ),
    task(
      faces.lfw_items,
      functools.partial(faces.read_lfw, root, image_size),
      name='lfw_face',
      modality='face',
      licence=LFW.licence,
      classes=faces.LFW_CLASSES,
      description=(
        'Face or not, from grey patches of 25 x 25 pixels (100 of each, '
        'the subset of LFW that scikit-image carries): even ones for '
        'training, odd ones for testing. Whether a person or a '
        'photograph is on both sides is not known. Many patches without '
        'a face show the black border of a photograph.'
      ),
    ),
    task(
      windows,
      read_window(lambda s: waveform_image(s[0], waveform)),
      name='biosignal_waveform',
      modality='waveform',
      classes=signals.BIOSIGNAL_CLASSES,
      licence=_licences(BIOSIGNALS, SYSTOLE, PYPHYSIO),
      description=(
        'Which biosignal, from its waveform, stretched to the height of '
        f'the image. {_BIOSIGNAL_SPLIT}'
      ),
    ),
    task(
      windows,
      read_window(lambda s: spectrogram_image(s[0], signals.RATE, spectrogram)),
      name='biosignal_spectrogram',
      modality='spectrogram',
      classes=signals.BIOSIGNAL_CLASSES,
      licence=_licences(BIOSIGNALS, SYSTOLE, PYPHYSIO),
      description=(
        'Which biosignal, from its power density, 0-256 Hz, 60 dB down '
        'from the peak, below which most of the noise lies: the '
        f'windows of biosignal_waveform. {_BIOSIGNAL_SPLIT}'
      ),
    ),
    task(
      lambda split: _window_items(signals.stimulus_windows(onsets, split)),
      read_window(lambda s: stacked_waveform_image(s, waveform)),
      name='stimulus_rest',
      modality='waveform',
      classes=signals.STIMULUS_CLASSES,
      licence=SYSTOLE.licence,
      description=(
        'Whether a picture (neutral or disgusting) came 1-2.5 s before '
        'the window, or none for 12 s, from ECG, EDA and respiration '
        'stacked as three waveforms; one person, windows of 5.5 s, '
        'overlapping within a split. Four of six series of pictures '
        'train, two test, with the rest beside them; 10 s at least lie '
        'between.'
      ),
    ),
    task(
      functools.partial(_tapping_items, recording),
      functools.partial(_read_series, lambda s: waveform_image(s, waveform)),
      name='tapping_rest',
      modality='fnirs',
      classes=fnirs.TAPPING_CLASSES,
      licence=PYPHYSIO.licence,
      description=(
        'Finger tapping or rest, from the oxygenated haemoglobin of one '
        'fNIRS channel as a waveform; one person, windows of 8 s: 2-10 s '
        'after tapping begins, or 12 s after at least. The first 576 s '
        'train, the last 278 s test, 10 s lie between; each is '
        'converted and filtered (0.01-0.2 Hz) alone.'
      ),
    ),
  ]


def _task(
  items: Callable[[str], list[Item]], read: Callable[[Item], bytes], **declaration
) -> TaskSource:
  return TaskSource(
    **declaration, splits={split: items(split) for split in ('train', 'test')}, read=read
  )


def _licences(*sources) -> str:
  return '; '.join(f'{s.package}: {s.licence}' for s in sources)


def _window_items(windows: list[signals.RecordingWindow]) -> list[Item]:
  return [Item(key=str(w.span), label=w.label, source=str(w.span), detail=w) for w in windows]


def _tapping_items(recording: fnirs.TappingRecording, split: str) -> list[Item]:
  return [
    Item(key=str(span), label=label, source=str(span), detail=series)
    for span, label, series in fnirs.tapping_windows(recording, split)
  ]


def _read_window(root: Path, draw: Callable[[np.ndarray], np.ndarray], item: Item) -> bytes:
  return encode_png(draw(signals.samples(root, item.detail)))


def _read_series(draw: Callable[[np.ndarray], np.ndarray], item: Item) -> bytes:
  return encode_png(draw(item.detail))
