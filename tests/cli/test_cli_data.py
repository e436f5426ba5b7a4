import dataclasses
import os
import shutil

import cv2
import numpy as np
import pytest
from command_line import assert_refused, run_command
from test_builders import shards
from test_readers_folder import photos
from tiny_tasks import examples_of, store_tiny, tiny_task, with_examples

from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.data.builders import base
from painformer_jax.data.builders import shards as shards_lib
from painformer_jax.data.check import check_task, check_tasks, table
from painformer_jax.data.demo import fetch, tasks
from painformer_jax.data.demo.fetch import default_cache_dir, require
from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.data.prepared import list_tasks, open_task

# Folders, end to end.


def test_prepare_then_check(tmp_path, painformer):
  photos(tmp_path / 'pets', count=10)
  prepare = [
    'data',
    'prepare',
    'folder',
    '--source',
    tmp_path / 'pets',
    '--name',
    'pets',
    '--data-dir',
    tmp_path / 'data',
    '--image-size',
    '24',
    '--encoding',
    'png',
    '--modality',
    'animal',
  ]
  first = painformer(*prepare)
  assert first.returncode == 0, first.stderr
  assert 'stored 16 train + 4 test images' in first.stderr
  task = open_task(tmp_path / 'data', 'pets')
  assert (task.classes, task.modality) == (('cat', 'dog'), 'animal')

  again = run_command(*prepare)
  assert again.returncode == 0 and 'skipped' in again.stderr

  check = run_command('data', 'check', '--data-dir', tmp_path / 'data')
  assert check.returncode == 0, check.stderr
  header, *rows = [line.split() for line in check.stdout.splitlines()]
  assert header[:3] == ['task', 'split', 'images']
  assert rows == [
    ['pets', 'train', '16', '2', '-', '24', 'x', '24', '0', '0', 'ok'],
    ['pets', 'test', '4', '2', '-', '24', 'x', '24', '0', '0', 'ok'],
  ]

  other = run_command(*prepare, '--test-fraction', '0.5')
  assert_refused(other, 'images')


@pytest.mark.parametrize(
  'args,message',
  [
    (['data'], 'required: ACTION'),
    (['data', 'prepare'], 'required: READER'),
    (['data', 'prepare', 'folder', '--name', 'x'], 'required: --source'),
    (['data', 'prepare', 'folder', '--source', 'nowhere', '--name', 'x'], 'nowhere'),
    (
      ['data', 'prepare', 'folder', '--source', '.', '--name', 'x', '--image-size', '0'],
      '--image-size',
    ),
    (
      ['data', 'prepare', 'folder', '--source', '.', '--name', 'x', '--image-size', '200000'],
      '200000 is not a whole number from 1 to 4096',
    ),
    (['data', 'demo', '--image-size', 'big'], 'big is not a whole number from 1 to 4096'),
    (['data', 'check', '--data-dir', 'nowhere'], 'no data folder nowhere'),
    (['data', 'check', '--data-dir', '.'], 'no prepared task in .'),
    (['data', 'check', '--data-dir', 'gs://bucket/data'], 'gs://bucket/data is an address'),
    (['data', 'list', '--data-dir', 'nowhere'], 'no data folder nowhere'),
    (['data', 'list', '--data-dir', '.'], 'no prepared task in .'),
  ],
)
def test_bad_usage(tmp_path, monkeypatch, args, message):
  monkeypatch.chdir(tmp_path)
  assert_refused(run_command(*args), message, alone=True)


def prepare_pets(tmp_path, data_dir, *, run=run_command, **options):
  return run(
    'data',
    'prepare',
    'folder',
    '--source',
    tmp_path / 'pets',
    '--name',
    'pets',
    '--data-dir',
    data_dir,
    '--image-size',
    '64',
    '--encoding',
    'png',
    **options,
  )


def test_a_data_folder_that_is_a_file(tmp_path):
  photos(tmp_path / 'pets', count=2)
  (tmp_path / 'data').write_text('a file')
  assert_refused(
    prepare_pets(tmp_path, tmp_path / 'data'), tmp_path / 'data/pets', 'Not a directory'
  )


# At the first metadata, and in the middle of a file of records.
@pytest.mark.parametrize('limit', [100, 20_000])
def test_a_full_disk(tmp_path, painformer, limit):
  """A limit on the size of files stands for it: writing fails the same way."""
  photos(tmp_path / 'pets', count=20)
  done = prepare_pets(tmp_path, tmp_path / 'data', run=painformer, file_limit=limit)
  assert_refused(done, tmp_path / 'data/pets', 'File too large')
  assert [p.name for p in (tmp_path / 'data/pets').iterdir()] == ['.lock']
  assert prepare_pets(tmp_path, tmp_path / 'data').returncode == 0


def test_a_file_name_that_is_not_utf_8(tmp_path):
  photos(tmp_path / 'pets', count=2)
  os.rename(tmp_path / 'pets/cat/00.jpg', os.fsencode(tmp_path / 'pets/cat') + b'/caf\xe9.jpg')
  assert_refused(prepare_pets(tmp_path, tmp_path / 'data'), r'/pets/cat/caf\xe9.jpg', 'UTF-8')
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize(
  'args',
  [
    ['data'],
    ['data', 'demo'],
    ['data', 'prepare'],
    ['data', 'prepare', 'folder'],
    ['data', 'list'],
    ['data', 'check'],
  ],
)
def test_help_has_an_example(capsys, args):
  with pytest.raises(SystemExit) as exit_:
    main([*args, '--help'])
  assert exit_.value.code == 0
  assert '\nexample:\n  painformer data ' in capsys.readouterr().out


def test_traceback_may_stand_at_the_end(tmp_path):
  result = run_command('data', 'check', '--data-dir', tmp_path / 'no', '--traceback')
  assert result.returncode == 2 and 'Traceback' in result.stderr


# The check.


def by_split(reports):
  return {(r.task, r.split): r for r in reports}


def test_leakage_and_repeats(tmp_path):
  """Equal pixels count, whatever the key or the encoding."""
  task = tiny_task(train=6, test=3)
  train, test = (examples_of(task, s) for s in ('train', 'test'))
  again = [dataclasses.replace(e, key=f'again {e.key}') for e in train]
  other_file = dataclasses.replace(again[1], image=reencoded(again[1].image))
  assert other_file.image != again[1].image
  base.store(
    with_examples(task, train=[*train, again[0]], test=[*test, other_file, again[2]]),
    tmp_path,
    progress=lambda line: None,
  )
  reports = by_split(check_tasks(tmp_path))
  train, test = reports['tiny', 'train'], reports['tiny', 'test']
  assert (train.repeats, train.leaked, train.problems) == (1, 0, ())
  assert (test.repeats, test.leaked) == (0, 2)
  assert test.problems == (
    'leakage, images that are in train too (40.00% of the split; --max-leaked allows '
    'some): again 1, again 2',
  )
  result = run_command('data', 'check', '--data-dir', tmp_path)
  assert_refused(result, '1 of 2 splits', 'tiny test')
  assert 'leakage' in result.stdout
  # What cannot be helped can be allowed, and is still counted.
  assert main(['data', 'check', '--data-dir', str(tmp_path), '--max-leaked', '0.39']) == 2
  assert main(['data', 'check', '--data-dir', str(tmp_path), '--max-leaked', '0.4']) == 0
  assert by_split(check_tasks(tmp_path, max_leaked=0.4))['tiny', 'test'].leaked == 2


def reencoded(png):
  image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
  return cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()


def test_damage_is_found_in_every_task(tmp_path, monkeypatch):
  store_tiny(tmp_path, 'sound')
  # A byte of a record changed.
  flipped = store_tiny(tmp_path, 'flipped', image_size=64)
  shard = shards(flipped)[0]
  content = bytearray(shard.read_bytes())
  image = flipped.records('train')[3]['image']
  content[content.find(image) + 99] ^= 0xFF
  shard.write_bytes(content)
  # Another file of the same format in its place.
  swapped = store_tiny(tmp_path, 'swapped')
  other = store_tiny(tmp_path / 'elsewhere', 'other')
  shutil.copy(shards(other)[0], shards(swapped)[0])
  # A split file gone.
  shards(store_tiny(tmp_path, 'gone'), 'test')[0].unlink()
  # Images that are none.
  monkeypatch.setattr(shards_lib, 'decode_strictly', lambda encoded: None)
  task = tiny_task('spoiled', train=6, test=0)
  base.store(
    with_examples(
      task,
      train=[dataclasses.replace(e, image=b'junk') if int(e.key) else e for e in examples_of(task)],
    ),
    tmp_path,
    progress=lambda line: None,
  )

  reports = by_split(check_tasks(tmp_path))
  assert all(not r.problems for r in reports.values() if r.task == 'sound')
  assert 'record 3 of 12 is damaged' in reports['flipped', 'train'].problems[0]
  assert reports['flipped', 'test'].problems == ()
  assert reports['swapped', 'train'].problems == ('the records are not those that were stored',)
  assert 'is missing' in reports['gone', '-'].problems[0]
  assert (
    reports['spoiled', 'train']
    .problems[0]
    .startswith("unreadable: example '1': not a readable image")
  )
  assert reports['spoiled', 'train'].problems[0].endswith('and 2 more')


def test_a_check_of_some_tasks(tmp_path, capsys):
  for name in ('one', 'two', 'three'):
    store_tiny(tmp_path, name)
  assert [r.task for r in check_tasks(tmp_path, names=('two', 'one'))] == [
    'one',
    'one',
    'two',
    'two',
  ]
  assert main(['data', 'check', 'three', '--data-dir', str(tmp_path)]) == 0
  assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
    'task',
    'three',
    'three',
  ]
  for arguments, message in (
    (['four'], "no task 'four' in"),
    (['--max-leaked', '2'], 'leaked images, 2.0, is not from 0 to 1'),
  ):
    assert main(['data', 'check', *arguments, '--data-dir', str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_classes_without_an_image_are_shown(tmp_path):
  task = tiny_task(train=6, test=0, classes=4)
  base.store(
    with_examples(task, train=[e for e in examples_of(task) if e.label != 2]),
    tmp_path,
    progress=lambda line: None,
  )
  found = check_tasks(tmp_path)
  assert (found[0].classes, found[0].of_classes) == (3, 4)
  assert '  3 of 4  ' in table(found)


def test_the_list_is_of_metadata_alone(tmp_path, monkeypatch, capsys):
  store_tiny(tmp_path, 'one', modality='face')
  store_tiny(tmp_path, 'vggface2', train=2000, test=4, modality='face')
  shards(store_tiny(tmp_path, 'gone'))[0].unlink()
  (tmp_path / 'half/.incomplete').mkdir(parents=True)
  monkeypatch.setattr('painformer_jax.data.prepared.Records.__getitem__', None)
  assert main(['data', 'list', '--data-dir', str(tmp_path)]) == 2
  found = capsys.readouterr()
  rows = [line.split() for line in found.out.splitlines()]
  assert rows[0][:3] == ['task', 'modality', 'classes']
  assert rows[1][:8] == ['one', 'face', '3', '12', 'train', '+', '5', 'test']
  assert rows[2][:8] == ['vggface2', 'face', '3', '2,000', 'train', '+', '4', 'test']
  assert '3 classes, not 9,131, 0.1% of the samples' in found.out and '10.9 M' in found.out
  assert '\nnot finished; run the same command again to continue: half\n' in found.out
  assert 'is missing or empty' in found.err and found.err.startswith('painformer: ')


def test_labels_out_of_range(tmp_path):
  prepared = store_tiny(tmp_path)
  names = prepared.path / 'label.labels.txt'
  names.write_text('\n'.join(names.read_text().splitlines()[:2]))
  features = prepared.path / 'features.json'
  features.write_text(features.read_text().replace('"3"', '"2"'))
  report = check_task(open_task(tmp_path, 'tiny'))[0]
  assert report.problems == ('labels outside 0 to 1: 2',)


# The demo corpus.


def of_recordings(task, *, train='day', test='night'):
  """The task with spans as sources: a second each, of one recording a split."""

  def items(split, recording):
    return [
      dataclasses.replace(
        item, source=str(RecordingSpan(recording=recording, channel='ecg', start=i, stop=i + 1))
      )
      for i, item in enumerate(task.splits[split])
    ]

  return dataclasses.replace(
    task, splits={'train': items('train', train), 'test': items('test', test)}
  )


def test_demo_fetches_and_stores_every_task(tmp_path, monkeypatch, capsys):
  calls = []

  def fetch_(cache, *, progress):
    calls.append(('fetch', cache))
    progress('fetched')
    return tmp_path / 'cache'

  def demo_tasks(cache, *, image_size):
    calls.append(('tasks', cache, image_size))
    return [of_recordings(tiny_task('one', image_size=image_size)), of_recordings(tiny_task('two'))]

  monkeypatch.setattr(fetch, 'fetch', fetch_)
  monkeypatch.setattr(tasks, 'demo_tasks', demo_tasks)
  demo = ['data', 'demo', '--data-dir', str(tmp_path / 'data')]
  assert main([*demo, '--cache', 'here', '--image-size', '24']) == 0
  assert main(demo) == 2, 'stored in 96 pixels what was stored in 24'
  assert calls == [
    ('fetch', 'here'),
    ('tasks', tmp_path / 'cache', 24),
    ('fetch', None),
    ('tasks', tmp_path / 'cache', 96),
  ]
  assert list_tasks(tmp_path / 'data') == ['one', 'two']
  assert 'fetched' in capsys.readouterr().err


@pytest.mark.demo_corpus
def test_the_real_demo_corpus_is_prepared_and_sound(tmp_path):
  try:
    require(default_cache_dir())
  except InputError as error:
    pytest.skip(str(error))
  assert main(['data', 'demo', '--data-dir', str(tmp_path), '--image-size', '32']) == 0
  reports = check_tasks(tmp_path)
  assert len({r.task for r in reports}) >= 5
  assert [r.problems for r in reports if r.problems] == []
