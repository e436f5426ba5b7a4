"""Arrays in a folder; tests/weights/test_weights_folder.py fills disks and damages files."""

from types import SimpleNamespace

import numpy as np
import pytest

from painformer_jax.checkpoints import arrays as arrays_lib
from painformer_jax.checkpoints.arrays import read_arrays, write_arrays

ARRAYS = {'a/b': np.arange(6, dtype=np.float32).reshape(2, 3), 'count': np.int32(5), 'c': np.eye(2)}


def test_some_or_all_arrays_come_back(tmp_path):
  write_arrays(tmp_path / 'x', {name: np.asarray(array) for name, array in ARRAYS.items()})
  found = read_arrays(tmp_path / 'x')
  assert found.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    assert isinstance(found[name], np.ndarray) and found[name].dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(found[name], array)
  assert [*read_arrays(tmp_path / 'x', choose=lambda tree: {'c': tree['c']})] == ['c']


def test_what_is_not_there_is_one_line(tmp_path):
  for read in (lambda: read_arrays(tmp_path / 'x'), lambda: read_arrays(tmp_path)):
    with pytest.raises(ValueError) as error:
      read()
    assert '\n' not in str(error.value)


def test_a_disk_that_fills_while_orbax_writes(tmp_path, monkeypatch):
  """After the check for space; the storage library names the system's reason."""

  def save(self, path, arrays):
    raise ValueError(
      f'RESOURCE_EXHAUSTED: Error writing "a/0" in OCDBT database at local file "{path}/": '
      "Failed writing: No space left on device [os_error_code='28'] [source locations='x']"
    )

  monkeypatch.setattr(arrays_lib.ocp.StandardCheckpointer, 'save', save)
  with pytest.raises(OSError) as error:
    write_arrays(tmp_path / 'x', {'a': np.zeros(3)})
  assert error.value.strerror == 'No space left on device'


def test_room_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr(arrays_lib.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=23))
  with pytest.raises(OSError, match='No space left'):
    write_arrays(tmp_path / 'x', {'a': np.zeros(3)})
  assert not [*tmp_path.iterdir()]
