"""The images of a window of ECG, EMG or GSR: one waveform, three spectrograms.

The paper shows each window as four images: the waveform, and spectrograms of the wrapped
phase ('angle'), the unwrapped phase ('phase') and the power density in dB ('psd'), named as
by matplotlib's `specgram`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.spectrogram import SpectrogramConfig, spectrogram_image
from painformer_jax.modalities.waveform import WaveformConfig, waveform_image

REPRESENTATIONS: tuple[str, ...] = ('waveform', 'angle', 'phase', 'psd')


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiosignalConfig:
  """How a window of ECG, EMG or GSR becomes four images.

  Attributes:
    waveform: of the drawn line.
    spectrogram: of the three maps.
  """

  waveform: WaveformConfig = WaveformConfig()
  spectrogram: SpectrogramConfig = SpectrogramConfig()


def biosignal_images(
  signal: np.ndarray,
  rate: float,
  config: BiosignalConfig = BiosignalConfig(),
  *,
  representations: Sequence[str] = REPRESENTATIONS,
) -> dict[str, np.ndarray]:
  """The paper's four images of one window.

  Args:
    signal: real [n], at least as long as a segment of the spectrogram where one
      is asked for; gaps are bridged.
    rate: samples a second, Hz.
    representations: which of `REPRESENTATIONS` to draw.

  Returns:
    representation -> uint8 [height, width, 3] RGB.

  Raises:
    InputError: as `waveform_image` and `spectrogram_image` say; an unknown
      representation.
  """
  unknown = [name for name in representations if name not in REPRESENTATIONS]
  if unknown:
    raise InputError(f'representations are {", ".join(REPRESENTATIONS)}, not {unknown[0]!r}')
  return {
    name: waveform_image(signal, config.waveform)
    if name == 'waveform'
    else spectrogram_image(signal, rate, config.spectrogram, kind=name)
    for name in representations
  }
