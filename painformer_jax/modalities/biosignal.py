"""One-dimensional signals as images: waveforms and spectrograms.

The paper shows each ECG, EMG and GSR window as four images: the waveform,
black on white without axes, and three viridis spectrograms: the wrapped phase
('angle'), the unwrapped phase ('phase') and the power density in dB ('psd'),
as matplotlib's `specgram` names them. Window lengths, overlaps, line widths
and scalings are not public: the defaults below are reconstructed.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

import cv2
import numpy as np
import scipy.signal

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.colormap import viridis

SpectrogramKind = Literal['psd', 'angle', 'phase']
SPECTROGRAM_KINDS: tuple[str, ...] = get_args(SpectrogramKind)
REPRESENTATIONS: tuple[str, ...] = ('waveform', 'angle', 'phase', 'psd')

# Fractional bits of the line's coordinates: 1/16 pixel.
_SHIFT = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveformConfig:
  """How a waveform is drawn; every value is reconstructed.

  Attributes:
    height: of the image, in pixels.
    width: of the image, in pixels.
    margin: blank part of the height above the maximum and below the minimum,
      each, as a fraction in [0, 0.5).
    thickness: of the line, in pixels.
  """

  height: int = 224
  width: int = 224
  margin: float = 0.05
  thickness: int = 1

  def __post_init__(self):
    if min(self.height, self.width, self.thickness) < 1:
      raise InputError(f'height, width and thickness must be positive: {self}')
    if not 0 <= self.margin < 0.5:
      raise InputError(f'margin must lie in [0, 0.5), not {self.margin}')


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


def fill_gaps(signal: np.ndarray) -> np.ndarray:
  """A signal with its gaps bridged, as float64.

  NaN and infinite samples are interpolated linearly between the nearest finite
  ones; before the first and after the last finite sample its value is held.

  Args:
    signal: real [n].

  Returns:
    float64 [n], finite.

  Raises:
    InputError: not one-dimensional, or without a single finite sample.
  """
  values = np.asarray(signal)
  if values.ndim != 1 or values.dtype.kind not in 'fiub':
    raise InputError(
      f'a signal must be one-dimensional and real, not {values.dtype} {list(values.shape)}'
    )
  values = values.astype(np.float64)
  finite = np.isfinite(values)
  if not finite.any():
    raise InputError(f'a signal of {len(values)} samples has not one finite value')
  if finite.all():
    return values
  places = np.arange(len(values))
  return np.interp(places, places[finite], values[finite])


def resample(signal: np.ndarray, rate: float, *, to: float) -> np.ndarray:
  """Polyphase resampling of a signal from one rate to another, both in Hz.

  Images and aliases are 90 dB down but for the last tenth of the band; the
  filter reaches 32 samples of the slower rate to either side.

  Args:
    signal: real [n]; gaps are bridged first (`fill_gaps`).

  Returns:
    float64 [about n * to / rate].

  Raises:
    InputError: no finite sample, or rates that are not positive.
  """
  if not (rate > 0 and to > 0):
    raise InputError(f'sampling rates must be positive: {rate}, {to} Hz')
  values = fill_gaps(signal)
  ratio = Fraction(to / rate).limit_denominator(10_000)
  if ratio == 1:
    return values
  # scipy's own filter lets 0.07 % of an offset through as a tone, which in
  # slow signals on a large offset is more than the signal.
  factor = max(ratio.numerator, ratio.denominator)
  taps = scipy.signal.firwin(64 * factor + 1, 1 / factor, window=('kaiser', 9.0))
  return scipy.signal.resample_poly(
    values, ratio.numerator, ratio.denominator, window=taps, padtype='mean'
  )


def waveform_image(signal: np.ndarray, config: WaveformConfig = WaveformConfig()) -> np.ndarray:
  """Draws a signal as an antialiased black line on white, without axes.

  The first sample lies in the first column and the last in the last; the
  minimum lies `margin` above the bottom and the maximum as far below the top.
  Gaps are bridged (`fill_gaps`). A flat signal, or one of a single sample, is
  a horizontal line at half height.

  Args:
    signal: real [n].

  Returns:
    uint8 [height, width, 3].

  Raises:
    InputError: no finite sample.
  """
  values = fill_gaps(signal)
  if len(values) == 1:
    values = np.repeat(values, 2)
  low, high = values.min(), values.max()
  # Halves, so that the range of the largest floats does not overflow.
  span = high / 2 - low / 2
  level = (values / 2 - low / 2) / span if span > 0 else np.full(len(values), 0.5)
  top = config.margin * (config.height - 1)
  bottom = (1 - config.margin) * (config.height - 1)
  points = np.stack(
    [np.linspace(0, config.width - 1, len(values)), bottom + level * (top - bottom)], axis=-1
  )
  points = np.rint(points * 2**_SHIFT).astype(np.int32)
  image = np.full((config.height, config.width), 255, np.uint8)
  cv2.polylines(image, [points], False, 0, config.thickness, cv2.LINE_AA, _SHIFT)
  return np.repeat(image[..., None], 3, axis=-1)


def stacked_waveform_image(
  signals: np.ndarray, config: WaveformConfig = WaveformConfig()
) -> np.ndarray:
  """Simultaneous signals as panels of one image, the first on top.

  Each panel is a `waveform_image` of its own; heights differ by at most one
  pixel.

  Args:
    signals: real [channels, n], at most `config.height` channels.

  Returns:
    uint8 [height, width, 3].

  Raises:
    InputError: no channel, more channels than rows, or one without a finite
      sample.
  """
  count = len(signals)
  if not 1 <= count <= config.height:
    raise InputError(f'cannot stack {count} signals in {config.height} rows')
  edges = np.arange(count + 1) * config.height // count
  return np.concatenate(
    [
      waveform_image(signal, dataclasses.replace(config, height=int(rows)))
      for signal, rows in zip(signals, np.diff(edges))
    ]
  )


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
