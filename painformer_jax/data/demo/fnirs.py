"""Finger tapping under fNIRS: windows of the haemoglobin of one channel.

One person taps 31 times for 4.9 s in 864 s. Light intensities of 18 channels, source and
detector 3.3-4.1 cm apart, at 760 and 850 nm, 10.17 Hz.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.data.demo.sources import PYPHYSIO
from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.modalities.fnirs import band_pass, haemoglobin, optical_density, scalp_coupling

TAPPING_CLASSES = ('rest', 'tapping')

SPANS = {'train': (0.0, 576.0), 'test': (586.0, 864.0)}
WINDOW = 8.0
# A tapping window begins this long after the tapping does, as blood flow lags
# behind by 4-6 s; rest begins 7 s after the tapping ends, or later.
_DELAY = 2.0
_QUIET = 12.0
# In Hz: without drift, breath and heartbeat.
_BAND = (0.01, 0.2)
# Source-detector distance in cm; nearer ones see the scalp alone.
_LONG = 2.0
_COUPLING = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class TappingRecording:
  """The recording as its file holds it.

  Attributes:
    intensity: float64 [n, channels, 2].
    wavelengths: in nm, of the last axis.
    distance: float64 [channels], source to detector, in cm.
    rate: in Hz.
    onsets: of the tapping, in seconds.
  """

  intensity: np.ndarray
  wavelengths: tuple[int, ...]
  distance: np.ndarray
  rate: float
  onsets: tuple[float, ...]


def read_recording(root: Path) -> TappingRecording:
  """Reads light, optodes and tapping."""
  h5py = import_extra('h5py', extra='demo')
  folder = root / PYPHYSIO.folder / 'pyphysio/test_data'
  with h5py.File(folder / 'fnirs.ph', 'r') as file:
    signal = file['signal']
    rate = float(signal.attrs['sampling_freq'][0])
    wavelengths = tuple(int(w) for w in signal.attrs['Lambda'])
    # A row a channel: its number, source, detector and distance.
    channels = signal.attrs['Channels'].reshape(signal.attrs['Channels_shape'])
    intensity = signal[()]
  with h5py.File(folder / 'fnirs_tapping.ph', 'r') as file:
    tapping = file['signal'][()] > 0
  onsets = np.flatnonzero(tapping[1:] & ~tapping[:-1]) + 1
  return TappingRecording(
    intensity=intensity,
    wavelengths=wavelengths,
    distance=channels[:, 3],
    rate=rate,
    onsets=tuple((onsets / rate).tolist()),
  )


def good_channels(recording: TappingRecording) -> np.ndarray:
  """Indices of the long channels that show the pulse in the training span."""
  density = optical_density(_span(recording, recording.intensity, 'train'))
  return np.flatnonzero(
    (recording.distance >= _LONG) & (scalp_coupling(density, recording.rate) >= _COUPLING)
  )


def tapping_windows(
  recording: TappingRecording, split: str
) -> Iterator[tuple[RecordingSpan, int, np.ndarray]]:
  """Oxygenated haemoglobin of one channel in each window of 'train' or 'test'.

  The two spans are converted and filtered separately, so that no filter mixes them.
  There are as many windows of rest as of tapping.

  Yields:
    span, label (index into `TAPPING_CLASSES`), float64 [81] in micromolar.
  """
  kept = good_channels(recording)
  light = _span(recording, recording.intensity, split)[:, kept]
  oxygenated = band_pass(
    haemoglobin(
      optical_density(light), wavelengths=recording.wavelengths, distance=recording.distance[kept]
    )[..., 0],
    recording.rate,
    low=_BAND[0],
    high=_BAND[1],
  )
  length = round(WINDOW * recording.rate)
  for label, starts in enumerate(_starts(recording, split)):
    for start in starts:
      first = round((start - SPANS[split][0]) * recording.rate)
      for index, channel in enumerate(kept):
        span = RecordingSpan(
          recording='pyphysio fnirs',
          channel=f'channel {channel} HbO',
          start=round(start, 3),
          stop=round(start + WINDOW, 3),
        )
        yield span, label, oxygenated[first : first + length, index]


def _starts(recording: TappingRecording, split: str) -> tuple[list[float], list[float]]:
  """Where windows of rest and of tapping begin, in seconds."""
  begin, end = SPANS[split]
  onsets = np.asarray(recording.onsets)
  tapping = [
    onset + _DELAY
    for onset in recording.onsets
    if begin <= onset and onset + _DELAY + WINDOW <= end
  ]
  free = [
    start
    for start in np.arange(begin, end - WINDOW, 0.1)
    if not np.any((start - _QUIET < onsets) & (onsets < start + WINDOW))
  ]
  chosen = np.linspace(0, len(free) - 1, len(tapping)).round().astype(int)
  return [float(free[i]) for i in chosen], tapping


def _span(recording: TappingRecording, series: np.ndarray, split: str) -> np.ndarray:
  first, last = (round(t * recording.rate) for t in SPANS[split])
  return series[first:last]
