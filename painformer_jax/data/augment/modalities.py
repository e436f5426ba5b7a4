"""What may be done to a picture of which kind."""

import dataclasses

from painformer_jax.data.augment import ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modality:
  """What may be done to the images of a modality.

  Attributes:
    ops: the operations of `ops.NAMES` that may be applied; the automatic policies
      choose from these, a recipe that names another one is refused.
    flip: whether left and right may change places.
    fill: what comes in from outside where an image is moved, sheared or turned: a
      level, or None to repeat the edge.
  """

  ops: tuple[str, ...]
  flip: bool = True
  fill: int | None = 0


def _without(*names: str) -> tuple[str, ...]:
  return tuple(name for name in ops.NAMES if name not in names)


# Where colour stands for a value (temperature, distance), it must keep its meaning;
# stretching each channel by itself changes hues too.
_PSEUDO_COLOUR = Modality(
  ops=_without('colour', 'solarize', 'posterize', 'equalize', 'invert', 'autocontrast')
)

# Time runs to the right: it may be shifted, not turned round or tilted. Black on white
# and viridis both keep their meaning, and white paper does not turn black at an edge.
_SPECTROGRAM = Modality(
  ops=('identity', 'translate_x', 'brightness', 'contrast', 'sharpness'), flip=False, fill=None
)
# Up and down is an offset of the amplitude here, where it is a frequency above.
_WAVEFORM = dataclasses.replace(_SPECTROGRAM, ops=(*_SPECTROGRAM.ops, 'translate_y'))

GENERAL = Modality(ops=ops.NAMES)

# Modalities not named here are general images.
MODALITIES: dict[str, Modality] = {
  'thermal': _PSEUDO_COLOUR,
  'depth': _PSEUDO_COLOUR,
  'waveform': _WAVEFORM,
  'fnirs': _WAVEFORM,
  'spectrogram': _SPECTROGRAM,
  # Waveforms or spectrograms: what suits both.
  'ecg': _SPECTROGRAM,
  'eeg': _SPECTROGRAM,
  'emg': _SPECTROGRAM,
  'gsr': _SPECTROGRAM,
}
