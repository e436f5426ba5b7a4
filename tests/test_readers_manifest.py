"""Tables, signals in files, and the manifest reader."""

import collections
import csv
import io
import os
import pickle
import threading

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import corpus_layouts as layouts
from painformer_jax.data.batch import decode_rgb
from painformer_jax.data.builders import signal_files
from painformer_jax.data.builders.manifest import manifest_task
from painformer_jax.data.builders.signal_files import Span, read_span
from painformer_jax.data.builders.tables import read_rows
from painformer_jax.errors import InputError
from painformer_jax.modalities.biosignal import (
    SpectrogramConfig, WaveformConfig, spectrogram_image, waveform_image)

quick = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])


def quiet(source, name='mine', **options):
  return manifest_task(source, name, report=lambda line: None, **options)


def everything(task):
  return [item for of in task.splits.values() for item in of]


# Tables.

CELL = st.text(
    st.characters(codec='utf-8', exclude_characters='\r\n\x00\ufeff'),
    max_size=8).map(str.strip)


def field(draw, text):
  """One way or another to write a field down."""
  if '"' in text or ',' in text or draw(st.booleans()):
    text = '"' + text.replace('"', '""') + '"'
  return ' ' * draw(st.integers(0, 2)) + text


@st.composite
def written_tables(draw):
  """Rows of three cells, and a text that holds them as untidy CSV."""
  rows = draw(st.lists(st.tuples(CELL, CELL, CELL).filter(any), max_size=6))
  ends = st.sampled_from(['\n', '\r\n', ',\n', ' ,\n', '\n\n', '\n,,\n'])
  head = draw(st.sampled_from(['', '\ufeff']))
  text = f'{head}Path , LABEL,"split"{draw(ends)}' + ''.join(
      ','.join(field(draw, cell) for cell in row) + draw(ends) for row in rows)
  return rows, text


@quick
@given(written_tables())
def test_untidy_csv_gives_its_cells_back(tmp_path, table):
  rows, text = table
  path = tmp_path / 'table.csv'
  path.write_bytes(text.encode())
  found = [tuple(row[c] for c in ('path', 'label', 'split'))
           for row in read_rows(path, required=('label',))]
  assert found == rows


@quick
@given(st.lists(st.tuples(CELL, CELL).filter(any), max_size=5))
def test_what_python_writes_as_csv_and_tsv_is_read(tmp_path, rows):
  for suffix, delimiter in (('.csv', ','), ('.tsv', '\t')):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([('a', 'b'), *rows])
    path = tmp_path / f'table{suffix}'
    path.write_text(text.getvalue(), encoding='utf-8', newline='')
    assert [(r['a'], r['b']) for r in read_rows(path)] == rows


def test_semicolons_and_missing_headers(tmp_path):
  (tmp_path / 'a.csv').write_text('path;label\nx.jpg;cat, or dog\n')
  row, = read_rows(tmp_path / 'a.csv')
  assert (row['path'], row['label']) == ('x.jpg', 'cat, or dog')
  (tmp_path / 'b.csv').write_text('x.jpg,3\ny.jpg,4\n')
  rows = list(read_rows(tmp_path / 'b.csv', required=('Label',),
                        header=('Path', 'Label')))
  assert [(r['Path'], r['Label']) for r in rows] == [('x.jpg', '3'), ('y.jpg', '4')]
  assert rows[0].where.endswith('b.csv, row 1')


@pytest.mark.parametrize('content,message', [
    ('', 'is empty'),
    ('a,b\n1,2\n', "has no column 'label' .there: a, b."),
    ('label,Label\n1,2\n', "two columns 'label'"),
    ('label\n1,2\n', 'row 2: 2 values in 1 columns; quote'),
    ('label\n\n\n1,2\n', 'row 4: 2 values'),
    (b'label\n\xff\n', 'cannot be read: .*utf-8'),
])
def test_malformed_tables(tmp_path, content, message):
  path = tmp_path / 'table.csv'
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  with pytest.raises(InputError, match=message) as caught:
    list(read_rows(path, required=('label',)))
  assert '\n' not in str(caught.value)


def test_tables_of_other_types(tmp_path):
  (tmp_path / 'x.xlsx').write_bytes(b'PK')
  (tmp_path / 'x.parquet').write_bytes(b'PAR1 and no more')
  with pytest.raises(InputError, match='is no table, only .csv, .tsv, .parquet'):
    list(read_rows(tmp_path / 'x.xlsx'))
  with pytest.raises(InputError, match='x.parquet is damaged'):
    list(read_rows(tmp_path / 'x.parquet'))
  with pytest.raises(InputError, match='there is no file'):
    list(read_rows(tmp_path / 'y.csv'))


def test_parquet_values_become_text(tmp_path):
  pyarrow.parquet.write_table(
      pyarrow.table({'Label': [1, None, 3], 'rate': [0.5, 2.0, None]}),
      tmp_path / 'x.parquet')
  rows = list(read_rows(tmp_path / 'x.parquet', required=('label',)))
  assert [r['label'] for r in rows] == ['1', '', '3']
  assert [r.number('rate') for r in rows] == [0.5, 2.0, None]
  with pytest.raises(InputError, match="x.parquet, row 2: 'label' is empty"):
    rows[1].required('label')


# Signals in files.

SIGNAL = np.arange(12.0)


def span(file, **fields):
  return Span(file=file, rate=4.0, **fields)


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
  (tmp_path / 'tabs.tsv').write_text(
      '\ufeffecg\teda\n' + '\n'.join(f'{a}\t{b}' for a, b in two))
  (tmp_path / 'rows.csv').write_text(
      '\n'.join(','.join(map(str, row)) for row in two.T))
  pyarrow.parquet.write_table(
      pyarrow.table({'ecg': SIGNAL, 'eda': -SIGNAL}), tmp_path / 'x.parquet')
  return str(tmp_path)


@pytest.mark.parametrize('where', [
    span('one.npy'), span('one.npy', column='0'), span('two.npy', column='0'),
    span('rows.npy', row=0), span('one.npz'), span('one.npz', key='arr_0'),
    span('two.npz', key='ecg', column='0'), span('header.csv', column='ECG'),
    span('header.csv', column='0'), span('bare.CSV', column='0'),
    span('semi.csv', column='a'), span('tabs.tsv', column='ecg'),
    span('rows.csv', row=0), span('x.parquet', column='ecg'),
], ids=str)
def test_every_kind_of_file(signals, where):
  found = read_span(signals, where)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, SIGNAL)


@pytest.mark.parametrize('times,expected', [
    ({}, SIGNAL), ({'start': 1.0}, SIGNAL[4:]), ({'stop': 2.0}, SIGNAL[:8]),
    ({'start': 0.5, 'stop': 2.25}, SIGNAL[2:9]), ({'stop': 3.0}, SIGNAL)])
def test_spans_are_cut_in_seconds(signals, times, expected):
  for file, fields in (('one.npy', {}), ('tabs.tsv', {'column': 'ecg'}),
                       ('rows.csv', {'row': 0})):
    found = read_span(signals, span(file, **fields, **times))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('where,message', [
    (span('one.npy', start=3.0), 'has 3 s at 4 Hz, the span is 3 to its end s'),
    (span('one.npy', start=1.0, stop=3.5), 'the span is 1 to 3.5 s'),
    (span('one.npy', column='1'), r'shape \[12\]'),
    (span('two.npy'), "2 columns, none of number ''"),
    (span('two.npy', column='2'), "none of number '2'"),
    (span('rows.npy', row=2), '2 rows, none of number 2'),
    (span('two.npz'), "no array '' .there: ecg, eda"),
    (span('two.npz', key='emg'), "no array 'emg'"),
    (span('tabs.tsv'), 'has 2 columns; the manifest must say which'),
    (span('tabs.tsv', column='emg'), "no column 'emg' .there: ecg, eda"),
    (span('rows.csv', row=9), 'has 2 rows, none of number 9'),
    (span('words.csv', column='b'), "column 'b' is not all numbers"),
    (span('ragged.csv', column='a'), 'not a readable .csv file'),
    (span('cut.npy'), 'EOF|header|magic'), (span('cut.npz'), 'not a readable .npz'),
    (span('cut.parquet', column='a'), 'not a readable .parquet'),
    (span('objects.npy'), 'bject'), (span('complex.npy'), 'of type complex'),
])
def test_spans_that_cannot_be_read(signals, where, message):
  for name in ('cut.npy', 'cut.npz', 'cut.parquet'):
    with open(os.path.join(signals, name), 'wb') as file:
      file.write(b'\x93NUMPY')
  for name, text in (('words.csv', 'a,b\n1,x\n'), ('ragged.csv', 'a,b\n1,2\n3\n')):
    with open(os.path.join(signals, name), 'w') as file:
      file.write(text)
  np.save(os.path.join(signals, 'objects.npy'), np.array([{}]), allow_pickle=True)
  np.save(os.path.join(signals, 'complex.npy'), SIGNAL * 1j)
  with pytest.raises(ValueError, match=message) as caught:
    read_span(signals, where)
  assert '\n' not in str(caught.value)


def test_a_file_that_is_not_there(signals):
  with pytest.raises(OSError):
    read_span(signals, span('gone.csv', column='a'))


def test_empty_fields_are_gaps(tmp_path):
  (tmp_path / 'x.csv').write_text('a,b\n1,2\n,3\n3,4\n')
  found = read_span(str(tmp_path), span('x.csv', column='a'))
  np.testing.assert_array_equal(found, [1, np.nan, 3])


def test_files_are_parsed_once_and_again_when_they_change(tmp_path, monkeypatch):
  parsed = []
  parse = signal_files._parse

  def counting(path):
    parsed.append(path)
    return parse(path)

  monkeypatch.setattr(signal_files, '_parse', counting)
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


# The manifest.


def manifest(folder, text, name='manifest.csv'):
  (folder / name).write_text(text)
  return folder


def images(folder, *names):
  for i, name in enumerate(names):
    layouts.image_file(folder / name, label=i, classes=len(names))


def test_images_with_a_split(tmp_path):
  images(tmp_path, 'a.jpg', 'in/b.PNG', 'c.jpg', 'd.jpg')
  manifest(tmp_path, 'path,label,split,age\na.jpg,yes,Train,7\nin/b.PNG,no,training,8\n'
           'c.jpg,no,VAL,9\nd.jpg,yes,test,10\n')
  task = quiet(tmp_path, licence='mine')
  assert task.classes == ('no', 'yes')
  assert {s: [(i.key, i.label) for i in of] for s, of in task.splits.items()} == {
      'train': [('a.jpg', 1), ('in/b.PNG', 0)], 'test': [('d.jpg', 1)],
      'validation': [('c.jpg', 0)]}
  assert list(task.splits)[0] == 'train'
  assert (task.modality, task.licence) == ('image', 'mine')
  assert decode_rgb(task.read(task.splits['train'][1])).shape == (224, 224, 3)
  # The table itself may be named, and its folder is where paths begin.
  assert quiet(tmp_path / 'manifest.csv').splits == task.splits


def test_classes_are_sorted_or_given(tmp_path):
  images(tmp_path, *(f'{i}.jpg' for i in range(4)))
  rows = ''.join(f'{i}.jpg,{label},train\n' for i, label in enumerate((10, 9, 100, 9)))
  manifest(tmp_path, f'path,label,split\n{rows}')
  assert quiet(tmp_path).classes == ('9', '10', '100')
  said = []
  task = manifest_task(tmp_path, 'mine', classes='100, 10,9,8', report=said.append)
  assert task.classes == ('100', '10', '9', '8')
  assert [i.label for i in task.splits['train']] == [1, 2, 0, 2]
  assert said == ['manifest.csv: no row of 8']
  with pytest.raises(InputError, match="row 4: label '100' is not one of the classes"):
    quiet(tmp_path, classes='9,10')


def test_held_out_by_identity(tmp_path):
  task = quiet(layouts.compound_fee_db(tmp_path), test_fraction=0.3)
  train, test = ({i.identity for i in task.splits[s]} for s in ('train', 'test'))
  assert len(test) == 2 and not train & test
  assert 'identities' in task.description
  assert quiet(tmp_path, test_fraction=0.3).splits == task.splits
  assert quiet(tmp_path, test_fraction=0.3, split_seed=3).splits != task.splits


def test_identities_are_held_out_of_each_class(tmp_path):
  task = quiet(layouts.eeg_bst_sz(tmp_path))
  assert collections.Counter(
      (i.label, i.identity) for i in task.splits['test']).total() == 12
  assert len({i.identity for i in task.splits['test']}) == 2
  assert {i.label for i in task.splits['test']} == {0, 1}


def test_held_out_by_row_without_identities(tmp_path):
  images(tmp_path, *(f'{i}.jpg' for i in range(10)))
  manifest(tmp_path, 'path,label\n' + ''.join(
      f'{i}.jpg,{"ab"[i % 2]}\n' for i in range(10)))
  task = quiet(tmp_path)
  assert sorted(i.label for i in task.splits['test']) == [0, 1]
  assert '0.2 of the rows' in task.description


@pytest.mark.parametrize('representation', ['waveform', 'psd', 'angle', 'phase'])
def test_signals_are_drawn_as_the_paper_draws_them(tmp_path, representation):
  task = quiet(layouts.eeg_bst_sz(tmp_path), representation=representation,
               segment=64, image_size=48, encoding='png')
  item = next(i for i in task.splits['train'] if i.detail.column == 'FCz')
  signal = np.loadtxt(
      tmp_path / item.detail.file, delimiter=',', skiprows=1, usecols=2)
  rate = layouts.RATE
  signal = signal[int(item.detail.start * rate):int(item.detail.stop * rate)]
  size = {'height': 48, 'width': 48}
  if representation == 'waveform':
    expected = waveform_image(signal, WaveformConfig(**size))
  else:
    expected = spectrogram_image(
        signal, rate, SpectrogramConfig(segment=64, overlap=32, **size),
        kind=representation)
  np.testing.assert_array_equal(decode_rgb(task.read(item)), expected)
  assert task.modality == (
      'waveform' if representation == 'waveform' else 'spectrogram')
  read, same = pickle.loads(pickle.dumps((task.read, item)))
  assert same == item and read(same) == task.read(item)


def test_representations_are_different_tasks_of_the_same_rows(tmp_path):
  layouts.silent_emg(tmp_path)
  waveform, psd, shorter = (quiet(tmp_path, segment=s, representation=r) for r, s in (
      ('waveform', 64), ('psd', 64), ('psd', 32)))
  assert waveform.splits == psd.splits
  assert len({waveform.settings, psd.settings, shorter.settings}) == 3
  for task in (waveform, psd):
    assert task.read(everything(task)[0])[:2] == b'\xff\xd8'
  exact = quiet(tmp_path, encoding='png')
  assert exact.read(everything(exact)[0])[1:4] == b'PNG'


def test_a_signal_too_short_is_an_unreadable_one(tmp_path):
  task = quiet(layouts.ecg_hbc(tmp_path), rate=125.0, representation='psd')
  with pytest.raises(ValueError, match='segments of 256 samples'):
    task.read(everything(task)[0])


def test_rows_of_a_wide_table(tmp_path):
  task = quiet(layouts.ecg_hbc(tmp_path), rate=125.0, classes='N,S,V,F,Q')
  assert [i.label for i in task.splits['test']] == [n // 4 for n in range(20)]
  # The beat, without the label that ends the row.
  assert len(read_span(str(tmp_path), task.splits['train'][3].detail)) == 187


def test_the_rate_makes_another_task(tmp_path):
  layouts.ecg_hbc(tmp_path)
  slow, fast = (quiet(tmp_path, rate=r) for r in (125.0, 250.0))
  assert slow.splits['train'][0].key != fast.splits['train'][0].key


def test_signals_come_file_by_file(tmp_path):
  for name in 'ab':
    np.save(tmp_path / f'{name}.npy', np.arange(100))
  manifest(tmp_path, 'signal,rate,start,stop,label,split\n' + ''.join(
      f'{"ab"[i % 2]}.npy,1,{i},{i + 9},{i % 3},train\n' for i in range(12)))
  files = [i.detail.file for i in quiet(tmp_path).splits['train']]
  assert files == ['a.npy'] * 6 + ['b.npy'] * 6


def test_missing_files_are_counted(tmp_path):
  images(tmp_path, 'a.jpg', 'b.jpg')
  text = 'path,label,split\na.jpg,x,train\nb.jpg,y,train\ngone.jpg,y,train\n'
  said = []
  task = manifest_task(manifest(tmp_path, text), 'mine', report=said.append)
  assert [i.key for i in task.splits['train']] == ['a.jpg', 'b.jpg']
  assert said == [
      'left out: 1 of 3 files that manifest.csv names are missing: gone.jpg']
  manifest(tmp_path, f'{text}gone2.jpg,y,train\n')
  with pytest.raises(InputError, match='2 of 4 files.*gone.jpg, gone2.jpg'):
    quiet(tmp_path)
  assert len(everything(quiet(tmp_path, max_missing=0.5))) == 2
  manifest(tmp_path, 'path,label\ngone.jpg,x\n')
  with pytest.raises(InputError, match='no row whose file is there'):
    quiet(tmp_path)


@pytest.mark.parametrize('text,message', [
    ('path,split\na.jpg,train\n', "no column 'label'"),
    ('label\nx\n', "one of the columns 'path' .images. and 'signal'.*, not neither"),
    ('path,signal,label\na.jpg,,x\n', 'not both'),
    ('path,label\na.jpg,x\nb.jpg,\n', "row 3: 'label' is empty"),
    ('path,label\n,x\n', "row 2: 'path' is empty"),
    ('path,label\na.gif,x\n', "row 2: 'a.gif' is not of a known type"),
    ('path,label\na.jpg,x\na.jpg,y\n', "row 3: 'a.jpg' is listed before"),
    ('path,label,split\na.jpg,x,train\nb.jpg,y,\n', "row 3: 'split' is empty"),
    ('path,label,split\na.jpg,x,a b\n', "row 2: 'a b' is no name for a split"),
    ('path,label,split\na.jpg,x,test\nb.jpg,y,test\n', "no row of the split 'train'"),
    ('path,label\na.jpg,x\nb.jpg,x\n', "has one class, 'x', needs 2"),
    ('path,label\na.jpg,x\nb.jpg,y\n', 'a single one of its rows'),
    ('path,label,identity\na.jpg,x,p\nb.jpg,y,p\n', 'a single one of its identities'),
    ('path,label\n', 'has no row'),
    ('path,label,split,identity\na.jpg,x,train,p1\nb.jpg,y,test,p1\n',
     "identity 'p1' is in the splits train and test"),
    ('signal,label,rate\na.wav,x,1\n', "row 2: 'a.wav' is not of a known type"),
    ('signal,label\na.npy,x\n', "row 2: the rate is 0 Hz; give a 'rate'"),
    ('signal,label,rate\na.npy,x,fast\n', "row 2: 'rate' is 'fast', not a number"),
    ('signal,label,rate\na.npy,x,-5\n', 'row 2: the rate is -5 Hz'),
    ('signal,label,rate\na.npy,x,nan\n', 'row 2: the rate is nan Hz'),
    ('signal,label,rate,start,stop\na.npy,x,1,5,5\n', 'row 2: the span from 5 to 5 s'),
    ('signal,label,rate,start,stop\na.npy,x,1,-1,\n', 'the span from -1 to the end s'),
    ('signal,label,rate,stop\na.npy,x,1,inf\n', 'row 2: the span from 0 to inf s'),
    ('signal,label,rate,row\na.npy,x,1,1.5\n', "row 2: 'row' is '1.5'"),
    ('signal,label,rate,row,column\na.npy,x,1,1,1\n', "'row' and 'column' exclude"),
])
def test_malformed_manifests(tmp_path, text, message):
  images(tmp_path, 'a.jpg', 'b.jpg')
  with pytest.raises(InputError, match=message) as caught:
    quiet(manifest(tmp_path, text))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('options,message', [
    ({'representation': 'mel'}, "no representation 'mel', only waveform, psd"),
    ({'segment': 1}, 'segment of 1'), ({'rate': -1.0}, 'rate of -1'),
    ({'test_fraction': 1.0}, 'test fraction'), ({'encoding': 'gif'}, 'no encoding'),
    ({'max_missing': 2.0}, 'not from 0 to 1'),
])
def test_manifest_options_out_of_range(tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    quiet(layouts.silent_emg(tmp_path), **options)


def test_no_manifest(tmp_path):
  with pytest.raises(InputError, match='has no manifest.csv, manifest.tsv or manifest.p'):
    quiet(tmp_path)
  with pytest.raises(InputError, match='there is no file or folder'):
    quiet(tmp_path / 'x.csv')
