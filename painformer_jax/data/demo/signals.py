"""Biosignals of the demo corpus: recordings, windows and splits.

All channels are resampled to 512 Hz, BioVid's rate, from 1000 Hz or more, and
cut into windows of 5.5 s, BioVid's length. Nothing else is filtered: a filter chosen by
the kind of signal would reveal the kind.
"""

import bz2
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.data.demo.sources import BIOSIGNALS, PYPHYSIO, SYSTOLE
from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.modalities.resampling import resample

RATE = 512
WINDOW = 5.5

BIOSIGNAL_CLASSES = ('ecg', 'emg', 'eda', 'bvp', 'respiration')
STIMULUS_CLASSES = ('rest', 'stimulus')

_TASK1 = 'systole Task1'
TASK1_CHANNELS = ('ECG', 'EDA', 'Respiration')
# Of this recording of 25.6 min, in seconds. Two of the six series of pictures, with the
# rest around them, are for testing; before 165 s the sensors are being moved.
TASK1_SPANS = {
  'train': ((165.0, 680.0), (915.0, 1255.0)),
  'test': ((690.0, 905.0), (1265.0, 1480.0)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingWindow:
  """A labelled window; `sign` is -1 where the channel's values are negated."""

  span: RecordingSpan
  label: int
  sign: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
  """A part of one channel from which windows of one kind are taken; seconds."""

  kind: str
  recording: str
  channel: str
  start: float
  stop: float
  sign: int = 1


def _segments(*rows) -> tuple[Segment, ...]:
  names = [field.name for field in dataclasses.fields(Segment)]
  return tuple(Segment(**dict(zip(names, row))) for row in rows)


def _task1(kind: str, channel: str) -> list[tuple]:
  return [(kind, _TASK1, channel, *span) for span in TASK1_SPANS['train']]


_BSN = 'biosignalsnotebooks'

# kind, recording, channel, start and stop in seconds, sign. Recordings below
# 1000 Hz are left out: their empty upper band would reveal the kind.
SEGMENTS = {
  'train': _segments(
    ('ecg', f'{_BSN} ecg_5_min', 'channel_1', 0, 300),
    ('ecg', f'{_BSN} signal_sample_single_hub_ECG_2018_7_5', 'channel_1', 0, 417),
    *_task1('ecg', 'ECG'),
    ('emg', f'{_BSN} emg_bursts', 'channel_3', 0, 28.5),
    ('emg', f'{_BSN} emg_1000_hz_16_bits', 'channel_6', 0, 40),
    ('emg', f'{_BSN} emg_1000_hz_16_bits_solo', 'channel_1', 0, 87),
    ('emg', f'{_BSN} emg_1000_hz_8_16_bits', 'channel_6', 0, 30),
    *_task1('eda', 'EDA'),
    ('bvp', f'{_BSN} bvp_rest', 'channel_1', 0, 105),
    ('bvp', f'{_BSN} signal_sample_single_hub_bvp_2017_1_17', 'channel_1', 0, 27),
    # Light through the finger: it falls where the volume of blood rises.
    ('bvp', f'{_BSN} signal_sample_single_hub_fspo2_2018_9_3', 'channel_9', 2, 91, -1),
    *_task1('respiration', 'Respiration'),
  ),
  'test': _segments(
    ('ecg', 'pyphysio medical', 'ecg', 0, 120),
    ('ecg', f'{_BSN} supine_1min', 'channel_1', 0, 60),
    # The muscle is at rest afterwards.
    ('emg', f'{_BSN} emg_fatigue', 'channel_2', 0, 120),
    ('eda', 'pyphysio medical', 'eda', 0, 120),
    # Before, the hand is moved to the surface and away.
    ('eda', f'{_BSN} eda_hot_surface', 'channel_3', 11, 37),
    ('bvp', 'pyphysio medical', 'bvp', 0, 120),
    ('bvp', f'{_BSN} bvp_motion_artifact', 'channel_2', 0, 29.5),
    ('respiration', 'pyphysio medical', 'resp', 0, 120),
    ('respiration', f'{_BSN} signal_sample_single_hub_respiration_2018_7_5', 'channel_1', 0, 60),
  ),
}

# Windows of each kind.
BIOSIGNAL_WINDOWS = {'train': 200, 'test': 40}

# Windows begin this long after a picture comes, in seconds: the skin answers
# after 1-5 s, and the next picture comes after 10.6 s.
STIMULUS_DELAYS = (1.0, 1.5, 2.0, 2.5)
# Rest is this long after the last picture and has none inside.
_QUIET = 12.0


def biosignal_windows(split: str) -> list[RecordingWindow]:
  """The windows of 'train' or 'test', as many of each kind, evenly spread."""
  windows = []
  for label, kind in enumerate(BIOSIGNAL_CLASSES):
    segments = [s for s in SEGMENTS[split] if s.kind == kind]
    room = np.array([s.stop - s.start - WINDOW for s in segments])
    begins = np.cumsum(room) - room
    count = BIOSIGNAL_WINDOWS[split]
    for place in (np.arange(count) + 0.5) * room.sum() / count:
      index = int(np.searchsorted(begins, place, side='right')) - 1
      segment = segments[index]
      start = segment.start + float(place - begins[index])
      windows.append(
        RecordingWindow(
          span=_span(segment.recording, segment.channel, start), label=label, sign=segment.sign
        )
      )
  return windows


def stimulus_windows(onsets: Sequence[float], split: str) -> list[RecordingWindow]:
  """Windows after pictures, and as many away from them, of 'train' or 'test'.

  Args:
    onsets: of the pictures, in seconds, ascending.
  """
  spans = TASK1_SPANS[split]
  after = [
    onset + delay
    for onset in onsets
    for delay in STIMULUS_DELAYS
    if any(a <= onset and onset + delay + WINDOW <= b for a, b in spans)
  ]
  times = np.asarray(onsets)
  away = [
    start
    for a, b in spans
    for start in np.arange(a, b - WINDOW, 0.25)
    if not np.any((start - _QUIET < times) & (times < start + WINDOW))
  ]
  chosen = np.linspace(0, len(away) - 1, len(after)).round().astype(int)
  starts = {'rest': [away[i] for i in chosen], 'stimulus': after}
  channels = '+'.join(TASK1_CHANNELS)
  return [
    RecordingWindow(span=_span(_TASK1, channels, start), label=label)
    for label, name in enumerate(STIMULUS_CLASSES)
    for start in starts[name]
  ]


def read_onsets(root: Path) -> list[float]:
  """When the 72 pictures come, in seconds: 36 neutral, then 36 disgusting."""
  codes, rate = _systole(root, 'Task1', 'Stim')
  return (np.flatnonzero(codes) / rate).tolist()


# Keeps a few long channels: neighbouring windows mostly need the same ones.
@functools.lru_cache(maxsize=8)
def read_channel(root: Path, recording: str, channel: str) -> np.ndarray:
  """One channel at 512 Hz, float64 [n], in the units of the file."""
  package, name = recording.split(' ')
  values, rate = _READERS[package](root, name, channel)
  values = resample(values, rate, to=RATE)
  values.setflags(write=False)
  return values


def samples(root: Path, window: RecordingWindow) -> np.ndarray:
  """A window's samples, float64 [channels, 2816].

  Raises:
    InputError: the recording ends before the window does.
  """
  span = window.span
  first, length = round(span.start * RATE), round(WINDOW * RATE)
  found = np.stack(
    [
      read_channel(root, span.recording, channel)[first : first + length]
      for channel in span.channel.split('+')
    ]
  )
  if found.shape[1] != length:
    raise InputError(f'{span} ends before the window does')
  return window.sign * found


def _span(recording: str, channel: str, start: float) -> RecordingSpan:
  start = round(start, 3)
  return RecordingSpan(recording=recording, channel=channel, start=start, stop=start + WINDOW)


def _opensignals(root: Path, name: str, channel: str) -> tuple[np.ndarray, float]:
  """A channel of a biosignalsplux or BITalino file, in ADC units."""
  h5py = import_extra('h5py', extra='demo')
  path = (
    root
    / BIOSIGNALS.folder
    / 'biosignalsnotebooks/notebook_files'
    / f'osf_files/signal_samples/{name}.h5'
  )
  with h5py.File(path, 'r') as file:
    device = next(d for d in file.values() if channel in d['raw'])
    return device['raw'][channel][:, 0], float(device.attrs['sampling rate'])


def _systole(root: Path, name: str, channel: str) -> tuple[np.ndarray, float]:
  path = root / SYSTOLE.folder / f'systole/datasets/{name}_{channel}.npy'
  return np.load(path), 1000.0


def _medical(root: Path, name: str, channel: str) -> tuple[np.ndarray, float]:
  path = root / PYPHYSIO.folder / f'pyphysio/test_data/{name}.txt.bz2'
  column = ('ecg', 'eda', 'bvp', 'resp').index(channel)
  with bz2.open(path, 'rt') as file:
    values = np.loadtxt(file, usecols=column)
  # 245,760 rows in 120 s. The note that comes with the file says 1024 Hz, but then the
  # heart would beat at half its rate.
  return values, 2048.0


_READERS = {BIOSIGNALS.package: _opensignals, SYSTOLE.package: _systole, PYPHYSIO.package: _medical}
