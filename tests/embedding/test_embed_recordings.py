"""Rates, times and formats of recordings, as `painformer embed` takes them."""

import gzip
import json
import os

import numpy as np
import pytest
from command_line import assert_refused, run_command
from row_readers import WAVES, rows_of, signals, table
from test_cli_embed import read
from test_signal_windows import beats

from painformer_jax.core.errors import InputError
from painformer_jax.embedding.find import find_files
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


def save(folder, values=ECG):
  np.save(folder / 'plain.npy', values)
  return folder / 'plain.npy'


def test_times_in_arrays(tmp_path):
  np.savez(tmp_path / 'a.npz', time=TIMES, ecg=ECG, subject=np.array(3))
  np.save(tmp_path / 'a.npy', np.stack([TIMES, ECG], axis=1))
  assert windows_of(tmp_path / 'a.npz')[0] == [(0, 5.5), (5.5, 11)]
  for options in {}, {'columns': ('1',)}, {'time': '0'}:
    assert windows_of(tmp_path / 'a.npy', **options)[0] == [(0, 5.5), (5.5, 11)]
  [row, *_], _ = rows_of(reader(), tmp_path / 'a.npy')
  assert row.location['channel'] == '1'
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


def lines_of(separator=',', times=TIMES):
  return ''.join(f'{t:.6f}{separator}{v:.5f}\n' for t, v in zip(times, ECG))


def first_image(path, **options):
  rows, said = rows_of(reader(**options), path)
  assert [row.location['stop'] for row in rows] == [5.5, 11]
  return rows[0], said


@pytest.mark.parametrize(
  'head, separator, words',
  [
    ('Device: X\nDate: 2024\n\ntime,ecg\n', ',', 'lines 1 to 2 taken as notes'),
    ('time,ecg\ns,mV\n', ',', 'line 2 taken as units (s, mV)'),
    ('% made by X\ntime,ecg\n', ',', ''),
    ('time ecg\n', ' ', ''),
    ('time|ecg\n', '|', ''),
  ],
)
def test_what_stands_above_the_numbers(tmp_path, head, separator, words):
  (tmp_path / 'a.txt').write_text(head + lines_of(separator))
  row, said = first_image(tmp_path / 'a.txt')
  assert row.location['channel'] == 'ecg'
  plain, _ = first_image(save(tmp_path, np.round(ECG, 5)), rate=512.0)
  np.testing.assert_array_equal(row.image, plain.image)
  assert words in said[0] and ('taken as seconds' in said[0]) == ('mV' not in head)


def test_thousands_are_not_decimals(tmp_path):
  """999;1,001 beside times with points came back as 999 and 1.001."""
  values = np.rint(1000 + 100 * ECG)
  plain, _ = first_image(save(tmp_path, values), rate=512.0)
  cells = [(f'{t:.6f}', f'{v:,.0f}') for t, v in zip(TIMES, values)]
  (tmp_path / 'a.csv').write_text('time;ecg\n' + ''.join(f'{t};{v}\n' for t, v in cells))
  np.testing.assert_array_equal(first_image(tmp_path / 'a.csv')[0].image, plain.image)
  (tmp_path / 'b.csv').write_text('ecg\n' + ''.join(f'"{v}"\n' for _, v in cells))
  with pytest.raises(InputError, match=r"b.csv, line \d+, column 'ecg': '1,\d\d\d' may have a dec"):
    rows_of(reader(rate=512.0), tmp_path / 'b.csv')


@pytest.mark.parametrize('name', ['a.csv.gz', 'a.TXT.GZ', 'a.csv'])
def test_compressed_tables(tmp_path, name):
  (tmp_path / name).write_bytes(gzip.compress(('time,ecg\n' + lines_of()).encode()))
  assert windows_of(tmp_path / name)[0] == [(0, 5.5), (5.5, 11)]


def test_workbooks_are_to_be_saved_as_csv(tmp_path):
  for name in 'a.xlsx', 'a.csv':
    (tmp_path / name).write_bytes(b'PK\x03\x04' + bytes(99))
    with pytest.raises(InputError, match=f'{name} is a workbook.* as CSV'):
      windows_of(tmp_path / name)


def test_the_rate_in_the_first_lines(tmp_path):
  start, rows = f'{1.7e9:f}\n4.000000\n', beats(4, 120)
  (tmp_path / 'EDA.csv').write_text(start + ''.join(f'{v:.4f}\n' for v in rows))
  found, said = windows_of(tmp_path / 'EDA.csv', 'gsr', window=64.0)
  assert found == [(0, 64)] and "4 Hz by line 2, as in Empatica's files" in said[0]
  assert windows_of(tmp_path / 'EDA.csv', 'gsr', rate=4.0, window=64.0)[0] == found
  with pytest.raises(InputError, match='its first lines say 4 Hz; the stated rate is 8 Hz'):
    windows_of(tmp_path / 'EDA.csv', 'gsr', rate=8.0, window=64.0)
  assert windows_of(tmp_path / 'EDA.csv', 'gsr', rate=8.0, time='none', window=15.0)[0]
  device = {'column': ['nSeq', 'I1', 'A1'], 'label': ['A1'], 'sensor': ['ECG']}
  header = json.dumps({'00:07': device | {'sampling rate': 512}})
  (tmp_path / 'a.txt').write_text(
    f'# OpenSignals Text File Format\n# {header}\n# EndOfHeader\n'
    + ''.join(f'{n % 16}\t0\t{v:.4f}\t\n' for n, v in enumerate(ECG))
  )
  found, said = windows_of(tmp_path / 'a.txt', columns=('ECG',))
  assert found == [(0, 5.5), (5.5, 11)] and '512 Hz by the header of OpenSignals' in said[0]
  with pytest.raises(InputError, match='say 512 Hz; the stated rate is 1000 Hz'):
    windows_of(tmp_path / 'a.txt', columns=('A1',), rate=1000.0)


def test_texts_without_numbers_are_left_out_of_folders(tmp_path):
  (tmp_path / 'a.txt').write_text('time,ecg\n' + lines_of())
  (tmp_path / 'readme.txt').write_text('Made in 2024.\nBy a device, of which more.\n')
  found = find_files([tmp_path], suffixes=reader().suffixes)
  assert [os.path.basename(f) for f in found.files] == ['a.txt'] and not found.problems
  assert found.remark == 'left out of the folders: 1 .txt without numbers'


@pytest.mark.parametrize('options', [{}, {'rate': 512.0}])
def test_samples_of_a_second_share_its_time(tmp_path, options):
  (tmp_path / 'a.csv').write_text('time,ecg\n' + lines_of(times=np.floor(TIMES)))
  assert windows_of(tmp_path / 'a.csv', **options)[0] == [(0, 5.5), (5.5, 11)]
  clock = [f'10:00:{int(t):02d},{v:.4f}\n' for t, v in zip(TIMES, ECG)]
  (tmp_path / 'b.csv').write_text('time,ecg\n' + ''.join(clock))
  assert windows_of(tmp_path / 'b.csv', **options)[0] == [(0, 5.5), (5.5, 11)]


@pytest.mark.parametrize('step', [1e-9, 1e-3])
def test_steps_of_less_than_a_sample_are_refused(tmp_path, step):
  with pytest.raises(InputError, match='step of .* is too short for windows of 5.5 s'):
    windows_of(save(tmp_path), rate=512.0, step=step)
  with pytest.raises(InputError, match='shorter than a sample at 100 Hz'):
    windows_of(save(tmp_path), rate=100.0, step=0.008)


def test_columns_in_several_options(stored, tmp_path):
  path = table(tmp_path / 'a.csv', time=TIMES, one=ECG, two=ECG[::-1])
  command = ('embed', path, '--modality', 'ecg', '--weights', stored, '--window', 'whole')
  waves = ('--representation', 'waveform', '--representation', 'angle')
  columns = ('--column', 'one', '--column', 'two')
  done = run_command(*command, *waves, *columns, '--out', tmp_path / 'out.npz')
  assert done.returncode == 0 and '4 embeddings from 1 file' in done.stdout, done.stderr
  arrays = read(tmp_path / 'out.npz')
  assert arrays['channel'].tolist() == ['one', 'one', 'two', 'two']
  assert arrays['representation'].tolist() == ['waveform', 'angle'] * 2
  done = run_command(*command, '--column', 'one,one', '--out', tmp_path / 'out.npz')
  assert_refused(done, "names 'one' twice")


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
