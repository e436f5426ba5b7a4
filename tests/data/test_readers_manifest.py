"""The manifest reader: images and signals that a table lists."""

import collections
import pickle

import corpus_layouts as layouts
import numpy as np
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.manifest import manifest_task
from painformer_jax.data.decode import decode_rgb
from painformer_jax.modalities.signal_files import read_span
from painformer_jax.modalities.spectrogram import SpectrogramConfig, spectrogram_image
from painformer_jax.modalities.waveform import WaveformConfig, waveform_image


def quiet(source, name='mine', **options):
  return manifest_task(source, name, report=lambda line: None, **options)


def everything(task):
  return [item for of in task.splits.values() for item in of]


def manifest(folder, text, name='manifest.csv'):
  (folder / name).write_text(text)
  return folder


def images(folder, *names):
  for i, name in enumerate(names):
    layouts.image_file(folder / name, label=i, classes=len(names))


def test_images_with_a_split(tmp_path):
  images(tmp_path, 'a.jpg', 'in/b.PNG', 'c.jpg', 'd.jpg')
  manifest(
    tmp_path,
    'path,label,split,age\na.jpg,yes,Train,7\nin/b.PNG,no,training,8\n'
    'c.jpg,no,VAL,9\nd.jpg,yes,test,10\n',
  )
  task = quiet(tmp_path, licence='mine')
  assert task.classes == ('no', 'yes')
  assert {s: [(i.key, i.label) for i in of] for s, of in task.splits.items()} == {
    'train': [('a.jpg', 1), ('in/b.PNG', 0)],
    'test': [('d.jpg', 1)],
    'validation': [('c.jpg', 0)],
  }
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
  assert collections.Counter((i.label, i.identity) for i in task.splits['test']).total() == 12
  assert len({i.identity for i in task.splits['test']}) == 2
  assert {i.label for i in task.splits['test']} == {0, 1}


def test_held_out_by_row_without_identities(tmp_path):
  images(tmp_path, *(f'{i}.jpg' for i in range(10)))
  manifest(tmp_path, 'path,label\n' + ''.join(f'{i}.jpg,{"ab"[i % 2]}\n' for i in range(10)))
  task = quiet(tmp_path)
  assert sorted(i.label for i in task.splits['test']) == [0, 1]
  assert '0.2 of the rows' in task.description


@pytest.mark.parametrize('representation', ['waveform', 'psd', 'angle', 'phase'])
def test_signals_are_drawn_as_the_paper_draws_them(tmp_path, representation):
  task = quiet(
    layouts.eeg_bst_sz(tmp_path),
    representation=representation,
    segment=64,
    image_size=48,
    encoding='png',
  )
  item = next(i for i in task.splits['train'] if i.detail.column == 'FCz')
  signal = np.loadtxt(tmp_path / item.detail.file, delimiter=',', skiprows=1, usecols=2)
  rate = layouts.RATE
  signal = signal[int(item.detail.start * rate) : int(item.detail.stop * rate)]
  size = {'height': 48, 'width': 48}
  if representation == 'waveform':
    expected = waveform_image(signal, WaveformConfig(**size))
  else:
    expected = spectrogram_image(
      signal, rate, SpectrogramConfig(segment=64, overlap=32, **size), kind=representation
    )
  np.testing.assert_array_equal(decode_rgb(task.read(item)), expected)
  assert task.modality == ('waveform' if representation == 'waveform' else 'spectrogram')
  read, same = pickle.loads(pickle.dumps((task.read, item)))
  assert same == item and read(same) == task.read(item)


def test_representations_are_different_tasks_of_the_same_rows(tmp_path):
  layouts.silent_emg(tmp_path)
  waveform, psd, shorter = (
    quiet(tmp_path, segment=s, representation=r)
    for r, s in (('waveform', 64), ('psd', 64), ('psd', 32))
  )
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
  manifest(
    tmp_path,
    'signal,rate,start,stop,label,split\n'
    + ''.join(f'{"ab"[i % 2]}.npy,1,{i},{i + 9},{i % 3},train\n' for i in range(12)),
  )
  files = [i.detail.file for i in quiet(tmp_path).splits['train']]
  assert files == ['a.npy'] * 6 + ['b.npy'] * 6


def test_missing_files_are_counted(tmp_path):
  images(tmp_path, 'a.jpg', 'b.jpg')
  text = 'path,label,split\na.jpg,x,train\nb.jpg,y,train\ngone.jpg,y,train\n'
  said = []
  task = manifest_task(manifest(tmp_path, text), 'mine', report=said.append)
  assert [i.key for i in task.splits['train']] == ['a.jpg', 'b.jpg']
  assert said == ['left out: 1 of 3 files that manifest.csv names are missing: gone.jpg']
  manifest(tmp_path, f'{text}gone2.jpg,y,train\n')
  with pytest.raises(InputError, match='2 of 4 files.*gone.jpg, gone2.jpg'):
    quiet(tmp_path)
  assert len(everything(quiet(tmp_path, max_missing=0.5))) == 2
  manifest(tmp_path, 'path,label\ngone.jpg,x\n')
  with pytest.raises(InputError, match='no row whose file is there'):
    quiet(tmp_path)


@pytest.mark.parametrize(
  'text,message',
  [
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
    (
      'path,label,split,identity\na.jpg,x,train,p1\nb.jpg,y,test,p1\n',
      "identity 'p1' is in the splits train and test",
    ),
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
  ],
)
def test_malformed_manifests(tmp_path, text, message):
  images(tmp_path, 'a.jpg', 'b.jpg')
  with pytest.raises(InputError, match=message) as caught:
    quiet(manifest(tmp_path, text))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'options,message',
  [
    ({'representation': 'mel'}, "no representation 'mel', only waveform, psd"),
    ({'segment': 1}, 'segment of 1'),
    ({'rate': -1.0}, 'rate of -1'),
    ({'test_fraction': 1.0}, 'test fraction'),
    ({'encoding': 'gif'}, 'no encoding'),
    ({'max_missing': 2.0}, 'not from 0 to 1'),
  ],
)
def test_manifest_options_out_of_range(tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    quiet(layouts.silent_emg(tmp_path), **options)


def test_no_manifest(tmp_path):
  with pytest.raises(InputError, match='has no manifest.csv, manifest.tsv or manifest.p'):
    quiet(tmp_path)
  with pytest.raises(InputError, match='there is no file or folder'):
    quiet(tmp_path / 'x.csv')
