"""Rates, times and formats of recordings, as `painformer embed` takes them."""

import json

import numpy as np
import pytest
from command_line import assert_refused, run_command
from row_readers import WAVES, rows_of, signals, table
from test_cli_embed import read
from test_signal_windows import beats

from painformer_jax.core.errors import InputError
from painformer_jax.embedding.signals import SignalReader
from painformer_jax.modalities import waveform
from painformer_jax.modalities.waveform import WaveformConfig
from painformer_jax.modalities.windows import SignalConfig

ECG = beats(512, 12)
TIMES = np.arange(len(ECG)) / 512


def reader(modality='ecg', **options):
  return SignalReader.from_settings(modality, None, representations=WAVES, **options)


def windows_of(path, modality='ecg', **options):
  """Start and stop of each window, and what was said."""
  rows, said = rows_of(reader(modality, **options), path)
  return [(row.location['start'], row.location['stop']) for row in rows], said


# --- the length of windows ----------------------------------------------------


def test_a_long_recording_is_cut_by_its_own_times(stored, tmp_path):
  """A minute at 1000 Hz was one image, and 117 s at the rate that the README showed."""
  path = table(tmp_path / 'ecg.csv', time=np.arange(60_000) / 1000, ecg=beats(1000, 60))
  command = ('embed', path, '--modality', 'ecg', '--column', 'ecg', '--weights', stored)
  waves = ('--representation', 'waveform', '--batch-size', 8, '--out', tmp_path / 'out.npz')
  done = run_command(*command, *waves)
  assert done.returncode == 0, done.stderr
  arrays = read(tmp_path / 'out.npz')
  assert arrays['embedding'].shape == (10, 32)
  np.testing.assert_allclose(arrays['start'], 5.5 * np.arange(10))
  np.testing.assert_allclose(arrays['stop'], 5.5 * np.arange(1, 11))
  assert json.loads(str(arrays['settings']))['window'] == 5.5
  assert "1000 Hz by column 'time', taken as seconds" in done.stderr
  assert '5 s at the ends are no whole window' in done.stdout
  (tmp_path / 'out.npz').unlink()
  assert_refused(run_command(*command, *waves, '--rate', 512), path, 'time', '1000 Hz', '512 Hz')
  assert not (tmp_path / 'out.npz').exists()


def test_the_whole_recording_on_request(tmp_path):
  np.save(tmp_path / 'a.npy', ECG)
  assert windows_of(tmp_path / 'a.npy', rate=512.0, window=0.0)[0] == [(0, 12)]
  assert windows_of(tmp_path / 'a.npy', rate=512.0)[0] == [(0, 5.5), (5.5, 11)]
  (tmp_path / 's.json').write_text('{"window": 4}')
  by_settings = SignalReader.from_settings(
    'ecg', tmp_path / 's.json', rate=512.0, representations=WAVES
  )
  assert len(rows_of(by_settings, tmp_path / 'a.npy')[0]) == 3
  slow = windows_of(tmp_path / 'a.npy', 'fnirs', rate=512.0)
  assert slow[0] == [(0, 10)]


def test_windows_of_a_few_samples_are_refused(tmp_path):
  path = table(tmp_path / 'a.csv', time_s=np.arange(400) / 4, eda=beats(4, 100))
  with pytest.raises(InputError, match='a.csv: windows of 5.5 s at 4 Hz have 22 samples'):
    rows_of(SignalReader('gsr'), path)
  assert len(windows_of(path, 'gsr')[0]) == 18


def test_eda_is_gsr(tmp_path):
  assert reader('eda', rate=4.0).modality == reader('EDA', rate=4.0).modality == 'gsr'
  done = run_command(
    'embed', 'x', '--modality', 'eda', '--rate', -1, '--weights', 'w', '--out', 'o'
  )
  assert_refused(done, 'gsr needs a sampling rate')


# --- times ---------------------------------------------------------------------


@pytest.mark.parametrize(
  'name, scale, options',
  [
    ('time_ms', 1e3, {}),
    ('T [s]', 1, {}),
    ('Time (µs)', 1e6, {}),
    ('time', 1, {'rate': 512.0}),
    ('time', 1e6, {'rate': 512.0}),
    ('when', 1e3, {'time': 'when'}),
    ('when', 1e3, {'time': '0'}),
    ('sample', 512, {'rate': 512.0}),
    ('time', 700, {'rate': 512.0, 'time': 'none'}),
  ],
)
def test_the_rate_by_a_column_of_times(tmp_path, name, scale, options):
  path = table(tmp_path / 'a.csv', **{name: TIMES * scale, 'ecg': ECG})
  found, said = windows_of(path, **options)
  assert found == [(0, 5.5), (5.5, 11)]
  assert bool(said) == (name == 'when')


def faulty(kind):
  times = TIMES.copy()
  if kind == 'jump':
    times[3000:] += 2
  elif kind == 'backwards':
    times[3000:] -= 3
  elif kind == 'blank':
    times[3000] = np.nan
  return times


@pytest.mark.parametrize(
  'kind, words',
  [('jump', 'time jumps'), ('backwards', 'time runs backwards'), ('blank', 'has no time')],
)
def test_faulty_times_name_their_line(tmp_path, kind, words):
  path = table(tmp_path / 'a.csv', time=faulty(kind), ecg=ECG)
  for options in {}, {'rate': 512.0}:
    with pytest.raises(InputError, match=f"a.csv, line 3002, column 'time':? {words}"):
      windows_of(path, **options)
  assert len(windows_of(path, rate=512.0, time='none')[0]) == 2


def test_a_rate_that_is_not_known(stored, tmp_path):
  path = table(tmp_path / 'a.csv', ecg=ECG)
  done = run_command(
    'embed', path, '--modality', 'ecg', '--weights', stored, '--out', tmp_path / 'out.npz'
  )
  assert_refused(done, path, 'sampling rate', '--rate', 'out.npz was not written')
  ambiguous = table(tmp_path / 'b.csv', time=np.arange(400) / 4, eda=beats(4, 100))
  with pytest.raises(InputError, match='b.csv, line 2, .*4 Hz .* or 4000 Hz .*--rate'):
    windows_of(ambiguous, 'gsr')


@pytest.mark.parametrize('column', ['time', 'TIME', '0'])
@pytest.mark.parametrize('name', ['time', 'sample', 'x'])
def test_times_are_no_signal(tmp_path, column, name):
  path = table(tmp_path / 'a.csv', **{name: TIMES * (512 if name == 'sample' else 1), 'ecg': ECG})
  asked = column if column == '0' else name.upper() if column == 'TIME' else name
  with pytest.raises(InputError, match=f"a.csv: column '{name}' holds times or numbers"):
    windows_of(path, columns=(asked,), rate=512.0)
  rows, _ = rows_of(reader(rate=512.0), path)  # The other one, where none is named.
  np.testing.assert_array_equal(
    rows[0].image, rows_of(reader(rate=512.0), save(tmp_path))[0][0].image
  )


def save(folder):
  np.save(folder / 'plain.npy', ECG)
  return folder / 'plain.npy'


def test_times_in_arrays(tmp_path):
  np.savez(tmp_path / 'a.npz', time=TIMES, ecg=ECG, subject=np.array(3))
  np.save(tmp_path / 'a.npy', np.stack([TIMES, ECG], axis=1))
  assert windows_of(tmp_path / 'a.npz')[0] == [(0, 5.5), (5.5, 11)]
  assert windows_of(tmp_path / 'a.npy', columns=('1',))[0] == [(0, 5.5), (5.5, 11)]
  for name, options in (('a.npz', {}), ('a.npy', {'columns': ('1',)})):
    with pytest.raises(InputError, match=f'{name}, row 0, .*512 Hz .*256 Hz'):
      windows_of(tmp_path / name, rate=256.0, **options)
  with pytest.raises(InputError, match="a.npz: array 'time' holds times"):
    windows_of(tmp_path / 'a.npz', key='time', rate=512.0)
  with pytest.raises(InputError, match="a.npy: column '0' holds times"):
    windows_of(tmp_path / 'a.npy', columns=('0',), rate=512.0)


def test_a_rate_in_the_file(tmp_path):
  np.savez(tmp_path / 'a.npz', ecg=ECG, fs=512)
  (tmp_path / 'a.npz').rename(tmp_path / 'a.NPZ')
  assert windows_of(tmp_path / 'a.NPZ')[0] == [(0, 5.5), (5.5, 11)]
  with pytest.raises(InputError, match="a.NPZ, row 0, column 'fs': .*512 Hz .*256 Hz"):
    windows_of(tmp_path / 'a.NPZ', rate=256.0)


# --- formats -------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.CSV', 'a.tsv', 'a.TSV'])
@pytest.mark.parametrize('separator, decimal', [(';', ','), ('\t', ','), ('\t', '.'), (';', '.')])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'latin-1'])
def test_tables_as_other_programs_write_them(tmp_path, name, separator, decimal, encoding):
  values = np.round(ECG, 4)
  lines = [f'Zeit [ms]{separator}Pr\xfcfung{separator}ECG (mV)']
  lines += [
    f'{1000 * t:.4f}{separator}{separator}{v:.4f}'.replace('.', decimal)
    for t, v in zip(TIMES, values)
  ]
  (tmp_path / name).write_bytes('\r\n'.join(lines).encode(encoding))
  rows, said = rows_of(reader(columns=('ecg',)), tmp_path / name)
  assert said == [] and [row.location['stop'] for row in rows] == [5.5, 11]
  wanted = waveform.waveform_image(values[:2816], WaveformConfig(height=32, width=32))
  np.testing.assert_array_equal(rows[0].image, wanted)


@pytest.mark.parametrize(
  'lines, words',
  [
    ('Device: X\nDate: 2024\n\ntime,ecg\n0,1\n', "line 2: 'Date: 2024'"),
    ('time,ecg\ns,mV\n0,1\n', "line 2: 'mV'"),
    ('time ecg\n0.0 1.5\n', "line 2: '0.0 1.5'"),
    ('time|ecg\n0.0|1.5\n', "line 2: '0.0|1.5'"),
  ],
)
@pytest.mark.parametrize('rate', [None, 512.0])
def test_what_is_no_table_of_numbers_names_its_line(tmp_path, lines, words, rate):
  (tmp_path / 'a.csv').write_text(lines)
  with pytest.raises(InputError) as caught:
    windows_of(tmp_path / 'a.csv', rate=rate)
  assert words in str(caught.value) and str(tmp_path / 'a.csv') in str(caught.value)


def test_columns_of_one_name_are_refused(tmp_path):
  (tmp_path / 'a.csv').write_text('t [s],ECG,ecg,ECG\n' + '0,1,2,3\n0.002,2,3,4\n')
  for asked in 'ECG', 'Ecg':
    with pytest.raises(InputError, match=r'a.csv has \d columns .*: give the number of one'):
      windows_of(tmp_path / 'a.csv', columns=(asked,))


def test_missing_cells_are_counted(tmp_path):
  values = ECG.copy()
  values[1000:1100] = np.nan
  values[3000:5000] = np.nan
  path = table(tmp_path / 'a.csv', time=TIMES, ecg=values)
  rows, said = rows_of(reader(rate=512.0), path)
  assert [row.location['quality'] for row in rows] == ['gaps']
  assert '1 of 2 windows left out (1 gaps)' in said[0]


def test_a_reader_in_python_has_windows_too(tmp_path):
  assert len(rows_of(SignalReader('ecg', rate=512.0), save(tmp_path))[0]) == 8
  assert len(rows_of(SignalReader('ecg', SignalConfig(), rate=512.0), save(tmp_path))[0]) == 4
  assert signals().modality == 'ecg'
