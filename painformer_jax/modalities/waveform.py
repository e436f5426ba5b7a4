"""Signals drawn as lines: black on white, without axes.

Margins and line widths of the paper are not public: the defaults are reconstructed.
"""

import dataclasses

import cv2
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.resampling import fill_gaps

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
