import errno
import os
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from repository import environment

from painformer_jax.checkpoints import orbax_errors
from painformer_jax.checkpoints import read as checkpoints
from painformer_jax.checkpoints import record as records
from painformer_jax.checkpoints import store as store_lib
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.errors import InputError
from painformer_jax.parallel.mesh import data_mesh, with_shardings

RECORD = {'clock': {'steps': 3, 'seconds': 0.1}, 'position': {'step': 3, 'fingerprint': 'ab'}}


@pytest.fixture(autouse=True)
def short_pause(monkeypatch):
  monkeypatch.setattr(checkpoints, '_PAUSE', 0.0123)


def make_state(size=40):
  """A state with the kinds of leaves that a training state has."""
  values = np.random.default_rng(0).standard_normal((size, 50)).astype(np.float32)
  params = {'backbone/a': jnp.asarray(values), 'heads/t/bias': jnp.asarray(values[0])}
  return {
    'params': params,
    'stats': {'count': jnp.arange(3)},
    'opt_state': optax.adamw(1e-3).init(params),
    'key': jax.random.key_data(jax.random.key(7)),
    'step': jnp.int32(3),
    'half': jnp.asarray(values[:3], jnp.bfloat16),
  }


def abstract(state):
  mesh = data_mesh()
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
  return with_shardings(shapes, placed(mesh, shapes))


def placed(mesh, tree, *, split=''):
  """Whole on every device, but for the array of that path, which is divided by row."""

  def where(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = jax.sharding.PartitionSpec(*['data'] * (name == split))
    return jax.sharding.NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(where, tree)


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def saved(folder, *steps, keep=2, state=None):
  state = make_state() if state is None else state
  store = CheckpointStore(folder, keep=keep)
  for step in steps:
    store.save(step, state, {**RECORD, 'number': step})
  store.finish()
  store.close()
  return state


def restored_newest(folder, expected):
  store = CheckpointStore(folder)
  try:
    return store.restore_newest(abstract(expected))
  finally:
    store.close()


def test_round_trip_is_silent_and_exact(tmp_path, capfd):
  state = saved(tmp_path / 'deep' / 'folder', 3)
  found = restored_newest(tmp_path / 'deep' / 'folder', state)
  assert_same(found.state, state)
  assert found.record == {**RECORD, 'number': 3} and found.step == 3
  assert capfd.readouterr() == ('', '')


def test_the_newest_stay(tmp_path):
  saved(tmp_path, 5, 10, 15, 20, keep=3)
  assert sorted(os.listdir(tmp_path)) == ['10', '15', '20']
  assert checkpoints.latest_step(tmp_path) == 20


def test_an_empty_folder_has_no_step(tmp_path):
  store = CheckpointStore(tmp_path / 'new')
  assert store.restore_newest(abstract(make_state())) is None
  store.close()
  for folder in (tmp_path / 'new', tmp_path / 'absent'):
    assert checkpoints.latest_step(folder) is None
  with pytest.raises(InputError, match='holds no finished checkpoint yet'):
    checkpoints.restore_arrays(tmp_path / 'new')


def test_what_is_saved_is_the_state_at_that_time(tmp_path):
  """The loop gives its state away to the next step while the save still runs."""
  change = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
  state = {'params': {'a': jnp.zeros((512, 2048))}, 'stats': {'b': jnp.zeros(3)}}
  state = jax.jit(lambda tree: tree)(state)
  store = CheckpointStore(tmp_path, keep=8)
  for step in range(4):
    store.save(step, state, {})
    for _ in range(8):
      state = change(state)
  store.finish()
  store.close()
  for step in reversed(range(4)):
    found = restored_newest(tmp_path, state).state
    shutil.rmtree(tmp_path / str(step))
    np.testing.assert_array_equal(found['params']['a'], 8 * step)
    np.testing.assert_array_equal(found['stats']['b'], 8 * step)


def test_reading_without_disturbing_a_run(tmp_path):
  store, state = CheckpointStore(tmp_path), make_state()
  store.save(3, state, RECORD)
  store.finish()
  (tmp_path / '4.orbax-checkpoint-tmp').mkdir()  # As while it is being written.
  before = sorted(os.listdir(tmp_path))
  step, arrays = checkpoints.restore_arrays(tmp_path)
  assert step == 3 and arrays.keys() == {'params', 'stats'}
  np.testing.assert_array_equal(arrays['params']['backbone/a'], state['params']['backbone/a'])
  assert isinstance(arrays['stats']['count'], np.ndarray)
  assert checkpoints.read_record(tmp_path, 3) == RECORD
  assert sorted(os.listdir(tmp_path)) == before
  store.close()


# Arrays that fail at the same time: the storage library prints all but the first.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_every_damaged_file_is_noticed(tmp_path):
  """Removed, cut off or with a bit turned, in turns: never a wrong value."""
  state = saved(tmp_path / 'good', 3)
  rng = np.random.default_rng(0)
  noticed = set()
  files = [p for p in (tmp_path / 'good' / '3').rglob('*') if p.stat().st_size and p.is_file()]
  assert len(files) > 5
  data = max(files, key=lambda file: file.stat().st_size)
  for number, file in enumerate(files):
    content = file.read_bytes()
    turned = bytearray(content)
    turned[rng.integers(len(content))] ^= 1 << rng.integers(8)
    changes = (None, content[: len(content) // 2], bytes(turned))
    for change in changes if file == data else changes[number % 3 :][:1]:
      shutil.rmtree(tmp_path / 'bad', ignore_errors=True)
      shutil.copytree(tmp_path / 'good', tmp_path / 'bad')
      target = tmp_path / 'bad' / file.relative_to(tmp_path / 'good')
      target.unlink() if change is None else target.write_bytes(change)
      try:
        found = restored_newest(tmp_path / 'bad', state)
      except InputError as error:
        assert 'none of the 1 checkpoint(s) in' in str(error)
        assert len(str(error).splitlines()) == 1
        noticed.add(file)
      else:  # Something that says nothing about the values.
        assert_same(found.state, state)
        assert found.record == {**RECORD, 'number': 3}
  assert data in noticed and len(noticed) >= 3


def test_a_turned_bit_in_an_array_is_noticed(tmp_path):
  """Orbax itself reads it back without a word."""
  saved(tmp_path, 3)
  data = max((p for p in tmp_path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  with pytest.raises(InputError, match='params.backbone/a'):
    restored_newest(tmp_path, make_state())
  with pytest.raises(InputError, match='params.backbone/a'):
    checkpoints.restore_arrays(tmp_path)


def turn_a_bit(folder):
  """In the contents of an array."""
  data = max((p for p in folder.rglob('d/*')), key=lambda p: p.stat().st_size)
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)


def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(tmp_path, capfd):
  state = saved(tmp_path, 3, 6, 9, keep=3)
  assert restored_newest(tmp_path, state).step == 9 and capfd.readouterr().err == ''
  for step in (9, 6):
    turn_a_bit(tmp_path / str(step))
  found = restored_newest(tmp_path, state)
  assert found.step == 3 and found.record == {**RECORD, 'number': 3}
  assert_same(found.state, state)
  assert capfd.readouterr().err == ''.join(
    f'warning: checkpoint {tmp_path}/{step} is damaged (the checksum of '
    f'params.backbone/a does not match): it is renamed damaged-{step}, and the run '
    'resumes from step 3\n'
    for step in (9, 6)
  )
  assert sorted(os.listdir(tmp_path)) == ['3', 'damaged-6', 'damaged-9']

  # The same steps are saved again, and may be damaged again.
  saved(tmp_path, 6, 9, keep=3)
  turn_a_bit(tmp_path / '9')
  assert restored_newest(tmp_path, state).step == 6
  assert sorted(os.listdir(tmp_path)) == ['3', '6', 'damaged-6', 'damaged-9', 'damaged-9-2']
  capfd.readouterr()


@pytest.mark.parametrize('reader', ['run', 'other'])
def test_a_file_system_that_fails_for_a_moment_is_no_damage(tmp_path, monkeypatch, capfd, reader):
  state, read_json, paused = saved(tmp_path, 3, 6), records.read_json, []

  def failing(folder, step):
    if checkpoints._PAUSE not in paused:
      raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return read_json(folder, step)

  monkeypatch.setattr(records, 'read_json', failing)
  monkeypatch.setattr(checkpoints.time, 'sleep', paused.append)
  if reader == 'run':
    assert restored_newest(tmp_path, state).step == 6
  else:
    assert checkpoints.restore_arrays(tmp_path)[0] == 6
  assert paused.count(checkpoints._PAUSE) == 1 and capfd.readouterr().err == ''
  assert sorted(os.listdir(tmp_path)) == ['3', '6']


def test_the_store_that_put_one_aside_saves_that_step(tmp_path):
  state = saved(tmp_path, 3, 6)
  turn_a_bit(tmp_path / '6')
  store = CheckpointStore(tmp_path)
  assert store.restore_newest(abstract(state)).step == 3
  store.save(6, state, {**RECORD, 'number': 'again'})
  store.finish()
  store.close()
  assert restored_newest(tmp_path, state).record['number'] == 'again'


def test_where_none_is_sound_all_stay(tmp_path, capfd):
  """As when a model has changed, or a whole disk is bad: nothing is renamed."""
  state = saved(tmp_path, 3, 6)
  with pytest.raises(
    InputError,
    match=(
      r'none of the 2 checkpoint\(s\) in .* can be restored \(step 6: .*\): damaged or of another '
      'model; take another --workdir'
    ),
  ):
    restored_newest(tmp_path, make_state(size=41))
  for step in (3, 6):
    turn_a_bit(tmp_path / str(step))
  with pytest.raises(InputError, match='params.backbone/a'):
    restored_newest(tmp_path, state)
  assert sorted(os.listdir(tmp_path)) == ['3', '6'] and capfd.readouterr() == ('', '')
  shutil.rmtree(tmp_path / '3')
  with pytest.raises(InputError, match=r'none of the 1 checkpoint\(s\)'):
    restored_newest(tmp_path, state)


def test_readers_take_the_one_before_and_change_nothing(tmp_path, capfd):
  state = saved(tmp_path, 3, 6)
  turn_a_bit(tmp_path / '6')
  before = sorted(os.listdir(tmp_path))
  step, arrays = checkpoints.restore_arrays(tmp_path)
  assert step == 3
  np.testing.assert_array_equal(arrays['params']['backbone/a'], state['params']['backbone/a'])
  assert capfd.readouterr().err == (
    f'warning: checkpoint {tmp_path}/6 is damaged or was removed meanwhile (the checksum of '
    'params.backbone/a does not match); the one of step 3 is taken\n'
  )
  assert sorted(os.listdir(tmp_path)) == before
  turn_a_bit(tmp_path / '3')
  with pytest.raises(
    InputError, match=r'6 is damaged .* does not match\); so is every one before it \(1\)'
  ):
    checkpoints.restore_arrays(tmp_path)


def test_an_array_without_a_checksum_is_not_taken_for_sound(tmp_path, monkeypatch):
  """As when paths are written in another way than when the checkpoint was made."""
  with monkeypatch.context() as patched:
    checksums = store_lib.checksums
    patched.setattr(
      store_lib,
      'checksums',
      lambda state: {
        path.replace('backbone/', 'body/'): value for path, value in checksums(state).items()
      },
    )
    saved(tmp_path, 3)
  for read in (
    lambda: restored_newest(tmp_path, make_state()),
    lambda: checkpoints.restore_arrays(tmp_path),
  ):
    with pytest.raises(InputError, match='it keeps no checksum of .*backbone/a'):
      read()


def test_a_folder_that_cannot_be(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='checkpoints cannot be kept in .*file'):
    CheckpointStore(tmp_path / 'file')


# A full disk.


def save_until_full(folder, limit=0, watch=False):
  """Saves small and then larger states, as a command does, and prints what is raised."""
  orbax_errors.drop_log()
  if limit:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
  if watch:  # The disk seems to have room, and Orbax fails in the background.
    store_lib.check_space = lambda *_: None
  store = CheckpointStore(folder)
  try:
    for step, size in ((1, 10), (2, 20_000)):
      values = np.random.default_rng(step).random((size, 100))
      store.save(step, {'params': {'a': jnp.asarray(values)}, 'stats': {'b': values[0]}}, RECORD)
    for _ in range(3000 if watch else 0):
      store.check()
      time.sleep(0.01)
    store.finish()
    print('all saved')
  except InputError as error:
    print(error)
  store.close()


def full(folder, *arguments):
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      f'import test_store; test_store.save_until_full{(str(folder), *arguments)}',
    ],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert 'orbax' not in done.stderr  # Which would log the call stack of each error.
  step, arrays = checkpoints.restore_arrays(folder)
  assert step == 1
  np.testing.assert_array_equal(
    arrays['params']['a'], np.random.default_rng(1).random((10, 100)).astype(np.float32)
  )
  return done.stdout


@pytest.mark.parametrize('watch', [False, True])
def test_a_file_size_limit_leaves_the_checkpoint_before(watch, tmp_path):
  """Said before anything is written; if found later, at once to a caller who asks."""
  line = full(tmp_path / 'checkpoints', 100_000, watch)
  assert line == (
    f'a checkpoint could not be written to {tmp_path}/checkpoints: File too large; the '
    'ones before it are whole: make room, then run the same command again\n'
  )


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mounted = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], capture_output=True, check=False
  )
  if mounted.returncode:
    pytest.skip('mounting a small disk is not allowed here')
  try:
    assert 'disk/checkpoints: No space left on device; the ones' in full(disk / 'checkpoints')
  finally:
    subprocess.run(['umount', disk], check=True)


# Several devices.


def round_trip_on_mesh(folder):
  """Saves a state that is partly split over the devices; reads it elsewhere."""
  mesh = data_mesh()
  state = make_state()
  split = 'params/backbone/a'
  shardings = placed(mesh, state, split=split)
  saved(folder, 3, state=jax.device_put(state, shardings))
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
  store, results = CheckpointStore(folder), {}
  smaller = data_mesh(jax.devices()[:2])
  for name, target in (
    ('same', shardings),
    ('replicated', placed(mesh, state)),
    ('two', placed(smaller, state, split=split)),
  ):
    found = store.restore_newest(with_shardings(shapes, target)).state
    assert_same(found, state)
    leaf = found['params']['backbone/a']
    assert leaf.sharding == target['params']['backbone/a']
    results[name] = len(leaf.sharding.device_set)
  store.close()
  return results


def test_arrays_go_to_the_devices_asked_for(tmp_path, on_devices):
  found = on_devices(8, round_trip_on_mesh, folder=str(tmp_path))
  assert found == {'same': 8, 'replicated': 8, 'two': 2}
