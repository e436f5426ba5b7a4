import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from painformer_jax.data.batch import decode_rgb
from painformer_jax.data.builders import base, folder
from painformer_jax.data.builders.base import store
from painformer_jax.data.builders.folder import folder_task
from painformer_jax.data.example import Example
from painformer_jax.data.prepared import list_tasks, open_task
from painformer_jax.errors import InputError
from painformer_jax.modalities.images import read_image
from tiny_tasks import encode, store_tiny, tiny_image, tiny_task

QUIET = {'progress': lambda line: None}


def shards(prepared, split='train'):
  return sorted(prepared.path.glob(f'*-{split}.array_record*'))


def records_of(task, split='train'):
  return [(e.key, e.label, e.image) for e in task.splits[split]()]


def stored_of(prepared, split='train'):
  records = prepared.records(split)
  return [(r['key'], r['label'], r['image'])
          for r in (records[i] for i in range(len(records)))]


# Storing.


def test_what_is_stored_is_what_was_given(tmp_path, monkeypatch):
  monkeypatch.setattr(base, 'EXAMPLES_PER_SHARD', 5)
  monkeypatch.setattr(base, 'EXAMPLES_PER_CALL', 3)
  task = tiny_task(train=12, test=5)
  prepared = store(task, tmp_path, **QUIET)
  assert len(shards(prepared)) == 3
  for split in ('train', 'test'):
    assert stored_of(prepared, split) == records_of(task, split)
  assert prepared.records('train')[7]['source'] == 'tiny, image 7'
  assert prepared.sizes == {'train': 12, 'test': 5}
  for field in ('name', 'classes', 'modality', 'description', 'licence'):
    assert getattr(prepared, field) == getattr(task, field)
  assert prepared == open_task(tmp_path, 'tiny')


def test_tfds_reads_it_without_tensorflow(tmp_path):
  prepared = store_tiny(tmp_path)
  builder = tfds.builder('tiny', data_dir=tmp_path)
  assert builder.info.features['label'].names == ['class 0', 'class 1', 'class 2']
  assert builder.info.description == prepared.description
  source = builder.as_data_source('test')
  assert len(source) == 5
  np.testing.assert_array_equal(
      source[1]['image'],
      tiny_image('tiny', 13, label=1, classes=3, image_size=16))
  assert (source[1]['label'], source[1]['key']) == (1, b'13')
  assert 'tensorflow' not in sys.modules


def test_own_parsing_agrees_with_tfds(tmp_path):
  prepared = store_tiny(tmp_path)
  theirs = tfds.builder_from_directory(str(prepared.path)).as_data_source(
      'train', decoders={'image': tfds.decode.SkipDecoding()})
  for ours, other in zip(
      (prepared.records('train')[i] for i in range(12)), theirs, strict=True):
    assert ours == {
        'image': other['image'], 'label': other['label'],
        'key': other['key'].decode(), 'source': other['source'].decode()}


def test_any_record_can_be_read_alone(tmp_path):
  for shard in shards(store_tiny(tmp_path)):
    reader = array_record_module.ArrayRecordReader(str(shard))
    assert 'group_size:1,' in reader.writer_options_string()


def test_storing_twice_writes_once(tmp_path):
  store_tiny(tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')
            if p.is_file() and p.name != '.lock'}
  said = []
  again = store(tiny_task(), tmp_path, progress=said.append)
  assert again.sizes == {'train': 12, 'test': 5}
  assert len(said) == 1 and 'skipped' in said[0]
  assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize('change,what', [
    ({'image_size': 20}, 'image size'),
    ({'classes': 4}, 'classes'),
    ({'modality': 'face'}, 'modality'),
    ({'test': 0}, 'splits'),
    ({'train': 9}, 'first test example'),
])
def test_another_task_of_the_same_name_is_refused(tmp_path, change, what):
  store_tiny(tmp_path)
  with pytest.raises(InputError, match=f'differs in: .*{what}'):
    store_tiny(tmp_path, **change)


def test_a_kill_leaves_nothing_half_written(tmp_path):
  """SIGKILL in the middle: not visible; the next run clears up and completes."""
  script = textwrap.dedent(f'''
      import dataclasses, os, signal, sys
      sys.path.insert(0, {str(Path(__file__).parent)!r})
      from painformer_jax.data.builders import base, folder
      from tiny_tasks import tiny_task
      base.EXAMPLES_PER_SHARD = base.EXAMPLES_PER_CALL = 4
      task = tiny_task(train=50)
      def examples():
        for i, example in enumerate(task.splits['train']()):
          if i == 30:
            os.kill(os.getpid(), signal.SIGKILL)
          yield example
      base.store(dataclasses.replace(task, splits={{'train': examples}}),
                 {str(tmp_path / 'data')!r})
      ''')
  run = subprocess.run([sys.executable, '-c', script], capture_output=True)
  assert run.returncode == -signal.SIGKILL, run.stderr
  assert list((tmp_path / 'data/tiny/.incomplete').iterdir())
  assert list_tasks(tmp_path / 'data') == []
  with pytest.raises(InputError, match="no task 'tiny'"):
    open_task(tmp_path / 'data', 'tiny')

  said = []
  resumed = store(tiny_task(train=50), tmp_path / 'data', progress=said.append)
  assert 'interrupted run' in said[0]
  assert not (tmp_path / 'data/tiny/.incomplete').exists()
  assert resumed.sha256 == store_tiny(tmp_path / 'other', train=50).sha256


def test_two_writers_at_once(tmp_path):
  (tmp_path / 'tiny').mkdir()
  with open(tmp_path / 'tiny/.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match='another process is storing'):
      store_tiny(tmp_path)
  store_tiny(tmp_path)


def test_progress_tells_the_rate(tmp_path, monkeypatch):
  monkeypatch.setattr(base, 'SECONDS_BETWEEN_REPORTS', 0.0)
  monkeypatch.setattr(base, 'EXAMPLES_PER_CALL', 4)
  said = []
  store(tiny_task(), tmp_path, progress=said.append)
  assert said[0].startswith('tiny: 4 train images')
  assert 'stored 12 train + 5 test images' in said[-1]
  assert all('images/s' in line for line in said)


def with_examples(*examples, **changes):
  return dataclasses.replace(
      tiny_task(), splits={'train': lambda: iter(examples)}, **changes)


def example(**changes):
  sound = next(iter(tiny_task().splits['train']()))
  return dataclasses.replace(sound, **changes)


@pytest.mark.parametrize('task,message', [
    (with_examples(example(), example(key='bad one', image=b'junk')),
     r"'tiny', split 'train', example 'bad one' \(tiny, image 0\): not a readable"),
    (with_examples(example(image=example().image[:300])), 'not a readable image'),
    (with_examples(example(label=3)), 'label 3 is outside 0 to 2'),
    (with_examples(example(label=-1)), 'label -1 is outside'),
    (with_examples(example(), example()), "example '0' .* occurs twice"),
    (with_examples(), "split 'train' has no image"),
    (with_examples(example(), name='Not-a-name'), 'no name for a task'),
    (with_examples(example(), name='../up'), 'no name for a task'),
    (with_examples(example(), classes=('a',)), 'has 1 class'),
    (with_examples(example(), classes=('a', 'a')), 'occurs twice'),
    (with_examples(example(), classes=('a', ' b')), "' b' is no name for a class"),
    (with_examples(example(), classes=('a', 'b\nc')), 'no name for a class'),
    (dataclasses.replace(tiny_task(), splits={}), 'has no split'),
    (dataclasses.replace(tiny_task(), splits={'a b': tuple}),
     'no name for a split'),
])
def test_malformed_tasks(tmp_path, task, message):
  with pytest.raises(InputError, match=message) as caught:
    store(task, tmp_path, **QUIET)
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.rglob('*record*')), 'something was left behind'
  assert list_tasks(tmp_path) == []


def test_unusual_class_names_come_back(tmp_path):
  names = ('tapping / rest', 'Ätna', '"quoted", no. 1', '0')
  task = dataclasses.replace(tiny_task(classes=4), classes=names)
  assert store(task, tmp_path, **QUIET).classes == names


# Opening.


def test_absent_tasks_and_splits(tmp_path):
  with pytest.raises(InputError, match='no data folder .*painformer data prep'):
    open_task(tmp_path / 'nowhere', 'tiny')
  store_tiny(tmp_path, 'one')
  store_tiny(tmp_path, 'two')
  (tmp_path / 'notes').mkdir()
  with pytest.raises(InputError, match=r"no task 'three' .*there: one, two\)"):
    open_task(tmp_path, 'three')
  with pytest.raises(InputError, match="no split 'validation', only train, test"):
    open_task(tmp_path, 'one').records('validation')


@pytest.mark.parametrize('damage', ['no info', 'half info', 'no metadata',
                                    'other metadata', 'no shard', 'empty shard'])
def test_damaged_folders(tmp_path, damage):
  prepared = store_tiny(tmp_path)
  info, metadata = (
      prepared.path / n for n in ('dataset_info.json', 'metadata.json'))
  if damage == 'no info':
    info.unlink()
  elif damage == 'half info':
    info.write_text(info.read_text()[:200])
  elif damage == 'no metadata':
    metadata.unlink()
  elif damage == 'other metadata':
    metadata.write_text(json.dumps({'modality': 'face'}))
  elif damage == 'no shard':
    shards(prepared)[0].unlink()
  else:
    shards(prepared)[0].write_bytes(b'')
  with pytest.raises(InputError, match='prepare the task again'):
    open_task(tmp_path, 'tiny')


def test_a_damaged_record_is_named(tmp_path):
  prepared = store_tiny(tmp_path, train=40, image_size=64)
  shard = shards(prepared)[0]
  content = bytearray(shard.read_bytes())
  image = prepared.records('train')[20]['image']
  content[content.find(image) + len(image) // 2] ^= 0xff
  shard.write_bytes(content)
  records = open_task(tmp_path, 'tiny').records('train')
  with pytest.raises(InputError, match="split 'train': record 20 of 40 is damaged"):
    records[20]
  assert records[19]['key'] == '19'


# Folders of images.


def photos(root, *, classes=('cat', 'dog'), count=10, size=(40, 30)):
  for label, name in enumerate(classes):
    for i in range(count):
      path = root / name / f'{i:02}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      image = tiny_image(name, i, label=label, classes=2, image_size=max(size))
      path.write_bytes(encode(image[:size[0], :size[1]], '.jpg'))
  return root


def keys(task, split):
  return [e.key for e in task.splits[split]()]


def test_folder_with_train_and_test(tmp_path):
  photos(tmp_path / 'train')
  photos(tmp_path / 'test', count=3, classes=('dog',))
  (tmp_path / 'train/.hidden').mkdir()
  (tmp_path / 'train/cat/notes.txt').write_text('no image')
  (tmp_path / 'train/cat/deeper').mkdir()
  (tmp_path / 'train/cat/00.jpg').rename(tmp_path / 'train/cat/deeper/00.JPG')
  task = folder_task(tmp_path, 'pets', image_size=24)
  assert task.classes == ('cat', 'dog')
  assert len(keys(task, 'train')) == 20
  assert 'train/cat/deeper/00.JPG' in keys(task, 'train')
  assert keys(task, 'test') == [f'test/dog/{i:02}.jpg' for i in range(3)]
  assert {e.label for e in task.splits['test']()} == {1}
  prepared = store(task, tmp_path / 'data', **QUIET)
  assert prepared.sizes == {'train': 20, 'test': 3}
  record = prepared.records('test')[0]
  assert decode_rgb(record['image']).shape == (24, 24, 3)
  assert record['source'] == str(tmp_path / 'test/dog/00.jpg')


def test_hold_out_is_by_class_seeded_and_stated(tmp_path):
  photos(tmp_path, count=10)
  photos(tmp_path, classes=('rare',), count=2)
  photos(tmp_path, classes=('single',), count=1)

  def split(**options):
    task = folder_task(tmp_path, 'pets', image_size=8, **options)
    return task, keys(task, 'train'), keys(task, 'test')

  task, train, test = split(test_fraction=0.3)
  assert not set(train) & set(test)
  assert len(train) + len(test) == 23
  held = [k.split('/')[0] for k in test]
  assert {c: held.count(c) for c in task.classes} == {
      'cat': 3, 'dog': 3, 'rare': 1, 'single': 0}
  assert '0.3 of the images of each class' in task.description
  assert split(test_fraction=0.3)[2] == test
  assert split(test_fraction=0.3, split_seed=1)[2] != test


def test_folder_images_are_resized_once_and_exact_as_png(tmp_path):
  photos(tmp_path, size=(40, 30))
  exact, lossy = (
      {e.key: decode_rgb(e.image) for e in folder_task(
          tmp_path, 'pets', image_size=16, encoding=encoding).splits['train']()}
      for encoding in ('png', 'jpeg'))
  key = next(iter(exact))
  np.testing.assert_array_equal(
      exact[key], read_image(tmp_path / key, image_size=16))
  difference = np.abs(lossy[key].astype(int) - exact[key])
  assert 0 < difference.mean() < 12


@pytest.mark.parametrize('kind', ['rotated', '16 bit', 'grey', 'transparent'])
def test_unusual_images(tmp_path, kind):
  photos(tmp_path, count=2)
  left_to_right = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))
  path = tmp_path / 'cat/00.png'
  if kind == 'rotated':
    exif = Image.Exif()
    exif[0x0112] = 3  # To be turned by 180 degrees.
    Image.fromarray(left_to_right[:, ::-1]).save(path, exif=exif)
  elif kind == '16 bit':
    Image.fromarray(left_to_right.astype(np.uint16) * 257).save(path)
  elif kind == 'grey':
    Image.fromarray(left_to_right).save(path)
  else:
    rgb = np.dstack([left_to_right] * 3 + [np.full_like(left_to_right, 255)])
    Image.fromarray(rgb).save(path)
  task = folder_task(tmp_path, 'pets', image_size=32, encoding='png')
  image = next(
      decode_rgb(e.image) for split in ('train', 'test')
      for e in task.splits[split]() if e.key == 'cat/00.png')
  np.testing.assert_array_equal(image, np.dstack([left_to_right] * 3))


def test_a_few_unreadable_files_are_listed_and_skipped(tmp_path):
  photos(tmp_path / 'train', count=100, size=(8, 8))
  photos(tmp_path / 'test', count=1)
  (tmp_path / 'train/cat/07.jpg').write_bytes(b'junk')
  whole = (tmp_path / 'train/dog/03.jpg').read_bytes()
  (tmp_path / 'train/dog/03.jpg').write_bytes(whole[:len(whole) // 2])
  said = []
  task = folder_task(tmp_path, 'pets', image_size=8, report=said.append)
  prepared = store(task, tmp_path / 'data', **QUIET)
  assert prepared.sizes['train'] == 198
  assert [line.split(':')[0] for line in said] == [
      f'skipped {tmp_path}/train/cat/07.jpg',
      f'skipped {tmp_path}/train/dog/03.jpg']
  (tmp_path / 'train/dog/04.jpg').write_bytes(b'')
  with pytest.raises(InputError, match='more than 1% of the 200.*dog/04.jpg'):
    store(task, tmp_path / 'other', **QUIET)
  assert list_tasks(tmp_path / 'other') == []


@pytest.mark.parametrize('make,message', [
    (lambda f: None, 'there is no folder'),
    (lambda f: f.mkdir(), 'has 0 folders'),
    (lambda f: photos(f, classes=('cat',)), 'has 1 folders'),
    (lambda f: photos(f / 'train'), 'no folder test/'),
    (lambda f: photos(f / 'test'), 'no folder train/'),
    (lambda f: (photos(f), (f / 'empty').mkdir()), 'empty has no image'),
    (lambda f: (photos(f / 'train'), photos(f / 'test', classes=('cow',))),
     'classes that train/ has not: cow'),
])
def test_folders_laid_out_otherwise(tmp_path, make, message):
  make(tmp_path / 'source')
  with pytest.raises(InputError, match=message):
    folder_task(tmp_path / 'source', 'pets', image_size=8)


@pytest.mark.parametrize('closed', ['', 'cat', 'cat/deeper'])
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, closed):
  photos(tmp_path)
  photos(tmp_path / 'cat', classes=('deeper',))
  closed = tmp_path / closed

  def refusing(call):
    def wrapped(path='.'):
      if Path(path) == closed:
        raise PermissionError(13, 'Permission denied', str(path))
      return call(path)
    return wrapped

  # A superuser, such as that of many a container, may read any folder.
  for name in ('listdir', 'scandir'):
    monkeypatch.setattr(os, name, refusing(getattr(os, name)))
  with pytest.raises(InputError, match=f'^{closed} cannot be read: Permission denied$'):
    folder_task(tmp_path, 'pets', image_size=8)


@pytest.mark.parametrize('options,message', [
    ({'encoding': 'webp'}, "no encoding 'webp', only jpeg and png"),
    ({'test_fraction': 0.0}, 'test fraction'),
    ({'test_fraction': 1.0}, 'test fraction'),
])
def test_folder_options_out_of_range(tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    folder_task(photos(tmp_path), 'pets', image_size=8, **options)


def test_the_first_example_comes_before_the_rest_is_read(
    tmp_path, monkeypatch):
  """What a repeated `store` asks for must not cost a pass over the folder."""
  photos(tmp_path, count=100, size=(8, 8))
  task = folder_task(tmp_path, 'pets', image_size=8)
  read = []

  def slow(encoded):
    read.append(encoded)
    time.sleep(0.01)
    return np.zeros((8, 8, 3), np.uint8)

  monkeypatch.setattr(folder, 'decode_strictly', slow)
  examples = iter(task.splits['train']())
  assert isinstance(next(examples), Example)
  examples.close()
  assert len(read) < 80
