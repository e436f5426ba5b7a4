"""Images from files of signals: windows of ECG, EMG, GSR and fNIRS, each drawn as an image."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from painformer_jax.core.config_fields import read_settings
from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.progress import Log
from painformer_jax.core.text_format import is_workbook
from painformer_jax.embedding.reader import LocatedImage
from painformer_jax.modalities import cleaning, signal_files, snirf
from painformer_jax.modalities.names import SIGNALS, modality_of
from painformer_jax.modalities.quality import Tally, examine, trim
from painformer_jax.modalities.sample_times import TOLERANCE, TimesError
from painformer_jax.modalities.windows import SignalConfig, SignalDrawer, windows

# Length of a window in seconds where none is given. BioVid's samples, as the paper draws
# them, last 5.5 s; AI4Pain's stimuli, which haemoglobin answers slowly, last 10 s.
WINDOWS = {'ecg': 5.5, 'emg': 5.5, 'gsr': 5.5, 'fnirs': 10.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channel:
  """One signal of a file: its name, values (float64 [n]) and rate in Hz."""

  name: str
  values: np.ndarray
  rate: float


class SignalReader:
  """A `Reader` of .csv, .tsv, .txt, .npy, .npz, .parquet and (fNIRS) .snirf files.

  One file's channels are in memory at a time.

  Args:
    modality: one of `names.SIGNALS`, or an alias of one.
    config: see `SignalConfig`; None for its defaults in windows of `WINDOWS`.
    rate: samples a second, Hz; 0 to take it from the files: from .snirf files, and from
      columns of times.
    columns: names or numbers of the columns that are the channels; empty if there is one
      beside times. In .snirf files names of channels, or 'hbo' or 'hbr' for all of that
      kind; empty for all.
    key: name of the array in an .npz file; '' if there is one.
    time: name or number of the column of times; '' to find it, 'none' to go by `rate`
      alone.

  Raises:
    InputError: an option is invalid.
  """

  columns = {
    'start': np.float64,
    'stop': np.float64,
    'channel': str,
    'representation': str,
    'quality': str,
  }
  stand_in = ''

  def __init__(
    self,
    modality: str,
    config: SignalConfig | None = None,
    *,
    rate: float = 0.0,
    columns: Sequence[str] = (),
    key: str = '',
    time: str = '',
  ):
    modality = modality_of(modality)
    if modality not in SIGNALS:
      raise InputError(f'modalities of signals are {", ".join(SIGNALS)}, not {modality}')
    if not 0 <= rate < math.inf:
      raise InputError(f'{modality} needs a sampling rate above 0 Hz (--rate), not {rate:g}')
    if time == signal_files.NO_TIMES and not rate:
      raise InputError(f'{modality} without times needs a sampling rate (--rate)')
    config = config or SignalConfig(window=WINDOWS[modality])
    config = dataclasses.replace(config, representations=config.of(modality))
    if config.clean:
      if modality not in cleaning.METHODS:
        raise InputError(f'there is no cleaning for {modality}')
      # A missing package or too low a rate is found before any file is read.
      cleaning.clean(np.zeros(int(10 * (rate or 1000)) + 100), rate or 1000, modality=modality)
    _check_window(config, rate)
    twice = [column for n, column in enumerate(columns) if column in columns[:n]]
    if twice:
      raise InputError(f"--column names '{twice[0]}' twice")
    self.modality, self._config = modality, config
    self._rate, self._columns, self._key, self._time = rate, tuple(columns), key, time
    self.suffixes = frozenset(signal_files.SUFFIXES) | (
      {'.snirf'} if modality == 'fnirs' else set()
    )
    record = dataclasses.asdict(config)
    for part in record['images'].values():
      del part['height'], part['width']
    self.settings = json.dumps(
      {'rate': rate, 'columns': columns, 'key': key, 'time': time} | record, sort_keys=True
    )
    self._tally = Tally()
    self._rest = 0.0
    self._assumed: set[str] = set()

  @classmethod
  def from_settings(
    cls,
    modality: str,
    settings: str | os.PathLike | None,
    *,
    rate: float | None = None,
    columns: Sequence[str] | None = None,
    key: str | None = None,
    time: str | None = None,
    **options,
  ) -> 'SignalReader':
    """A reader by a JSON file of settings, if any, and options; see `read_settings`.

    Windows have the length of `WINDOWS` where neither gives one.

    Raises:
      InputError: an option is invalid; a rate of 0 is, too.
    """
    if rate is not None and not rate > 0:
      raise InputError(f'{modality} needs a sampling rate above 0 Hz (--rate), not {rate:g}')
    defaults = {'window': WINDOWS.get(modality_of(modality), 0.0)}
    config = read_settings(SignalConfig, settings, defaults=defaults, **options)
    return cls(
      modality, config, rate=rate or 0.0, columns=columns or (), key=key or '', time=time or ''
    )

  def total(self, files: Sequence[str]) -> int:
    for name in files:
      try:
        spans = sum(
          1
          for c in self._channels(name)
          for _ in windows(len(trim(c.values)[0]), c.rate, self._config)
        )
      except InputError:
        continue
      return spans * len(self._config.representations) * len(files)
    return 0

  def images(self, name: str, *, image_size: int, log: Log) -> Iterator[LocatedImage]:
    config, tally = self._config, Tally()
    for channel in self._channels(name, log=log):
      values, cut = trim(channel.values)
      try:
        _check_window(config, channel.rate)
      except InputError as error:
        raise InputError(f'{name}: {error}') from error
      if not len(values):
        self._count(examine(channel.values, rules=config.quality), tally)
        continue
      drawer = SignalDrawer(
        values,
        channel.rate,
        config,
        modality=self.modality,
        cleaned_as=self.modality,
        image_size=image_size,
      )
      last = 0
      for window in windows(len(values), channel.rate, config):
        last = window.stop
        try:
          quality, drawn = drawer.draw(window)
        except InputError as error:
          raise InputError(f'{name}: {error}') from error
        self._count(quality, tally)
        begin, end = ((cut + sample) / channel.rate for sample in (window.start, window.stop))
        for representation, image in drawn.items():
          yield LocatedImage(
            image=image,
            source=name,
            caption=' '.join(
              filter(
                None, (channel.name, representation, f'{begin:g}-{end:g} s', *quality.troubles)
              )
            ),
            location={
              'start': begin,
              'stop': end,
              'channel': channel.name,
              'representation': representation,
              'quality': ','.join(quality.troubles),
            },
          )
      self._rest += (len(values) - last) / channel.rate
    if not tally.kept:
      raise InputError(f'{name}: {tally}')
    if str(tally):
      log(f'{name}: {tally}')

  def remarks(self) -> str:
    rest = f'{self._rest:.3g} s at the ends are no whole window' if self._rest else ''
    return '; '.join(filter(None, (str(self._tally), rest)))

  def _count(self, quality, tally: Tally) -> None:
    tally.add(quality)
    self._tally.add(quality)

  def _channels(self, name: str, log: Log | None = None) -> Iterator[Channel]:
    if name.lower().endswith('.snirf'):
      yield from self._snirf_channels(name, log)
      return
    if is_workbook(name):
      raise InputError(f'{name} is a workbook: save its sheet as CSV')
    if not name.lower().endswith(signal_files.SUFFIXES):
      raise InputError(f'{name} is no file of signals ({", ".join(sorted(self.suffixes))})')
    try:
      found = signal_files.recorded_rate(
        name, stated=self._rate, modality=self.modality, key=self._key, time=self._time
      )
    except TimesError as error:
      raise InputError(f'{error}; --time none goes by --rate alone') from error
    # The files of a folder are mostly alike: what was assumed is said once.
    if log and found.remark and found.remark not in self._assumed:
      self._assumed.add(found.remark)
      log(f'{name}: {found.remark}')
    for column in self._columns or ('',):
      span = signal_files.SignalSpan(
        file=name, rate=found.hertz, key=self._key, column=column, time=self._time
      )
      values = signal_files.read_span('', span)
      label = signal_files.channel_name(name, column=column, key=self._key, time=self._time)
      yield Channel(name=label, values=values, rate=found.hertz)

  def _snirf_channels(self, name: str, log: Log | None) -> Iterator[Channel]:
    if self.modality != 'fnirs':
      raise InputError(f'{name} holds fNIRS, not {self.modality}')
    recording = snirf.read_snirf(
      name,
      pathlength_factor=self._config.pathlength_factor,
      rate=self._rate if self._time == signal_files.NO_TIMES else 0.0,
    )
    for remark in recording.remarks if log else ():
      log(f'{name}: {remark}')
    if self._rate and abs(recording.rate / self._rate - 1) > TOLERANCE:
      raise InputError(
        f'{name} was recorded at {recording.rate:.6g} Hz, the stated rate is {self._rate:g} Hz; '
        '--time none goes by --rate alone'
      )
    known = {*recording.channels, 'hbo', 'hbr'}
    for column in self._columns:
      if column not in known:
        raise InputError(
          f"{name} has no channel '{column}' (there: {', '.join(recording.channels[:8])})"
        )
    for label, values in zip(recording.channels, recording.signals):
      if not self._columns or {label, label.split()[-1]} & set(self._columns):
        yield Channel(name=label, values=values, rate=recording.rate)


def _check_window(config: SignalConfig, rate: float) -> None:
  """Refuses windows and steps that are too short at a rate; 0 Hz is not known yet."""
  if not (rate and config.window):
    return
  if 0 < config.step * rate < 1:
    raise InputError(f'a step of {config.step:g} s is shorter than a sample at {rate:g} Hz')
  samples, segment = round(config.window * rate), config.images.spectrogram.segment
  what = f'windows of {config.window:g} s at {rate:g} Hz have {counted(samples, "sample")}'
  if samples < 2:
    raise InputError(f'{what}: take longer windows (--window)')
  if set(config.representations) - {'waveform'} and samples < segment:
    raise InputError(
      f"{what}, a spectrogram's segment {segment}: take longer windows (--window), a shorter "
      'segment in the settings, or waveforms alone (--representation waveform)'
    )
