"""Images from files of signals: windows of ECG, EMG, GSR and fNIRS, each drawn as an image."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from painformer_jax.core.config_fields import read_settings
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.reader import LocatedImage, Log
from painformer_jax.modalities import cleaning, fnirs, signal_files
from painformer_jax.modalities.names import SIGNALS
from painformer_jax.modalities.quality import Tally, examine, trim
from painformer_jax.modalities.windows import SignalConfig, SignalDrawer, windows

_DEFAULTS = SignalConfig()


_DEFAULTS = SignalConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channel:
  """One signal of a file: its name, values (float64 [n]) and rate in Hz."""

  name: str
  values: np.ndarray
  rate: float


class SignalReader:
  """A `Reader` of .csv, .tsv, .npy, .npz, .parquet and (fNIRS) .snirf files.

  One file's channels are in memory at a time.

  Args:
    modality: one of `names.SIGNALS`.
    config: see `SignalConfig`.
    rate: samples a second, Hz; 0 if all files are .snirf files, which contain it.
    columns: names or numbers of the columns that are the channels; empty if there is one.
      In .snirf files names of channels, or 'hbo' or 'hbr' for all of that kind; empty for
      all.
    key: name of the array in an .npz file; '' if there is one.

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
    config: SignalConfig = _DEFAULTS,
    *,
    rate: float = 0.0,
    columns: Sequence[str] = (),
    key: str = '',
  ):
    if modality not in SIGNALS:
      raise InputError(f'modalities of signals are {", ".join(SIGNALS)}, not {modality}')
    if not 0 <= rate < math.inf or (modality != 'fnirs' and not rate):
      raise InputError(f'{modality} needs a sampling rate above 0 Hz (--rate)')
    config = dataclasses.replace(config, representations=config.of(modality))
    if config.clean:
      if modality not in cleaning.METHODS:
        raise InputError(f'there is no cleaning for {modality}')
      # A missing package or too low a rate is found before any file is read.
      cleaning.clean(np.zeros(int(10 * rate) + 100), rate, modality=modality)
    spectra = set(config.representations) - {'waveform'}
    segment = config.images.spectrogram.segment
    if rate and config.window and spectra and round(config.window * rate) < segment:
      raise InputError(
        f'windows of {config.window:g} s at {rate:g} Hz have '
        f"{round(config.window * rate)} samples, a spectrogram's segment {segment}: take "
        'longer windows, a shorter segment in the settings, or waveforms alone'
      )
    self.modality, self._config = modality, config
    self._rate, self._columns, self._key = rate, tuple(columns), key
    self.suffixes = frozenset(signal_files.SUFFIXES) | (
      {'.snirf'} if modality == 'fnirs' else set()
    )
    record = dataclasses.asdict(config)
    for part in record['images'].values():
      del part['height'], part['width']
    self.settings = json.dumps(
      {'rate': rate, 'columns': columns, 'key': key} | record, sort_keys=True
    )
    self._tally = Tally()

  @classmethod
  def from_settings(
    cls,
    modality: str,
    settings: str | os.PathLike | None,
    *,
    rate: float | None = None,
    columns: Sequence[str] | None = None,
    key: str | None = None,
    **options,
  ) -> 'SignalReader':
    """A reader by a JSON file of settings, if any, and options; see `read_settings`."""
    config = read_settings(SignalConfig, settings, **options)
    return cls(modality, config, rate=rate or 0.0, columns=columns or (), key=key or '')

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
    for channel in self._channels(name):
      values, cut = trim(channel.values)
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
      for window in windows(len(values), channel.rate, config):
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
    if not tally.kept:
      raise InputError(f'{name}: {tally}')
    if str(tally):
      log(f'{name}: {tally}')

  def remarks(self) -> str:
    return str(self._tally)

  def _count(self, quality, tally: Tally) -> None:
    tally.add(quality)
    self._tally.add(quality)

  def _channels(self, name: str) -> Iterator[Channel]:
    if name.lower().endswith('.snirf'):
      yield from self._snirf_channels(name)
      return
    if not self._rate:
      raise InputError(f'{name}: its sampling rate is not known; give it (--rate)')
    if not name.lower().endswith(signal_files.SUFFIXES):
      raise InputError(f'{name} is no file of signals ({", ".join(sorted(self.suffixes))})')
    for column in self._columns or ('',):
      span = signal_files.SignalSpan(file=name, rate=self._rate, key=self._key, column=column)
      yield Channel(name=column, values=signal_files.read_span('', span), rate=self._rate)

  def _snirf_channels(self, name: str) -> Iterator[Channel]:
    if self.modality != 'fnirs':
      raise InputError(f'{name} holds fNIRS, not {self.modality}')
    recording = fnirs.read_snirf(name, pathlength_factor=self._config.pathlength_factor)
    known = {*recording.channels, 'hbo', 'hbr'}
    for column in self._columns:
      if column not in known:
        raise InputError(
          f"{name} has no channel '{column}' (there: {', '.join(recording.channels[:8])})"
        )
    for label, values in zip(recording.channels, recording.signals):
      if not self._columns or {label, label.split()[-1]} & set(self._columns):
        yield Channel(name=label, values=values, rate=recording.rate)
