"""Preparing with Apache Beam, on its local runner; skipped where it is not installed."""

import dataclasses
import subprocess
import sys

import pytest
from repository import environment
from test_readers_folder import photos
from tiny_tasks import encode, tiny_image, tiny_task

from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.data.builders import base
from painformer_jax.data.builders import beam as beam_store
from painformer_jax.data.builders.base import store
from painformer_jax.data.builders.beam import store_with_beam
from painformer_jax.data.prepared import list_tasks


def beam():
  return pytest.importorskip('apache_beam', reason="needs pip install '.[beam]'")


def content(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_same_files_as_one_machine_writes(tmp_path, monkeypatch):
  beam()
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  said = []
  ours = store_with_beam(tiny_task(train=45), tmp_path / 'beam', progress=said.append)
  alone = store(tiny_task(train=45), tmp_path / 'alone', progress=lambda line: None)
  assert content(ours.path) == content(alone.path)
  assert said[0] == 'tiny: 6 of 6 shards to write'
  assert 'stored 45 train + 5 test images' in said[-1]
  store_with_beam(tiny_task(train=45), tmp_path / 'beam', progress=said.append)
  assert 'skipped' in said[-1]


def test_the_pipeline_does_not_grow_with_the_dataset(tmp_path, monkeypatch):
  """Runners send it whole to a service that takes some MB; the items lie beside."""
  pipeline_of = beam().Pipeline.to_runner_api
  sizes = []

  def measured(self, *args, **kwargs):
    proto = pipeline_of(self, *args, **kwargs)
    sizes[-1].append(len((proto[0] if isinstance(proto, tuple) else proto).SerializeToString()))
    return proto

  monkeypatch.setattr(beam().Pipeline, 'to_runner_api', measured)
  for train in (20, 2000):
    sizes.append([])
    prepared = store_with_beam(
      tiny_task(train=train, image_size=1), tmp_path / str(train), progress=lambda line: None
    )
    assert prepared.sizes['train'] == train
    assert not (prepared.path / 'plan').exists()
  small, large = map(max, sizes)
  assert large < small + 2000


def test_a_shard_that_another_worker_finished_is_not_written_again(tmp_path):
  task, read = tiny_task(train=12), []
  shard = base.plan_shards(task)[0]
  beam_store._write_plan([shard], tmp_path)
  write = beam_store._writer(
    tmp_path, lambda item: read.append(item.key) or task.read(item), 1, checked=False
  )
  write(shard.name)
  write(shard.name)
  assert len(read) == 12 and not list(tmp_path.glob('*.tmp'))


def test_it_goes_on_where_one_machine_stopped(tmp_path, monkeypatch):
  beam()
  monkeypatch.setattr(base, 'IMAGES_PER_SHARD', 10)
  task = tiny_task(train=45)

  def stop(item):
    if item.key == '27':
      raise KeyboardInterrupt
    return task.read(item)

  with pytest.raises(KeyboardInterrupt):
    store(dataclasses.replace(task, read=stop), tmp_path, threads=1, progress=lambda line: None)
  said = []
  store_with_beam(task, tmp_path, progress=said.append)
  assert said[0] == 'tiny: 3 of 6 shards to write'


def test_unreadable_images_count(tmp_path):
  beam()
  task = dataclasses.replace(tiny_task(train=40), read=_junk_or_image)
  with pytest.raises(InputError, match='more than 1.00% of the 40 images'):
    store_with_beam(task, tmp_path, max_unreadable=0.01, progress=lambda line: None)
  assert list_tasks(tmp_path) == []
  prepared = store_with_beam(task, tmp_path, max_unreadable=0.1, progress=lambda line: None)
  assert prepared.sizes == {'train': 38, 'test': 5}
  assert (prepared.path / 'skipped.txt').read_text().startswith('3: not a readable image')


def _junk_or_image(item):
  if item.key in ('3', '30'):
    return b'junk'
  return encode(tiny_image('tiny', item.detail, label=item.label, classes=3, image_size=16))


def test_the_command_line(tmp_path):
  beam()
  photos(tmp_path / 'pets', count=6)
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'painformer_jax',
      'data',
      'prepare',
      'folder',
      '--source',
      'pets',
      '--name',
      'pets',
      '--data-dir',
      'data',
      '--image-size',
      '32',
      '--beam=--runner=DirectRunner',
    ],
    env=environment(),
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  assert list_tasks(tmp_path / 'data') == ['pets']


def test_workers_are_told_whole_paths(tmp_path, monkeypatch):
  photos(tmp_path / 'pets', count=2)
  monkeypatch.chdir(tmp_path)
  tasks = []
  monkeypatch.setattr(
    beam_store, 'store_with_beam', lambda task, *args, **options: tasks.append(task)
  )
  assert (
    main(
      [
        'data',
        'prepare',
        'folder',
        '--source',
        'pets',
        '--name',
        'pets',
        '--data-dir',
        'data',
        '--beam',
      ]
    )
    == 0
  )
  monkeypatch.chdir('/')
  assert tasks[0].read(tasks[0].splits['train'][0])


def test_without_beam_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  with pytest.raises(InputError, match=r"package apache_beam: pip install '.\[beam\]'"):
    store_with_beam(tiny_task(), tmp_path)
  assert not list(tmp_path.iterdir())
