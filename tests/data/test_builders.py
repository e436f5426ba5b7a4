import dataclasses
import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tiny_tasks import examples_of, store_tiny, tiny_image, tiny_task, with_examples

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders import base
from painformer_jax.data.builders.base import store
from painformer_jax.data.prepared import list_tasks, open_task

QUIET = {'progress': lambda line: None}


def shards(prepared, split='train'):
  return sorted(prepared.path.glob(f'*-{split}.array_record*'))


def records_of(task, split='train'):
  return [(e.key, e.label, e.image) for e in examples_of(task, split)]


def stored_of(prepared, split='train'):
  records = prepared.records(split)
  return [(r['key'], r['label'], r['image']) for r in (records[i] for i in range(len(records)))]


# Storing.


def test_what_is_stored_is_what_was_given(tmp_path, monkeypatch):
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 5)
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
    source[1]['image'], tiny_image('tiny', 13, label=1, classes=3, image_size=16)
  )
  assert (source[1]['label'], source[1]['key']) == (1, b'13')
  assert 'tensorflow' not in sys.modules


def test_own_parsing_agrees_with_tfds(tmp_path):
  prepared = store_tiny(tmp_path)
  theirs = tfds.builder_from_directory(str(prepared.path)).as_data_source(
    'train', decoders={'image': tfds.decode.SkipDecoding()}
  )
  for ours, other in zip((prepared.records('train')[i] for i in range(12)), theirs, strict=True):
    assert ours == {
      'image': other['image'],
      'label': other['label'],
      'key': other['key'].decode(),
      'source': other['source'].decode(),
      'identity': other['identity'].decode(),
    }


def test_any_record_can_be_read_alone(tmp_path):
  for shard in shards(store_tiny(tmp_path)):
    reader = array_record_module.ArrayRecordReader(str(shard))
    assert 'group_size:1,' in reader.writer_options_string()


def test_storing_twice_writes_once(tmp_path):
  store_tiny(tmp_path)
  before = {
    p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file() and p.name != '.lock'
  }
  said = []
  again = store(tiny_task(), tmp_path, progress=said.append)
  assert again.sizes == {'train': 12, 'test': 5}
  assert len(said) == 1 and 'skipped' in said[0]
  assert before == {p: p.stat().st_mtime_ns for p in before}


def test_other_words_for_the_same_images_are_the_same_task(tmp_path):
  store_tiny(tmp_path)
  said = []
  store(
    dataclasses.replace(tiny_task(), description='As a later release says it.'),
    tmp_path,
    progress=said.append,
  )
  assert 'skipped' in said[-1]


@pytest.mark.parametrize(
  'change,what',
  [
    ({'image_size': 20}, 'settings'),
    ({'classes': 4}, 'classes'),
    ({'modality': 'face'}, 'modality'),
    ({'test': 0}, 'splits'),
    ({'train': 9}, 'images'),
  ],
)
def test_another_task_of_the_same_name_is_refused(tmp_path, change, what):
  store_tiny(tmp_path)
  with pytest.raises(InputError, match=f'differs in: .*{what}'):
    store_tiny(tmp_path, **change)


def test_a_kill_keeps_what_is_finished(tmp_path, monkeypatch):
  """SIGKILL in the third shard: not visible; the next run goes on with the third."""
  script = textwrap.dedent(f"""
      import dataclasses, os, signal, sys
      sys.path.insert(0, {str(Path(__file__).parents[1] / 'helpers')!r})
      from painformer_jax.data.builders import base
      from tiny_tasks import tiny_task
      base.IMAGES_PER_SHARD = 10
      task = tiny_task(train=50)
      def read(item):
        if item.key == '27':
          os.kill(os.getpid(), signal.SIGKILL)
        return task.read(item)
      base.store(dataclasses.replace(task, read=read), {str(tmp_path / 'data')!r}, threads=1)
      """)
  run = subprocess.run([sys.executable, '-c', script], capture_output=True)
  assert run.returncode == -signal.SIGKILL, run.stderr
  there = {p.name for p in (tmp_path / 'data/tiny/.incomplete').iterdir()}
  assert there >= {'train-00000.json', 'train-00001.json'} and 'train-00002.json' not in there
  assert list_tasks(tmp_path / 'data') == []
  with pytest.raises(InputError, match="task 'tiny' in .* is not finished"):
    open_task(tmp_path / 'data', 'tiny')

  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  task, said, read = tiny_task(train=50), [], []
  resumed = store(
    dataclasses.replace(task, read=lambda i: read.append(i.key) or task.read(i)),
    tmp_path / 'data',
    progress=said.append,
  )
  assert 'resumes' in said[0] and '20 images are stored' in said[0]
  assert sorted(read, key=int) == [str(i) for i in range(20, 55)]
  assert not (tmp_path / 'data/tiny/.incomplete').exists()
  assert resumed.sha256 == store_tiny(tmp_path / 'other', train=50).sha256
  assert {p.name for p in resumed.path.iterdir()} == {
    p.name for p in (tmp_path / 'other/tiny/1.1.0').iterdir()
  }


@pytest.mark.parametrize('change', [{'image_size': 20}, {'classes': 2}])
def test_shards_of_another_listing_are_not_kept(tmp_path, monkeypatch, change):
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)

  def stop(item):
    if item.key == '27':
      raise KeyboardInterrupt
    return task.read(item)

  task = tiny_task(train=50)
  with pytest.raises(KeyboardInterrupt):
    store(dataclasses.replace(task, read=stop), tmp_path, threads=1, **QUIET)
  assert list((tmp_path / 'tiny/.incomplete').glob('*.json'))
  said = []
  prepared = store(tiny_task(train=50, **change), tmp_path, progress=said.append)
  assert 'removed' in said[0]
  assert stored_of(prepared) == records_of(tiny_task(train=50, **change))


def test_killed_between_the_names(tmp_path, monkeypatch):
  """Finished files that have got their final names already are written again."""
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  replace, calls = os.replace, []

  def dies(source, target):
    if 'array_record-' in str(target):
      calls.append(target)
      if len(calls) == 3:
        raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(base.os, 'replace', dies)
  with pytest.raises(KeyboardInterrupt):
    store_tiny(tmp_path, train=50)
  monkeypatch.setattr(base.os, 'replace', replace)
  prepared = store_tiny(tmp_path, train=50)
  assert stored_of(prepared) == records_of(tiny_task(train=50))
  assert prepared.sha256 == store_tiny(tmp_path / 'other', train=50).sha256


@pytest.mark.parametrize('threads', [1, 3, 16])
def test_threads_change_nothing(tmp_path, threads, monkeypatch):
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  prepared = store(tiny_task(train=50), tmp_path, threads=threads, **QUIET)
  assert stored_of(prepared) == records_of(tiny_task(train=50))
  assert prepared.shards == {'train': (10,) * 5, 'test': (5,)}


# What cannot be read.


def with_junk(*keys, train=40):
  return with_examples(
    tiny_task(),
    train=[
      dataclasses.replace(e, image=b'junk') if e.key in keys else e
      for e in examples_of(tiny_task(train=train))
    ],
  )


def test_unreadable_images_are_left_out_and_listed(tmp_path):
  said = []
  prepared = store(with_junk('3', '30'), tmp_path, max_unreadable=0.05, progress=said.append)
  assert prepared.sizes == {'train': 38}
  assert [r[0] for r in stored_of(prepared)] == [str(i) for i in range(40) if i not in (3, 30)]
  assert sum(line.startswith('skipped: ') for line in said) == 2
  assert '2 left out' in said[-1]
  listed = (prepared.path / 'skipped.txt').read_text().splitlines()
  assert [line.split(':')[0] for line in listed] == ['3', '30']
  again = store(with_junk('3', '30'), tmp_path, max_unreadable=0.05, **QUIET)
  assert again.sizes == prepared.sizes


@pytest.mark.parametrize(
  'share,bad,fits',
  [(0.0, 1, False), (0.001, 1, True), (0.001, 2, False), (0.1, 4, True), (0.1, 5, False)],
)
def test_the_limit_of_unreadable_images(tmp_path, share, bad, fits):
  task = with_junk(*(str(i) for i in range(bad)))
  if fits:
    assert store(task, tmp_path, max_unreadable=share, **QUIET).sizes['train'] == 40 - bad
  else:
    with pytest.raises(InputError, match='not a readable image'):
      store(task, tmp_path, max_unreadable=share, **QUIET)
    assert list_tasks(tmp_path) == []


def test_the_limit_counts_what_an_interrupted_run_skipped(tmp_path, monkeypatch):
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  task = with_junk('3', '33')

  def stop(item):
    if item.key == '25':
      raise KeyboardInterrupt
    return item.detail

  with pytest.raises(KeyboardInterrupt):
    store(dataclasses.replace(task, read=stop), tmp_path, max_unreadable=0.03, threads=1, **QUIET)
  with pytest.raises(InputError, match='more than 3.00% of the 40 images'):
    store(task, tmp_path, max_unreadable=0.03, **QUIET)


def test_a_shard_without_a_readable_image(tmp_path, monkeypatch):
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  with pytest.raises(InputError, match="none of the 10 images from '10' on"):
    store(with_junk(*(str(i) for i in range(10, 20))), tmp_path, max_unreadable=0.5, **QUIET)


def test_identities_are_stored(tmp_path):
  examples = [
    dataclasses.replace(e, identity=f'person {e.label}') for e in examples_of(tiny_task())
  ]
  prepared = store(with_examples(tiny_task(), train=examples), tmp_path, **QUIET)
  assert prepared.records('train')[4]['identity'] == 'person 1'


def test_two_writers_at_once(tmp_path):
  (tmp_path / 'tiny').mkdir()
  with open(tmp_path / 'tiny/.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match='another process is storing'):
      store_tiny(tmp_path)
  store_tiny(tmp_path)


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
  def flock(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(base.fcntl, 'flock', flock)
  said = []
  if number == errno.ENOLCK:
    assert store(tiny_task(), tmp_path, progress=said.append).sizes['train'] == 12
    assert 'without locks: make sure' in said[0]
  else:
    with pytest.raises(InputError, match='cannot be written: Input/output error'):
      store(tiny_task(), tmp_path, progress=said.append)


def test_what_a_lost_worker_left_is_cleared(tmp_path, monkeypatch):
  finish = base.finish

  def late(task, shards, done, work, **options):
    (work / 'train-00000.0badf00d.tmp').write_bytes(b'half of a shard')
    finish(task, shards, done, work, **options)

  monkeypatch.setattr(base, 'finish', late)
  prepared = store_tiny(tmp_path)
  assert not list(prepared.path.glob('*.tmp')) and stored_of(prepared) == records_of(tiny_task())


def test_progress_tells_the_rate(tmp_path, monkeypatch):
  monkeypatch.setattr('painformer_jax.core.progress.SECONDS_BETWEEN_LINES', 0.0)
  said = []
  store(tiny_task(), tmp_path, progress=said.append)
  assert said[0].startswith('tiny: 2 of 17 images  ')
  assert 'stored 12 train + 5 test images' in said[-1]
  assert all('images/s  eta ' in line for line in said[:-1])


def of_examples(*examples, **changes):
  return dataclasses.replace(with_examples(tiny_task(), train=examples), **changes)


def example(**changes):
  return dataclasses.replace(examples_of(tiny_task())[0], **changes)


@pytest.mark.parametrize(
  'task,message',
  [
    (
      of_examples(example(), example(key='bad one', image=b'junk')),
      r"'tiny', split 'train', example 'bad one' \(tiny, image 0\): not a readable",
    ),
    (of_examples(example(image=example().image[:300])), 'not a readable image'),
    (of_examples(example(label=3)), 'label 3 is outside 0 to 2'),
    (of_examples(example(label=-1)), 'label -1 is outside'),
    (of_examples(example(), example()), "example '0': its key occurs twice"),
    (of_examples(), "split 'train' has no image"),
    (of_examples(example(), name='Not-a-name'), 'no name for a task'),
    (of_examples(example(), name='../up'), 'no name for a task'),
    (of_examples(example(), classes=('a',)), 'has 1 class'),
    (of_examples(example(), classes=('a', 'a')), 'occurs twice'),
    (of_examples(example(), classes=('a', ' b')), "' b' is no name for a class"),
    (of_examples(example(), classes=('a', 'b\nc')), 'no name for a class'),
    (dataclasses.replace(tiny_task(), splits={}), 'has no split'),
    (dataclasses.replace(tiny_task(), splits={'a b': ()}), 'no name for a split'),
  ],
)
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
