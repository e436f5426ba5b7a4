"""The demo corpus as a study: two people, one task each, in blocks of time.

Pictures: one person sees six series of 12 pictures while ECG, skin conductance and
respiration are recorded. Does a window follow a picture, or not? Tapping: one person taps
with the fingers or rests, recorded by fNIRS. Neither is pain.

A block of time stands for a subject: windows of different blocks are a gap apart, and
haemoglobin is converted and filtered block by block, so that no filter mixes blocks.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.recordings import Locator, Sample, Study
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.data.demo import fnirs, signals
from painformer_jax.data.demo.fetch import require
from painformer_jax.data.demo.sources import PYPHYSIO, SYSTOLE
from painformer_jax.modalities.fnirs import band_pass, haemoglobin, optical_density

NAME = 'demo corpus'
LEVELS = ('rest from pictures', 'picture', 'rest from tapping', 'tapping')
# Modality -> column of the recording.
PICTURE_COLUMNS = {'ecg': 'ECG', 'gsr': 'EDA', 'resp': 'Respiration'}

_RECORDING = 'systole Task1'
# Seconds of the recording that are used: sensors are moved before, and afterwards
# something else is recorded.
_PICTURES = (165.0, 1480.0)
# Without the long rest at the beginning, which would make a block without tapping.
_TAPPING = (90.0, 864.0)
_TAPPING_BLOCKS = 6
_TAPPING_DELAYS = (1.0, 2.0, 3.0)
_QUIET = 12.0  # Seconds of rest before and within a window of rest, without an onset.
_SERIES_GAP = 30.0  # Pictures further apart are of different series.
_BAND = (0.01, 0.2)  # Hz, as `data.demo.fnirs`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LabelledWindow:
  """A window in seconds from the recording's start; `block` counts from 0."""

  block: int
  label: int
  start: float
  stop: float


def open_study(cache: str | os.PathLike, folder: str | os.PathLike, *, gap: float = 10.0) -> Study:
  """Writes the recordings as tables, once, and lists their windows.

  Args:
    cache: folder of the demo corpus, see `data.demo.fetch`.
    folder: for the tables, created if missing; about 20 MB.
    gap: least number of seconds between windows of different blocks.

  Returns:
    A study whose subjects are blocks of time; levels as `LEVELS`.

  Raises:
    InputError: the corpus is not there, the folder cannot be written, or the gap leaves a
      block without windows.
  """
  root, folder = require(cache, sources=(SYSTOLE, PYPHYSIO)), Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made: {error.strerror}') from error
  samples = (*_picture_samples(root, folder, gap), *_tapping_samples(root, folder, gap))
  return Study(name=NAME, root=root, samples=samples, levels=LEVELS)


def windows(
  onsets: Sequence[float],
  edges: Sequence[float],
  *,
  delays: Sequence[float],
  length: float,
  gap: float,
) -> list[_LabelledWindow]:
  """Windows after onsets, and as many windows at rest (or all there are), in order of time.

  Args:
    onsets: in seconds.
    edges: between the blocks, and at both ends, in seconds, ascending.
    delays: from an onset to its windows, in seconds.
    length: of a window, in seconds.
    gap: least number of seconds between windows of neighbouring blocks.

  Raises:
    InputError: a block has no window after an onset, or none at rest.
  """
  times, found = np.asarray(onsets, float), []
  for block, (low, high) in enumerate(zip(edges, edges[1:])):
    low, high = low + gap / 2, high - gap / 2
    after = sorted(
      onset + delay
      for onset in onsets
      for delay in delays
      if low <= onset and onset + delay + length <= high
    )
    free = [
      start
      for start in np.arange(low, high - length, 0.25)
      if not np.any((start - _QUIET < times) & (times < start + length))
    ]
    if not after or not free:
      raise InputError(
        f'block {block + 1} of {len(edges) - 1}, {low:g} to {high:g} s, has no '
        f'window {"of rest" if after else "after an onset"}: take a shorter gap'
      )
    chosen = np.linspace(0, len(free) - 1, min(len(after), len(free))).round().astype(int)
    found += sorted(
      (
        _LabelledWindow(block=block, label=label, start=float(start), stop=float(start) + length)
        for label, starts in enumerate(([free[i] for i in chosen], after))
        for start in starts
      ),
      key=lambda window: window.start,
    )
  return found


def _picture_samples(root: Path, folder: Path, gap: float) -> list[Sample]:
  onsets = signals.read_onsets(root)
  pauses = np.flatnonzero(np.diff(onsets) > _SERIES_GAP)
  edges = [_PICTURES[0], *(float(onsets[i] + onsets[i + 1]) / 2 for i in pauses), _PICTURES[1]]
  path = folder / 'pictures.csv'
  if not path.is_file():
    _write_table(
      path,
      {
        column: signals.read_channel(root, _RECORDING, column)
        for column in PICTURE_COLUMNS.values()
      },
    )
  places = {
    modality: Locator(path=path, columns=(column,), rate=float(signals.RATE))
    for modality, column in PICTURE_COLUMNS.items()
  }
  found = windows(onsets, edges, delays=signals.STIMULUS_DELAYS, length=signals.WINDOW, gap=gap)
  return [_sample('pictures', window, places, first_level=0) for window in found]


def _tapping_samples(root: Path, folder: Path, gap: float) -> list[Sample]:
  recording = fnirs.read_recording(root)
  edges = np.linspace(*_TAPPING, _TAPPING_BLOCKS + 1).tolist()
  kept = fnirs.good_channels(recording)
  columns = tuple(f'channel {channel} HbO' for channel in kept)
  path = folder / 'tapping.csv'
  if not path.is_file():
    _write_table(path, dict(zip(columns, _oxygenated(recording, kept, edges).T)))
  places = {'fnirs': Locator(path=path, columns=columns, rate=recording.rate)}
  found = windows(recording.onsets, edges, delays=_TAPPING_DELAYS, length=fnirs.WINDOW, gap=gap)
  return [_sample('tapping', window, places, first_level=2) for window in found]


def _oxygenated(
  recording: fnirs.TappingRecording, kept: np.ndarray, edges: list[float]
) -> np.ndarray:
  """float64 [n, channels], micromolar, each block converted by itself; 0 outside of all."""
  rows = [round(edge * recording.rate) for edge in edges]
  result = np.zeros((len(recording.intensity), len(kept)))
  for first, last in zip(rows, rows[1:]):
    density = optical_density(recording.intensity[first:last, kept])
    changes = haemoglobin(
      density, wavelengths=recording.wavelengths, distance=recording.distance[kept]
    )
    part = band_pass(changes[..., 0], recording.rate, low=_BAND[0], high=_BAND[1])
    result[first : first + len(part)] = part
  return result


def _sample(
  recording: str, window: _LabelledWindow, places: Mapping[str, Locator], *, first_level: int
) -> Sample:
  def cut(place: Locator) -> Locator:
    first = round(window.start * place.rate)
    return dataclasses.replace(
      place, start=first, stop=first + round((window.stop - window.start) * place.rate)
    )

  return Sample(
    subject=f'{recording}, block {window.block + 1}',
    name=f'{recording} {window.start:.3f}-{window.stop:.3f} s',
    level=first_level + window.label,
    data={modality: cut(place) for modality, place in places.items()},
  )


def _write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
  values = np.column_stack(list(columns.values()))
  line = ','.join(['%.7g'] * values.shape[1]) + '\n'

  def write(file):
    file.write((','.join(columns) + '\n').encode())
    for start in range(0, len(values), 65536):
      part = values[start : start + 65536]
      file.write((line * len(part) % tuple(part.ravel().tolist())).encode())

  write_atomically(path, write)
