"""Windows of recorded signals: cutting, checking, cleaning and drawing."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import cleaning
from painformer_jax.modalities.biosignal import REPRESENTATIONS, BiosignalConfig, biosignal_images
from painformer_jax.modalities.quality import QualityRules, SignalQuality, examine, fitted

# Steps are at least this share of a window.
_LEAST_STEP = 1e-3


def check_step(step: float, window: float) -> None:
  """Refuses steps that would draw nearly the same window over and over; 0 is no step.

  Raises:
    InputError: the step is below a thousandth of the window, both in seconds.
  """
  if 0 < step < _LEAST_STEP * window:
    raise InputError(
      f'a step of {step:g} s is too short for windows of {window:g} s: take '
      f'{_LEAST_STEP * window:g} s or more'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalConfig:
  """How recordings become images.

  Attributes:
    window: length of a window in seconds; 0 takes a recording as one window.
    step: from one window's start to the next one's, in seconds; 0 for `window`. At least a
      thousandth of the window, and a sample.
    representations: of each window, among `biosignal.REPRESENTATIONS`; none for
      the paper's: all four, of fNIRS the waveform.
    clean: whether to filter ECG, EMG and GSR first (`cleaning`).
    images: how windows are drawn; their size is always the model's.
    quality: which windows are left out.
    pathlength_factor: of fNIRS, see `fnirs.haemoglobin`.
  """

  window: float = 0.0
  step: float = 0.0
  representations: tuple[str, ...] = ()
  clean: bool = False
  images: BiosignalConfig = BiosignalConfig()
  quality: QualityRules = QualityRules()
  pathlength_factor: float = 6.0

  def __post_init__(self):
    if not (0 <= self.window < math.inf and 0 <= self.step < math.inf):
      raise InputError(
        f'window and step must be at least 0 s, not {self.window:g} and {self.step:g}'
      )
    if self.step and not self.window:
      raise InputError('a step needs a window')
    check_step(self.step, self.window)
    unknown = [r for r in self.representations if r not in REPRESENTATIONS]
    if unknown:
      raise InputError(f'representations are {", ".join(REPRESENTATIONS)}, not {unknown[0]!r}')
    if not self.pathlength_factor > 0:
      raise InputError(f'pathlength_factor must be positive, not {self.pathlength_factor}')

  def of(self, modality: str) -> tuple[str, ...]:
    """The representations of a modality: those asked for, or the paper's."""
    return self.representations or (('waveform',) if modality == 'fnirs' else REPRESENTATIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalWindow:
  """A stretch of a recording, in samples; `stop` is not included."""

  number: int
  start: int
  stop: int


def windows(samples: int, rate: float, config: SignalConfig) -> Iterator[SignalWindow]:
  """The windows of a recording; a recording shorter than one window is one window."""
  length = round(config.window * rate)
  if not length or samples < length:
    yield SignalWindow(number=0, start=0, stop=samples)
    return
  step, number = max((config.step or config.window) * rate, 1.0), 0
  # Starts are rounded one by one, so that they do not drift at odd rates.
  while (start := round(number * step)) + length <= samples:
    yield SignalWindow(number=number, start=start, stop=start + length)
    number += 1


class SignalDrawer:
  """Draws windows of one recorded signal; cleaning is done once, on the whole signal.

  Args:
    values: real [n], without padding at its ends (`quality.trim`).
    rate: samples a second, Hz.
    config: see `SignalConfig`.
    modality: decides which representations are the default.
    cleaned_as: key of `cleaning.METHODS`, where the config asks for cleaning.
    image_size: side of the images, pixels.
  """

  def __init__(
    self,
    values: np.ndarray,
    rate: float,
    config: SignalConfig,
    *,
    modality: str,
    cleaned_as: str,
    image_size: int,
  ):
    self._values, self._rate, self._config = values, rate, config
    self._representations, self._cleaned_as = config.of(modality), cleaned_as
    self._images = BiosignalConfig(
      **{
        field.name: dataclasses.replace(
          getattr(config.images, field.name), height=image_size, width=image_size
        )
        for field in dataclasses.fields(BiosignalConfig)
      }
    )
    self._cleaned: np.ndarray | None = None

  def draw(self, window: SignalWindow) -> tuple[SignalQuality, dict[str, np.ndarray]]:
    """The quality of a window, and its images; no images if the window is left out.

    Returns:
      The window's quality, and representation -> uint8 [size, size, 3].

    Raises:
      InputError: it cannot be cleaned or drawn.
    """
    config, part = self._config, self._values[window.start : window.stop]
    wanted = round(config.window * self._rate)
    quality = examine(part, wanted=wanted, rules=config.quality)
    if not quality.usable:
      return quality, {}
    if config.clean:
      if self._cleaned is None:
        self._cleaned = cleaning.clean(self._values, self._rate, modality=self._cleaned_as)
      part = self._cleaned[window.start : window.stop]
    return quality, biosignal_images(
      fitted(part[None], wanted)[0], self._rate, self._images, representations=self._representations
    )
