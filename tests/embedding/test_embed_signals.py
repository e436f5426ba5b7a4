"""Rows of signals: windows, files, what is left out, cleaning, fNIRS."""

import importlib.util

import numpy as np
import pytest
from row_readers import WAVES, rows_of, signals, table
from test_fnirs import light, needs_mne, write_snirf
from test_signal_windows import beats
from test_video import write_video

from painformer_jax.core.errors import InputError
from painformer_jax.data.demo.fetch import default_cache_dir
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.embedding.signals import SignalReader
from painformer_jax.modalities import biosignal, spectrogram, waveform
from painformer_jax.modalities.biosignal import BiosignalConfig
from painformer_jax.modalities.quality import QualityRules
from painformer_jax.modalities.spectrogram import SpectrogramConfig
from painformer_jax.modalities.waveform import WaveformConfig
from painformer_jax.modalities.windows import SignalConfig


def test_windows_channels_and_representations(tmp_path):
  path = table(
    tmp_path / 'a.csv', time=np.arange(700) / 100, one=beats(100, 7), two=beats(100, 7, 1)
  )
  reader = signals(
    columns=('two', '1'),
    window=3.0,
    step=2.0,
    images=BiosignalConfig(spectrogram=SpectrogramConfig(segment=64, overlap=32)),
  )
  rows, said = rows_of(reader, path)
  assert said == [] and reader.remarks() == ''
  assert len(rows) == reader.total([str(path)]) == 2 * 3 * 4
  places = [row.location for row in rows]
  assert [p['channel'] for p in places[::12]] == ['two', '1']
  assert [(p['start'], p['stop']) for p in places[:12:4]] == [(0, 3), (2, 5), (4, 7)]
  assert [p['representation'] for p in places[:4]] == list(biosignal.REPRESENTATIONS)
  # The third window of the first channel, as the modality draws it.
  np.testing.assert_array_equal(
    rows[8].image,
    waveform.waveform_image(beats(100, 7, 1)[400:700], WaveformConfig(height=32, width=32)),
  )
  np.testing.assert_array_equal(
    rows[11].image,
    spectrogram.spectrogram_image(
      beats(100, 7, 1)[400:700], 100, SpectrogramConfig(height=32, width=32, segment=64, overlap=32)
    ),
  )
  assert rows[8].caption == 'two waveform 4-7 s'


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.txt', '.npy', '.npz'])
def test_every_kind_of_file(tmp_path, suffix):
  values, path = beats(100, 4), tmp_path / f'a{suffix}'
  if suffix == '.npy':
    np.save(path, values)
  elif suffix == '.npz':
    np.savez(path, x=values, y=values[:9])
  else:
    table(path, delimiter=',' if suffix == '.csv' else '\t', x=values)
  rows, _ = rows_of(signals(representations=WAVES, key='x' if suffix == '.npz' else ''), path)
  [row] = rows
  assert row.location == {
    'start': 0,
    'stop': 4,
    'channel': '' if suffix == '.npy' else 'x',
    'representation': 'waveform',
    'quality': '',
  }
  np.testing.assert_array_equal(
    row.image, waveform.waveform_image(values, WaveformConfig(height=32, width=32))
  )


def test_windows_do_not_drift_at_odd_rates(tmp_path):
  np.save(tmp_path / 'a.npy', beats(512, 200)[:100_000])
  rows, _ = rows_of(signals(rate=10.17, window=2.5, representations=WAVES), tmp_path / 'a.npy')
  starts = np.array([row.location['start'] for row in rows])
  np.testing.assert_allclose(starts, 2.5 * np.arange(len(rows)), atol=0.06)


def test_troubled_windows_are_left_out_or_marked_and_counted(tmp_path):
  values = np.concatenate(
    [[np.nan] * 50, beats(100, 6), np.full(200, 3.0), np.minimum(beats(100, 2), 0.3), [np.nan] * 30]
  )
  values[75:85] = np.nan
  values[270:370] = np.nan
  np.save(tmp_path / 'a.npy', values)
  reader = signals(window=2.0, representations=WAVES)
  rows, said = rows_of(reader, tmp_path / 'a.npy')
  # Padding is cut off in front: windows begin at 0.5 s.
  assert [(r.location['start'], r.location['quality']) for r in rows] == [
    (0.5, 'gaps'),
    (4.5, ''),
    (8.5, 'clipped'),
  ]
  assert reader.remarks() == (
    '2 of 5 windows left out (1 gaps, 1 flat); drawn in spite of troubles: 1 gaps, 1 clipped'
  )
  assert said == [f'{tmp_path / "a.npy"}: {reader.remarks()}']


def test_a_short_recording_is_one_short_window(tmp_path):
  np.save(tmp_path / 'a.npy', beats(100, 3))
  rows, _ = rows_of(signals(window=5.0, representations=WAVES), tmp_path / 'a.npy')
  assert [(r.location['stop'], r.location['quality']) for r in rows] == [(3, 'short')]
  with pytest.raises(InputError, match=r'a.npy: 1 of 1 windows left out \(1 short\)'):
    rows_of(signals(window=7.0, representations=WAVES), tmp_path / 'a.npy')


@pytest.mark.parametrize('values', [np.full(300, np.nan), np.zeros(300)])
def test_a_file_of_nothing_is_bad(tmp_path, values):
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(InputError, match='a.npy: 1 of 1 windows left out'):
    rows_of(signals(), tmp_path / 'a.npy')


@pytest.mark.parametrize(
  'columns, content, words',
  [
    (('x',), 'a,b\n1,2\n3,4\n', "no column 'x'"),
    ((), 'a,b\n1,2\n3,4\n', "name the 'column'"),
    (('b',), 'a,b\n1,x\n3,y\n', 'not all numbers'),
    ((), 'a\n1\n2\n', 'needs 2.56 s'),
    (('a',), '', 'is empty'),
  ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, columns, content, words):
  (tmp_path / 'a.csv').write_text(content)
  with pytest.raises(InputError, match=f'a.csv:? .*({words})') as caught:
    rows_of(signals(columns=columns), tmp_path / 'a.csv')
  assert 'manifest' not in str(caught.value)


def test_files_of_another_kind_are_named(tmp_path):
  write_video(tmp_path / 'a.mp4', 3)
  with pytest.raises(InputError, match='a.mp4 is no file of signals'):
    rows_of(signals(), tmp_path / 'a.mp4')
  with pytest.raises(InputError, match='cannot be read: No such'):
    rows_of(signals(), tmp_path / 'absent.csv')


@pytest.mark.skipif(
  importlib.util.find_spec('neurokit2') is None, reason='neurokit2 is not installed'
)
def test_cleaning_acts_on_the_whole_recording(tmp_path):
  from painformer_jax.modalities import cleaning

  values = beats(512, 12) + np.sin(2 * np.pi * 50 * np.arange(6144) / 512)
  np.save(tmp_path / 'a.npy', values)
  rows, _ = rows_of(
    signals(rate=512.0, window=4.0, clean=True, representations=WAVES), tmp_path / 'a.npy'
  )
  cleaned = cleaning.clean(values, 512, modality='ecg')
  np.testing.assert_array_equal(
    rows[1].image, waveform.waveform_image(cleaned[2048:4096], WaveformConfig(height=32, width=32))
  )


@needs_mne
@pytest.mark.parametrize(
  'columns, channels',
  [
    ((), ['S1_D1 hbo', 'S1_D1 hbr', 'S2_D2 hbo', 'S2_D2 hbr']),
    (('hbo',), ['S1_D1 hbo', 'S2_D2 hbo']),
    (('S2_D2 hbr',), ['S2_D2 hbr']),
  ],
)
def test_one_waveform_a_channel_of_fnirs(tmp_path, columns, channels):
  reader = SignalReader('fnirs', SignalConfig(), columns=columns)
  rows, _ = rows_of(reader, write_snirf(tmp_path / 'a.snirf'))
  assert [row.location['channel'] for row in rows] == channels
  assert {row.location['representation'] for row in rows} == {'waveform'}


@needs_mne
def test_fnirs_without_light_or_channel(tmp_path):
  values = light()
  values[:, 0] = np.nan
  reader = SignalReader('fnirs', SignalConfig())
  rows, said = rows_of(reader, write_snirf(tmp_path / 'a.snirf', values))
  assert [r.location['channel'] for r in rows] == ['S2_D2 hbo', 'S2_D2 hbr']
  assert '400 samples of light in 1 channel not positive' in said[0]
  assert any('2 of 4 windows left out (2 empty)' in line for line in said)
  with pytest.raises(InputError, match="no channel 'S9_D9 hbo'"):
    rows_of(SignalReader('fnirs', columns=('S9_D9 hbo',)), tmp_path / 'a.snirf')
  with pytest.raises(InputError, match='holds fNIRS, not ecg'):
    rows_of(signals(), tmp_path / 'a.snirf')


def test_fnirs_in_a_table_needs_a_rate(tmp_path):
  path = table(tmp_path / 'a.csv', hbo=beats(10, 60), hbr=beats(10, 60, 1))
  with pytest.raises(InputError, match='a.csv: its sampling rate'):
    rows_of(SignalReader('fnirs', columns=('hbo',)), path)
  rows, _ = rows_of(SignalReader('fnirs', columns=('hbo', 'hbr'), rate=10.0), path)
  assert [row.location['channel'] for row in rows] == ['hbo'] * 6 + ['hbr'] * 6
  assert [row.location['stop'] for row in rows[:6]] == [10, 20, 30, 40, 50, 60]


def test_readers_refuse_other_modalities():
  for call in (
    lambda: PictureReader('ecg'),
    lambda: SignalReader('rgb', rate=5.0),
    lambda: PictureReader('face', network='a.onnx'),
    lambda: PictureReader('thermal', mesh=True),
  ):
    with pytest.raises(InputError):
      call()


def test_rules_in_the_config_are_followed(tmp_path):
  values = beats(100, 4)
  values[100:150] = np.nan
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(InputError, match='gaps'):
    rows_of(
      signals(representations=WAVES, quality=QualityRules(max_missing=0.1)), tmp_path / 'a.npy'
    )
  assert len(rows_of(signals(representations=WAVES), tmp_path / 'a.npy')[0]) == 1


@pytest.mark.demo_corpus
@pytest.mark.parametrize('name, modality', [('ECG', 'ecg'), ('EDA', 'gsr')])
def test_real_recordings_are_sound(name, modality):
  path = default_cache_dir() / f'systole-0.2.4/systole/datasets/Task1_{name}.npy'
  if not path.is_file():
    pytest.skip('the demo corpus is not there (painformer data demo)')
  reader = signals(modality, rate=1000.0, window=5.5, representations=WAVES)
  rows, said = rows_of(reader, path)
  # 25.6 minutes; nothing flat, missing or clipped.
  assert len(rows) == 279 == reader.total([str(path)]) and said == []
  assert {row.location['quality'] for row in rows} == {''}
