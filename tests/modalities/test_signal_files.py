"""Signals in files: every kind of file, spans, what cannot be read, parsing once."""

import os
import threading

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.modalities import signal_files
from painformer_jax.modalities.signal_files import SignalSpan, read_span

SIGNAL = np.arange(12.0)


def span(file, **fields):
  return SignalSpan(file=file, rate=4.0, **fields)


@pytest.fixture
def signals(tmp_path):
  """The same signal in every way a file may hold it."""
  two = np.stack([SIGNAL, -SIGNAL], axis=1)
  np.save(tmp_path / 'one.npy', SIGNAL)
  np.save(tmp_path / 'two.npy', two.astype(np.float32))
  np.save(tmp_path / 'rows.npy', two.T.astype(np.int16))
  np.savez(tmp_path / 'one.npz', SIGNAL)
  np.savez(tmp_path / 'two.npz', ecg=two, eda=-SIGNAL)
  lines = [f'{a}, {b}' for a, b in two]
  (tmp_path / 'header.csv').write_text('\n'.join(['ECG , "E, D"', *lines]) + '\n')
  (tmp_path / 'bare.CSV').write_text('\n'.join(lines) + '\n')
  (tmp_path / 'semi.csv').write_text('a;b\n' + '\n'.join(f'{a};{b}' for a, b in two))
  (tmp_path / 'tabs.tsv').write_text('\ufeffecg\teda\n' + '\n'.join(f'{a}\t{b}' for a, b in two))
  (tmp_path / 'rows.csv').write_text('\n'.join(','.join(map(str, row)) for row in two.T))
  pyarrow.parquet.write_table(
    pyarrow.table({'ecg': SIGNAL, 'eda': -SIGNAL}), tmp_path / 'x.parquet'
  )
  return str(tmp_path)


@pytest.mark.parametrize(
  'where',
  [
    span('one.npy'),
    span('one.npy', column='0'),
    span('two.npy', column='0'),
    span('rows.npy', row=0),
    span('one.npz'),
    span('one.npz', key='arr_0'),
    span('two.npz', key='ecg', column='0'),
    span('header.csv', column='ECG'),
    span('header.csv', column='0'),
    span('bare.CSV', column='0'),
    span('semi.csv', column='a'),
    span('tabs.tsv', column='ecg'),
    span('rows.csv', row=0),
    span('x.parquet', column='ecg'),
  ],
  ids=str,
)
def test_every_kind_of_file(signals, where):
  found = read_span(signals, where)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, SIGNAL)


@pytest.mark.parametrize(
  'times,expected',
  [
    ({}, SIGNAL),
    ({'start': 1.0}, SIGNAL[4:]),
    ({'stop': 2.0}, SIGNAL[:8]),
    ({'start': 0.5, 'stop': 2.25}, SIGNAL[2:9]),
    ({'stop': 3.0}, SIGNAL),
  ],
)
def test_spans_are_cut_in_seconds(signals, times, expected):
  for file, fields in (('one.npy', {}), ('tabs.tsv', {'column': 'ecg'}), ('rows.csv', {'row': 0})):
    found = read_span(signals, span(file, **fields, **times))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  'where,message',
  [
    (span('one.npy', start=3.0), 'has 3 s at 4 Hz, the span is 3 to its end s'),
    (span('one.npy', start=1.0, stop=3.5), 'the span is 1 to 3.5 s'),
    (span('one.npy', column='1'), r'shape \[12\]'),
    (span('two.npy'), '2 columns: give the number of one .--column.$'),
    (span('rows.npy'), '12 columns: .*; signals are columns: transpose it'),
    (span('two.npy', column='2'), "none of number '2'"),
    (span('rows.npy', row=2), '2 rows, none of number 2'),
    (span('two.npz'), 'several arrays: name one .--key; there: ecg, eda'),
    (span('two.npz', key='emg'), "no array 'emg'"),
    (span('tabs.tsv'), "has 2 columns: name the 'column'"),
    (span('tabs.tsv', column='emg'), "no column 'emg' .there: ecg, eda"),
    (span('rows.csv', row=9), 'has 2 rows, none of number 9'),
    (span('words.csv', column='b'), "column 'b' is not all numbers"),
    (span('ragged.csv', column='a'), r"ragged.csv, line 3: expected 2 cells, found '3'"),
    (span('cut.npy'), 'EOF|header|magic'),
    (span('cut.npz'), 'not a readable .npz'),
    (span('cut.parquet', column='a'), 'cut.parquet is damaged'),
    (span('objects.npy'), 'bject'),
    (span('complex.npy'), 'of type complex'),
  ],
)
def test_spans_that_cannot_be_read(signals, where, message):
  for name in ('cut.npy', 'cut.npz', 'cut.parquet'):
    with open(os.path.join(signals, name), 'wb') as file:
      file.write(b'\x93NUMPY')
  for name, text in (('words.csv', 'a,b\n1,x\n'), ('ragged.csv', 'a,b\n1,2\n3\n')):
    with open(os.path.join(signals, name), 'w') as file:
      file.write(text)
  np.save(os.path.join(signals, 'objects.npy'), np.array([{}]), allow_pickle=True)
  np.save(os.path.join(signals, 'complex.npy'), SIGNAL * 1j)
  with pytest.raises(InputError, match=message) as caught:
    read_span(signals, where)
  assert '\n' not in str(caught.value)
  assert str(caught.value).startswith(os.path.join(signals, where.file))


def test_a_file_that_is_not_there(signals):
  with pytest.raises(InputError, match='gone.csv cannot be read: No such file'):
    read_span(signals, span('gone.csv', column='a'))


def test_empty_fields_are_gaps(tmp_path):
  (tmp_path / 'x.csv').write_text('a,b\n1,2\n,3\n3,4\n')
  found = read_span(str(tmp_path), span('x.csv', column='a'))
  np.testing.assert_array_equal(found, [1, np.nan, 3])


def test_files_are_parsed_once_and_again_when_they_change(tmp_path, monkeypatch):
  parsed = []
  read_file = signal_files._read

  def counting(path):
    parsed.append(path)
    return read_file(path)

  monkeypatch.setattr(signal_files, '_files', FileCache(counting, kept=signal_files.FILES_KEPT))
  (tmp_path / 'x.csv').write_text('a\n' + '\n'.join(map(str, SIGNAL)))
  results = []

  def read():
    results.append(read_span(str(tmp_path), span('x.csv')))

  threads = [threading.Thread(target=read) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(results) == 8 and len(parsed) == 1
  (tmp_path / 'x.csv').write_text('a\n1\n')
  np.testing.assert_array_equal(read_span(str(tmp_path), span('x.csv')), [1])
  for i in range(signal_files.FILES_KEPT + 1):
    np.save(tmp_path / f'{i}.npy', SIGNAL)
    read_span(str(tmp_path), span(f'{i}.npy'))
  read_span(str(tmp_path), span('x.csv'))
  assert parsed.count(str(tmp_path / 'x.csv')) == 3
