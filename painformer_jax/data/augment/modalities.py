"""Which operations of augmentation suit which modality."""

import dataclasses

from painformer_jax.data.augment import ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modality:
  """What augmentation may do to the images of a modality.

  Attributes:
    ops: the operations of `ops.NAMES` that may be applied. Automatic policies choose
      from these; a recipe with another one is an error.
    flip: whether images may be mirrored left to right.
    fill: value of pixels from outside the image where it is translated, sheared or
      rotated; None repeats the edge.
  """

  ops: tuple[str, ...]
  flip: bool = True
  fill: int | None = 0


def _without(*names: str) -> tuple[str, ...]:
  return tuple(name for name in ops.NAMES if name not in names)


# Where colour encodes a value (temperature, distance), it must keep its meaning. That also
# rules out what changes each channel by itself, because it changes hues.
_PSEUDO_COLOUR = Modality(
  ops=_without('colour', 'solarize', 'posterize', 'equalize', 'invert', 'autocontrast')
)

# Time runs to the right: images may be shifted, but not mirrored, rotated or sheared.
# Repeating the edge keeps white paper white and the background of viridis dark.
_SPECTROGRAM = Modality(
  ops=('identity', 'translate_x', 'brightness', 'contrast', 'sharpness'), flip=False, fill=None
)
# The vertical axis is amplitude, which may be shifted; a spectrogram's is frequency.
_WAVEFORM = dataclasses.replace(_SPECTROGRAM, ops=(*_SPECTROGRAM.ops, 'translate_y'))

GENERAL = Modality(ops=ops.NAMES)

# Modalities not named here are general images.
MODALITIES: dict[str, Modality] = {
  'thermal': _PSEUDO_COLOUR,
  'depth': _PSEUDO_COLOUR,
  'waveform': _WAVEFORM,
  'fnirs': _WAVEFORM,
  'spectrogram': _SPECTROGRAM,
  # May be waveforms or spectrograms: operations that suit both.
  'ecg': _SPECTROGRAM,
  'eeg': _SPECTROGRAM,
  'emg': _SPECTROGRAM,
  'gsr': _SPECTROGRAM,
}
