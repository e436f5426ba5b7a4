"""Embeddings collected in memory and written as one .npz."""

import io
import os
import stat
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.embedding.reader import LocatedImage
from painformer_jax.embedding.writer import EmbeddingWriter

COLUMNS = {'number': np.int64, 'name': str}


def add(writer, count, start=0, width=3):
  """Row n holds n in all of its embedding."""
  numbers = range(start, start + count)
  embeddings = np.outer(numbers, np.ones(width)).astype(np.float32)
  image = np.zeros((2, 2, 3), np.uint8)
  writer.add(
    embeddings,
    [
      LocatedImage(
        image=image, source=f'file {n // 3} é', location={'number': n, 'name': f'name {n % 7}'}
      )
      for n in numbers
    ],
  )


def test_everything_comes_back(tmp_path):
  writer = EmbeddingWriter(tmp_path / 'a.npz', COLUMNS)
  for start in range(0, 900, 100):
    add(writer, 100, start)
  assert writer.rows == 900 and not list(tmp_path.iterdir())
  writer.write(weights='from è')
  with np.load(tmp_path / 'a.npz', allow_pickle=False) as file:
    rows = ['embedding', 'source', 'number', 'name']
    facts = ['weights', 'modality', 'settings', 'stand_in']
    assert file.files == ['painformer_jax', 'columns', *rows, *facts]
    assert list(file['columns']) == rows
    np.testing.assert_array_equal(file['embedding'], np.outer(np.arange(900), np.ones(3)))
    np.testing.assert_array_equal(file['number'], np.arange(900))
    assert list(file['source'][:4]) == ['file 0 é'] * 3 + ['file 1 é']
    assert list(file['name'][6:8]) == ['name 6', 'name 0']
    assert file['embedding'].dtype == np.float32 and file['number'].dtype == np.int64
    assert file['weights'].shape == () and str(file['weights']) == 'from è'
  assert [p.name for p in tmp_path.iterdir()] == ['a.npz']


def test_embeddings_that_are_not_finite_are_counted(tmp_path):
  writer = EmbeddingWriter(tmp_path / 'a.npz', {})
  image = LocatedImage(image=np.zeros((2, 2, 3), np.uint8), source='a', location={})
  writer.add(np.array([[1, np.nan], [1, 2], [np.inf, np.nan]], np.float32), [image] * 3)
  assert (writer.rows, writer.non_finite) == (3, 2)


def test_an_hour_of_video_takes_little_memory(tmp_path):
  """25 frames a second, 160-d."""
  writer = EmbeddingWriter(tmp_path / 'a.npz', COLUMNS)
  tracemalloc.start()
  for start in range(0, 90_000, 1_000):
    add(writer, 1_000, start, width=160)
  held = tracemalloc.get_traced_memory()[0]
  writer.write()
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert held < 90 << 20 and peak < 250 << 20


def test_target_that_cannot_be(tmp_path):
  (tmp_path / 'folder.npz').mkdir()
  with pytest.raises(InputError, match='is a folder'):
    EmbeddingWriter(tmp_path / 'folder.npz', COLUMNS).write()
  with pytest.raises(InputError, match='absent/a.npz cannot be written'):
    EmbeddingWriter(tmp_path / 'absent' / 'a.npz', COLUMNS).write()
  with pytest.raises(InputError, match='File name too long'):
    EmbeddingWriter(tmp_path / f'{"a" * 300}.npz', COLUMNS).write()
  assert [p.name for p in tmp_path.rglob('*')] == ['folder.npz']


def test_a_link_is_followed(tmp_path):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'link.npz').symlink_to('there/a.npz')
  writer = EmbeddingWriter(tmp_path / 'link.npz', COLUMNS)
  add(writer, 5)
  writer.write()
  assert (tmp_path / 'link.npz').is_symlink()
  with np.load(tmp_path / 'there' / 'a.npz') as file:
    assert len(file['embedding']) == 5
  assert sorted(p.name for p in tmp_path.rglob('*')) == ['a.npz', 'link.npz', 'there']


def test_a_pipe_stays_a_pipe(tmp_path):
  pipe, found = tmp_path / 'pipe', []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
  reader.start()
  writer = EmbeddingWriter(pipe, COLUMNS)
  add(writer, 5)
  writer.write()
  reader.join(20)
  with np.load(io.BytesIO(found[0])) as file:
    assert len(file['embedding']) == 5
  assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  """A limit on file sizes stands in for a full disk: a real error."""
  script = (
    'import resource, sys, test_writer\n'
    'from painformer_jax.core.errors import InputError\n'
    'from painformer_jax.embedding.writer import EmbeddingWriter\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n'
    'writer = EmbeddingWriter(sys.argv[1], test_writer.COLUMNS)\n'
    'test_writer.add(writer, 50)\n'
    'try: writer.write()\n'
    'except InputError as error: print(error)\n'
  )
  target = tmp_path / 'a.npz'
  writer = EmbeddingWriter(target, COLUMNS)
  add(writer, 5)
  writer.write()
  older = target.read_bytes()
  done = subprocess.run(
    [sys.executable, '-c', script, str(target)],
    capture_output=True,
    text=True,
    env=environment(),
    check=False,
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == (
    f'{target} cannot be written: File too large; free some space or choose another place\n'
  )
  assert target.read_bytes() == older and list(tmp_path.iterdir()) == [target]
