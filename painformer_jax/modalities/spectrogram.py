"""Signals drawn as spectrograms in viridis: power density, phase, unwrapped phase.

They are computed as matplotlib's `specgram` does. Window lengths, overlaps and scalings of
the paper are not public: the defaults are reconstructed.
"""

import dataclasses
import math
from typing import Literal, get_args

import cv2
import numpy as np
import scipy.signal

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.colormap import viridis
from painformer_jax.modalities.resampling import fill_gaps

SpectrogramKind = Literal['psd', 'angle', 'phase']
SPECTROGRAM_KINDS: tuple[str, ...] = get_args(SpectrogramKind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
  """How a spectrogram is computed and drawn; every value is reconstructed.

  The transform's defaults are matplotlib's: Hann windows of 256 samples that
  overlap by half, no detrending.

  Attributes:
    height: of the image, in pixels.
    width: of the image, in pixels.
    segment: length of one transformed segment, in samples.
    overlap: of neighbouring segments, in samples, less than `segment`.
    detrend: what is taken from each segment: 'none', its mean ('constant') or
      its straight line ('linear').
    centre: take the mean of the whole window away first, so that an
      amplifier's offset does not outshine the signal.
    dynamic_range: power density this many dB below the window's peak, and
      any lower one, is drawn in the darkest colour ('psd' only). Most
      amplifiers' and converters' noise lies below 60 dB.
  """

  height: int = 224
  width: int = 224
  segment: int = 256
  overlap: int = 128
  detrend: Literal['none', 'constant', 'linear'] = 'none'
  centre: bool = True
  dynamic_range: float = 60.0

  def __post_init__(self):
    if min(self.height, self.width) < 1 or self.segment < 2:
      raise InputError(f'height, width must be positive and segment at least 2: {self}')
    if not 0 <= self.overlap < self.segment:
      raise InputError(f'overlap must lie in [0, segment): {self}')
    if self.detrend not in ('none', 'constant', 'linear'):
      raise InputError(f"detrend must be 'none', 'constant' or 'linear', not {self.detrend!r}")
    if not self.dynamic_range > 0:
      raise InputError(f'dynamic_range must be positive: {self}')


def spectrogram(
  signal: np.ndarray,
  rate: float,
  config: SpectrogramConfig = SpectrogramConfig(),
  *,
  kind: SpectrogramKind = 'psd',
) -> np.ndarray:
  """The numbers of one spectrogram, as matplotlib's `specgram` computes them.

  Args:
    signal: real [n], n at least `config.segment`; gaps are bridged.
    rate: samples a second, Hz.
    kind: 'psd' for power density in dB (squared units per Hz; -inf where there
      is none), 'angle' for the phase in radians within [-pi, pi], 'phase' for
      the phase unwrapped along frequency, in radians.

  Returns:
    float64 [segment // 2 + 1, columns], from 0 Hz to rate / 2.

  Raises:
    InputError: signal shorter than one segment, unknown kind, bad rate.
  """
  if kind not in SPECTROGRAM_KINDS:
    raise InputError(f'spectrogram kinds are {", ".join(SPECTROGRAM_KINDS)}, not {kind!r}')
  if not (math.isfinite(rate) and rate > 0):
    raise InputError(f'the sampling rate must be positive, not {rate} Hz')
  values = fill_gaps(signal)
  if len(values) < config.segment:
    raise InputError(
      f'a spectrogram with segments of {config.segment} samples needs '
      f'{config.segment / rate:g} s; the signal has {len(values) / rate:g} s'
    )
  if config.centre:
    values = values - values.mean()
  _, _, result = scipy.signal.spectrogram(
    values,
    fs=rate,
    mode=kind,
    scaling='density',
    # matplotlib's window is the symmetric one, scipy's name the periodic one.
    window=np.hanning(config.segment),
    noverlap=config.overlap,
    detrend=False if config.detrend == 'none' else config.detrend,
  )
  if kind == 'psd':
    with np.errstate(divide='ignore'):
      result = 10 * np.log10(result)
  return result


def spectrogram_image(
  signal: np.ndarray,
  rate: float,
  config: SpectrogramConfig = SpectrogramConfig(),
  *,
  kind: SpectrogramKind = 'psd',
) -> np.ndarray:
  """Draws a spectrogram in viridis, low frequencies at the bottom, no axes.

  The smallest and largest values of the window span the colours; an empty or
  constant map is all of the darkest. Maps are stretched bilinearly to the
  image, 'angle' by the nearest value, as a mean of wrapped phases means
  nothing. Scaling and stretching are reconstructed.

  Args and errors as for `spectrogram`.

  Returns:
    uint8 [height, width, 3], RGB.
  """
  values = spectrogram(signal, rate, config, kind=kind)
  peak = values.max()
  if not math.isfinite(peak):
    # No power at all.
    values = np.zeros_like(values)
  elif kind == 'psd':
    values = np.maximum(values, peak - config.dynamic_range)
  values = values - values.min()
  values = values / (values.max() or 1)
  nearest = kind == 'angle'
  values = cv2.resize(
    values[::-1],
    (config.width, config.height),
    interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
  )
  return viridis(np.rint(values * 255).astype(np.uint8))
