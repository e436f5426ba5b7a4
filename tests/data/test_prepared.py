"""Opening prepared tasks: what is absent or damaged, and many files at once."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_builders import shards
from tiny_tasks import store_tiny

from painformer_jax.core.errors import InputError
from painformer_jax.data.prepared import list_tasks, open_task


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


@pytest.mark.parametrize(
  'damage', ['no info', 'half info', 'no metadata', 'other metadata', 'no shard', 'empty shard']
)
def test_damaged_folders(tmp_path, damage):
  prepared = store_tiny(tmp_path)
  info, metadata = (prepared.path / n for n in ('dataset_info.json', 'metadata.json'))
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


def damage_record(prepared, number):
  """Changes a byte of a record of the training split's first shard."""
  shard = shards(prepared)[0]
  content = bytearray(shard.read_bytes())
  image = prepared.records('train')[number]['image']
  content[content.find(image) + len(image) // 2] ^= 0xFF
  shard.write_bytes(content)


def test_a_damaged_record_is_named(tmp_path):
  damage_record(store_tiny(tmp_path, train=40, image_size=64), 20)
  records = open_task(tmp_path, 'tiny').records('train')
  with pytest.raises(InputError, match="split 'train': record 20 of 40 is damaged"):
    records[20]
  assert records[19]['key'] == '19'


def test_more_files_than_are_allowed_at_first(tmp_path):
  """The soft limit is raised as far as the system grants; beyond that it is said."""
  script = textwrap.dedent(f"""
      import resource, sys
      sys.path.insert(0, {str(Path(__file__).parents[1] / 'helpers')!r})
      from painformer_jax.data.builders import base
      from painformer_jax.data.prepared import open_task
      from tiny_tasks import store_tiny
      base.IMAGES_PER_SHARD = 1
      store_tiny({str(tmp_path)!r}, train=60, test=0)
      hard = int(sys.argv[1])
      resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
      records = open_task({str(tmp_path)!r}, 'tiny').records('train')
      print(sorted(int(records[i]['key']) for i in range(60)) == list(range(60)))
      """)

  def run(hard):
    return subprocess.run([sys.executable, '-c', script, str(hard)], capture_output=True, text=True)

  assert run(400).stdout.splitlines()[-1] == 'True'
  refused = run(40)
  assert refused.returncode == 1
  assert (
    "task 'tiny' and the others have more files than this process may open, 40"
    in (refused.stderr.splitlines()[-1])
  )


@pytest.mark.parametrize('address', ['gs://bucket/data', 's3:/bucket'])
def test_the_address_of_a_bucket_is_no_folder(tmp_path, monkeypatch, address):
  monkeypatch.chdir(tmp_path)
  for call in (lambda: store_tiny(address), lambda: list_tasks(Path(address))):
    with pytest.raises(InputError, match='is an address, not a folder.*mount the bucket'):
      call()
  assert not list(tmp_path.iterdir())
