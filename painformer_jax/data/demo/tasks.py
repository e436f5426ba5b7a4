"""The classification tasks of the demo corpus."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from painformer_jax.data.demo import faces, fnirs, signals
from painformer_jax.data.demo.fetch import require
from painformer_jax.data.demo.png import encode_png
from painformer_jax.data.demo.sources import (
    BIOSIGNALS, LFW, ORL, PYPHYSIO, SYSTOLE)
from painformer_jax.data.example import Example, TaskSource
from painformer_jax.errors import InputError
from painformer_jax.modalities.biosignal import (
    SpectrogramConfig, WaveformConfig, spectrogram_image,
    stacked_waveform_image, waveform_image)

_BIOSIGNAL_SPLIT = (
    'Windows of 5.5 s at 512 Hz, 200 of each kind for training and 40 for '
    'testing, evenly spread and overlapping within a split only. Test windows '
    'come from other recordings than training windows; recordings of one '
    'laboratory are on both sides, perhaps of the same people. Nothing is '
    'filtered, so that amplifier noise, mains hum and the resolution of the '
    "converter (10 to 16 bits) remain and may help to tell the kinds apart.")


def demo_tasks(
    cache_dir: str | os.PathLike, *, image_size: int = 96,
) -> list[TaskSource]:
  """The tasks, made from the cache anew at each reading.

  Args:
    cache_dir: what `fetch` returned.
    image_size: side of the square images, in pixels.

  Returns:
    Tasks with splits 'train' and 'test' that share no recording and no span
    of time, also from task to task (`check_disjoint`).

  Raises:
    InputError: a source is missing from the cache, or a bad image size.
  """
  if image_size < 8:
    raise InputError(f'image_size must be at least 8 pixels, not {image_size}')
  root = require(cache_dir)
  return [
      TaskSource(
          name='orl_identity', modality='face', licence=ORL.licence,
          classes=tuple(f's{n}' for n in range(1, faces.ORL_PEOPLE + 1)),
          description=(
              'Which of 40 people, from grey photographs (ORL). Closed set: '
              'the same people in both splits; images 1-5 of each for '
              'training, 6-10 for testing.'),
          splits=_splits(faces.orl_examples, root, image_size)),
      TaskSource(
          name='lfw_face', modality='face', licence=LFW.licence,
          classes=faces.LFW_CLASSES,
          description=(
              'Face or not, from grey patches of 25 x 25 pixels (100 of each, '
              'the subset of LFW that scikit-image carries): even ones for '
              'training, odd ones for testing. Whether a person or a '
              'photograph is on both sides is not known. Many patches without '
              'a face show the black border of a photograph.'),
          splits=_splits(faces.lfw_examples, root, image_size)),
      TaskSource(
          name='biosignal_waveform', modality='waveform',
          classes=signals.BIOSIGNAL_CLASSES, licence=_licences(
              BIOSIGNALS, SYSTOLE, PYPHYSIO),
          description=(
              'Which biosignal, from its waveform, stretched to the height of '
              f'the image. {_BIOSIGNAL_SPLIT}'),
          splits=_splits(_biosignal_waveforms, root, image_size)),
      TaskSource(
          name='biosignal_spectrogram', modality='spectrogram',
          classes=signals.BIOSIGNAL_CLASSES, licence=_licences(
              BIOSIGNALS, SYSTOLE, PYPHYSIO),
          description=(
              'Which biosignal, from its power density, 0-256 Hz, 60 dB down '
              'from the peak, below which most of the noise lies: the '
              f'windows of biosignal_waveform. {_BIOSIGNAL_SPLIT}'),
          splits=_splits(_biosignal_spectrograms, root, image_size)),
      TaskSource(
          name='stimulus_rest', modality='waveform',
          classes=signals.STIMULUS_CLASSES, licence=SYSTOLE.licence,
          description=(
              'Whether a picture (neutral or disgusting) came 1-2.5 s before '
              'the window, or none for 12 s, from ECG, EDA and respiration '
              'stacked as three waveforms; one person, windows of 5.5 s, '
              'overlapping within a split. Four of six series of pictures '
              'train, two test, with the rest beside them; 10 s at least lie '
              'between.'),
          splits=_splits(_stimulus_waveforms, root, image_size)),
      TaskSource(
          name='tapping_rest', modality='fnirs',
          classes=fnirs.TAPPING_CLASSES, licence=PYPHYSIO.licence,
          description=(
              'Finger tapping or rest, from the oxygenated haemoglobin of one '
              'fNIRS channel as a waveform; one person, windows of 8 s: 2-10 s '
              'after tapping begins, or 12 s after at least. The first 576 s '
              'train, the last 278 s test, 10 s lie between; each is '
              'converted and filtered (0.01-0.2 Hz) alone.'),
          splits=_splits(_tapping_waveforms, root, image_size)),
  ]


def _splits(
    make: Callable[..., Iterator[Example]], root: Path, image_size: int,
) -> dict[str, Callable[[], Iterator[Example]]]:
  return {
      split: functools.partial(make, root, split, image_size=image_size)
      for split in ('train', 'test')}


def _licences(*sources) -> str:
  return '; '.join(f'{s.package}: {s.licence}' for s in sources)


def _biosignal_waveforms(
    root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  config = WaveformConfig(height=image_size, width=image_size)
  return _window_examples(
      root, signals.biosignal_windows(split),
      lambda samples: waveform_image(samples[0], config))


def _biosignal_spectrograms(
    root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  config = SpectrogramConfig(height=image_size, width=image_size)
  return _window_examples(
      root, signals.biosignal_windows(split),
      lambda samples: spectrogram_image(samples[0], signals.RATE, config))


def _stimulus_waveforms(
    root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  config = WaveformConfig(height=image_size, width=image_size)
  return _window_examples(
      root, signals.stimulus_windows(signals.read_onsets(root), split),
      lambda samples: stacked_waveform_image(samples, config))


def _window_examples(
    root: Path, windows: list[signals.Window],
    draw: Callable[[np.ndarray], np.ndarray]) -> Iterator[Example]:
  for window, samples in signals.cut(root, windows):
    yield Example(
        key=str(window.span), image=encode_png(draw(samples)),
        label=window.label, source=str(window.span))


def _tapping_waveforms(
    root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  config = WaveformConfig(height=image_size, width=image_size)
  recording = fnirs.read_recording(root)
  for span, label, series in fnirs.tapping_windows(recording, split):
    yield Example(
        key=str(span), image=encode_png(waveform_image(series, config)),
        label=label, source=str(span))
