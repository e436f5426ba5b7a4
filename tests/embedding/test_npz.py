"""A .npz written row by row."""

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
from painformer_jax.embedding.npz import NpzWriter

COLUMNS = {'vector': ((3,), np.float32), 'name': ((), str), 'number': ((), np.int64)}


def rows(count, start=0):
  numbers = np.arange(start, start + count)
  return {
    'vector': np.outer(numbers, np.ones(3)),
    'number': list(numbers),
    'name': [f'file {n // 3} é' for n in numbers],
  }


def test_everything_comes_back(tmp_path):
  with NpzWriter(tmp_path / 'a.npz', COLUMNS) as writer:
    for start in range(0, 9_000, 1_000):
      writer.append(**rows(1_000, start))
    assert writer.rows == 9_000
    assert not (tmp_path / 'a.npz').exists()
    writer.finish(note='from è')
  wanted = rows(9_000)
  with np.load(tmp_path / 'a.npz', allow_pickle=False) as file:
    assert sorted(file.files) == ['name', 'note', 'number', 'vector']
    for name, column in wanted.items():
      np.testing.assert_array_equal(file[name], column)
    assert file['vector'].dtype == np.float32 and file['number'].dtype == np.int64
    assert file['note'].shape == () and str(file['note']) == 'from è'
  assert [p.name for p in tmp_path.iterdir()] == ['a.npz']


def test_no_rows(tmp_path):
  with NpzWriter(tmp_path / 'a.npz', COLUMNS) as writer:
    writer.finish()
  with np.load(tmp_path / 'a.npz') as file:
    assert file['vector'].shape == (0, 3) and file['name'].shape == (0,)


def test_leaving_early_leaves_what_was_there(tmp_path):
  target = tmp_path / 'a.npz'
  target.write_bytes(b'older')
  with pytest.raises(KeyboardInterrupt):
    with NpzWriter(target, COLUMNS) as writer:
      writer.append(**rows(5))
      raise KeyboardInterrupt
  assert target.read_bytes() == b'older'
  assert list(tmp_path.iterdir()) == [target]


def test_memory_does_not_grow_with_rows(tmp_path):
  columns = {'vector': ((256,), np.float32), 'name': ((), str)}
  batch = {'vector': np.ones((1_000, 256), np.float32), 'name': ['one file'] * 1_000}
  tracemalloc.start()
  with NpzWriter(tmp_path / 'a.npz', columns) as writer:
    for _ in range(60):
      writer.append(**batch)
    writer.finish()
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (tmp_path / 'a.npz').stat().st_size > 60 << 20 > 8 * peak


@pytest.mark.parametrize(
  'columns',
  [
    {'vector': np.ones((2, 3)), 'name': ['a', 'b']},
    {'vector': np.ones((2, 3)), 'name': ['a'], 'number': [1, 2]},
    {'vector': np.ones((2, 4)), 'name': ['a', 'b'], 'number': [1, 2]},
  ],
  ids=['missing', 'ragged', 'wrong shape'],
)
def test_columns_that_do_not_fit(tmp_path, columns):
  with NpzWriter(tmp_path / 'a.npz', COLUMNS) as writer:
    with pytest.raises(ValueError):
      writer.append(**columns)


def test_target_that_cannot_be(tmp_path):
  with pytest.raises(InputError, match='is a folder'):
    NpzWriter(tmp_path, COLUMNS)
  with pytest.raises(InputError, match='absent/a.npz cannot be written'):
    NpzWriter(tmp_path / 'absent' / 'a.npz', COLUMNS)
  with pytest.raises(InputError, match='File name too long'):
    NpzWriter(tmp_path / f'{"a" * 300}.npz', COLUMNS)
  assert not list(tmp_path.iterdir())


def test_a_link_is_followed(tmp_path):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'link.npz').symlink_to('there/a.npz')
  with NpzWriter(tmp_path / 'link.npz', COLUMNS) as writer:
    writer.append(**rows(5))
    writer.finish()
  assert (tmp_path / 'link.npz').is_symlink()
  with np.load(tmp_path / 'there' / 'a.npz') as file:
    assert len(file['vector']) == 5
  assert sorted(p.name for p in tmp_path.rglob('*')) == ['a.npz', 'link.npz', 'there']


def test_a_pipe_stays_a_pipe(tmp_path):
  pipe, found = tmp_path / 'pipe', []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
  reader.start()
  with NpzWriter(pipe, COLUMNS) as writer:
    writer.append(**rows(5))
    writer.finish()
  reader.join(20)
  with np.load(io.BytesIO(found[0])) as file:
    assert len(file['vector']) == 5
  assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize('count', [1, 2_000], ids=['at the end', 'while rows come'])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, count):
  """A limit on file sizes stands in for a full disk: a real error."""
  script = (
    'import resource, sys, test_npz\n'
    'from painformer_jax.core.errors import InputError\n'
    'from painformer_jax.embedding.npz import NpzWriter\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n'
    'try:\n'
    '  with NpzWriter(sys.argv[1], test_npz.COLUMNS) as writer:\n'
    '    for start in range(0, 3 * int(sys.argv[2]), int(sys.argv[2])):\n'
    '      writer.append(**test_npz.rows(int(sys.argv[2]), start))\n'
    '    writer.finish()\n'
    'except InputError as error:\n'
    '  print(error)\n'
  )
  target = tmp_path / 'a.npz'
  target.write_bytes(b'older')
  done = subprocess.run(
    [sys.executable, '-c', script, str(target), str(count)],
    capture_output=True,
    text=True,
    env=environment(),
    check=False,
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == (
    f'{target} cannot be written: File too large; free some space or choose another place\n'
  )
  assert target.read_bytes() == b'older' and list(tmp_path.iterdir()) == [target]
