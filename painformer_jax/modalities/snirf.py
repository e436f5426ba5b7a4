"""Reads fNIRS from SNIRF files, by MNE-Python, and says what is odd in them."""

import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from painformer_jax.core.errors import InputError, counted, import_extra
from painformer_jax.modalities.fnirs import scalp_coupling
from painformer_jax.modalities.resampling import fill_gaps
from painformer_jax.modalities.sample_times import PLAUSIBLE, TimesError, regular_steps

# Below it a channel's optodes touch the scalp badly (Pollonini et al. 2014).
LEAST_COUPLING = 0.75
# Warnings of MNE about what is not used here: places on the head, dates, annotations,
# and arithmetic with what is missing; of uneven times there is a remark of our own.
_OF_NO_USE = (
  *('2D location', 'date', 'birthday', 'head coord', 'nnotation', 'jitter', 'sample rate'),
  *('invalid value', 'empty slice', 'divide by zero'),
)
# Uneven times are bridged up to this length, in steps; what is longer is missing.
_BRIDGED = 2.5
# A time unit of SNIRF -> seconds.
_UNITS = {'s': 1.0, 'unknown': 1.0, 'ms': 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FnirsRecording:
  """Haemoglobin over time.

  Attributes:
    signals: float64 [channels, n], micromolar; NaN where light or time is missing.
    channels: names, such as 'S1_D2 hbo' (oxygenated) or 'S1_D2 hbr'.
    rate: in Hz.
    remarks: what is odd in the file, each in one line.
  """

  signals: np.ndarray
  channels: tuple[str, ...]
  rate: float
  remarks: tuple[str, ...] = ()


def read_snirf(
  path: str | os.PathLike, *, pathlength_factor: float = 6.0, rate: float = 0.0
) -> FnirsRecording:
  """Reads a SNIRF file, and turns light into haemoglobin, by MNE-Python.

  Light intensity goes through optical density and the modified Beer-Lambert law;
  optical density through the latter; haemoglobin is taken as it is. Light that is not
  positive is missing. Uneven times are resampled to even ones, with gaps where they pause.
  Channels are not left out or filtered here; the remarks say whose scalp coupling is low.

  Args:
    pathlength_factor: see `fnirs.haemoglobin`.
    rate: in Hz, in place of the file's times; 0 to go by these.

  Raises:
    InputError: the package mne is not installed; the file is not readable, holds no
      continuous-wave fNIRS, or its times run backwards, are missing, too few or too many, or
      give a rate that no recorder has.
  """
  mne = import_extra('mne', extra='fnirs')
  if not os.path.isfile(path):
    raise InputError(f'{path} is not a file')
  remarks: list[str] = []
  try:
    with mne.use_log_level('WARNING'), warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      times = _times(path)
      if not rate and len(times) > 2 and times[-1] < times[0]:
        raise InputError(f'{path}: time runs backwards, from {times[0]:g} to {times[-1]:g}')
      raw = mne.io.read_raw_snirf(path, preload=True)
      kinds = set(raw.get_channel_types())
      dark = _dark(raw, remarks)
      if 'fnirs_cw_amplitude' in kinds:
        raw = mne.preprocessing.nirs.optical_density(raw)
      density = raw if 'fnirs_od' in raw.get_channel_types() else None
      if density is not None:
        raw = mne.preprocessing.nirs.beer_lambert_law(raw, ppf=pathlength_factor)
      wanted = [n for n, kind in enumerate(raw.get_channel_types()) if kind in ('hbo', 'hbr')]
      signals = raw.get_data()[wanted] * 1e6
  except InputError:
    raise
  # MNE and h5py raise errors of many kinds for damaged files.
  except Exception as error:
    raise InputError(
      f'{path} is not a readable SNIRF file ({" ".join(str(error).split())[:200]})'
    ) from error
  if not wanted:
    raise InputError(
      f'{path} holds no continuous-wave fNIRS, only {", ".join(sorted(kinds)) or "nothing"}'
    )
  channels = tuple(raw.ch_names[n] for n in wanted)
  for label, values in zip(channels, signals):
    values[dark.get(_pair(label), np.zeros(len(values), bool))] = np.nan
  samples, places = signals.shape[1], None
  if not rate:
    rate = float(raw.info['sfreq'])
    if len(times) not in (2, samples):
      raise InputError(f'{path} has {len(times)} times for {samples} samples')
    if len(times) == samples > 2:
      rate, places = _even(times, path, remarks)
    _check_rate(rate, samples, path)
  if places is not None:
    signals = _at(signals, times, places)
  if density is not None:
    values = density.get_data()
    if places is not None:
      values = _at(values, times, places)
    remarks += _coupling(values, density.ch_names, rate)
  remarks += _warned(caught)
  return FnirsRecording(signals=signals, channels=channels, rate=rate, remarks=tuple(remarks))


def _pair(label: str) -> str:
  """'S1_D2' of 'S1_D2 760'."""
  return label.split()[0]


def _dark(raw, remarks: list[str]) -> dict[str, np.ndarray]:
  """Pair of optodes -> where its light is not positive; bridges it there, in place.

  MNE would take the absolute values of such samples.
  """
  dark: dict[str, np.ndarray] = {}
  count = 0
  for number, kind in enumerate(raw.get_channel_types()):
    if kind != 'fnirs_cw_amplitude':
      continue
    values = raw._data[number]  # What preload=True has read; MNE has no other way to set it.
    bad = ~(np.isfinite(values) & (values > 0))
    if not bad.any():
      continue
    count += int(bad.sum())
    pair = _pair(raw.ch_names[number])
    dark[pair] = dark.get(pair, False) | bad
    values[bad] = np.nan
    if not bad.all():
      values[:] = fill_gaps(values)
  if dark:
    remarks.append(
      f'{counted(count, "sample")} of light in {counted(len(dark), "channel")} not positive, '
      'taken as missing'
    )
  return dark


def _times(path: str | os.PathLike) -> np.ndarray:
  """float64 [n], in seconds, as the file states them; two for a start and a step."""
  import h5py

  with h5py.File(path, 'r') as file:
    times = np.array(file['nirs/data1/time'], np.float64).reshape(-1)
    unit = file.get('nirs/metaDataTags/TimeUnit')
    text = np.array(unit).reshape(-1)[0] if unit is not None else 's'
  text = text.decode() if isinstance(text, bytes) else str(text)
  return times * _UNITS.get(text, 1.0)


def _check_rate(rate: float, samples: int, path: str | os.PathLike) -> None:
  """Refuses rates that no recorder of fNIRS has: the times have another unit than they say."""
  low, high = PLAUSIBLE['fnirs']
  if not low <= rate <= high:
    raise InputError(
      f'{path}: times of {samples / rate:.6g} s for {samples} samples give a rate of '
      f'{rate:.6g} Hz; their unit (TimeUnit) may be wrong'
    )


def _even(
  times: np.ndarray, path: str | os.PathLike, remarks: list[str]
) -> tuple[float, np.ndarray]:
  """The rate of a recording, and the even times at which its signals are wanted.

  Raises:
    InputError: times are missing or do not rise.
  """
  try:
    rate = 1 / regular_steps(times, where=lambda row: f'sample {row + 1}').step
    return rate, times
  except TimesError as error:
    steps = np.diff(times)
    if not (np.isfinite(times).all() and (steps > 0).all()):
      raise InputError(f'{path}: {error}') from error
    step = float(np.median(steps))
    pauses = int(np.count_nonzero(steps > _BRIDGED * step))
    places = np.arange(times[0], times[-1] + step / 2, step)
    remarks.append(
      f'times are uneven ({error}): resampled to {1 / step:.6g} Hz, {times[-1] - times[0]:.4g} s'
      + (f', with {counted(pauses, "gap")}' if pauses else '')
    )
    return 1 / step, places


def _at(signals: np.ndarray, times: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Signals [channels, n] at other times; NaN in pauses and where a neighbour is NaN."""
  if places is times:
    return signals
  after = np.clip(np.searchsorted(times, places), 1, len(times) - 1)
  step = float(np.median(np.diff(times)))
  pause = times[after] - times[after - 1] > _BRIDGED * step
  # A time of the file itself stays, even beside a pause.
  near = np.minimum(np.abs(places - times[after]), np.abs(places - times[after - 1]))
  pause &= near > step / 2
  result = np.stack([np.interp(places, times, values) for values in signals])
  result[:, pause] = np.nan
  return result


def _coupling(density: np.ndarray, labels: Sequence[str], rate: float) -> Iterator[str]:
  """A remark on channels whose optodes touch the scalp badly."""
  pairs: dict[str, list[np.ndarray]] = {}
  for label, values in zip(labels, density):
    if np.isfinite(values).any():
      pairs.setdefault(_pair(label), []).append(fill_gaps(values))
  whole = {pair: values for pair, values in pairs.items() if len(values) == 2}
  if not whole:
    return
  try:
    index = scalp_coupling(np.stack([np.stack(v, axis=-1) for v in whole.values()], axis=1), rate)
  except InputError:  # Too slow or too short to hold a heartbeat.
    return
  low = {pair: value for pair, value in zip(whole, index) if value < LEAST_COUPLING}
  if low:
    named = ', '.join(f'{pair} {value:.2f}' for pair, value in list(low.items())[:3])
    more = f' and {len(low) - 3} more' if len(low) > 3 else ''
    yield (
      f'{len(low)} of {counted(len(whole), "channel")} with a scalp coupling index below '
      f'{LEAST_COUPLING}: {named}{more}'
    )


def _warned(caught: Sequence[warnings.WarningMessage]) -> Iterator[str]:
  """MNE's own warnings, each once."""
  texts = dict.fromkeys(
    ' '.join(str(each.message).split()) for each in caught if each.category is RuntimeWarning
  )
  for text in texts:
    if not any(part in text for part in _OF_NO_USE):
      yield f'MNE: {text}'
