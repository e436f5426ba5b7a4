import re
import signal
import socket
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from training_runs import (
  QUICK_COMPILE,
  SMALL_MODEL,
  SMALL_OVERRIDES,
  CommandLine,
  SmallStep,
  rows,
  shared_folder,
)

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, registry, spectral
from painformer_jax.parallel.mesh import (
  BatchShardMap,
  batch_sharding,
  check_batch_sizes,
  data_mesh,
  interleave,
  put_batch,
  put_global,
  replicated,
  separate,
)
from painformer_jax.training.step import make_embed_step

SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=4)


def parts_of(sizes, devices, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (size * devices, 2, 3)).astype(np.uint8) for size in sizes]


def separated(mesh, parts):
  joined = interleave(mesh, parts)
  return joined, separate(mesh, joined, [len(part) for part in parts])


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_separate_undoes_interleave(sizes):
  parts = parts_of(sizes, 1)
  joined, found = separated(data_mesh(), parts)
  np.testing.assert_array_equal(joined, np.concatenate(parts))
  for part, again in zip(parts, found, strict=True):
    np.testing.assert_array_equal(part, again)


def interleave_on_mesh():
  """Counts cases where the parts come back and no row changes its device."""
  mesh, cases = data_mesh(), 0

  @settings(max_examples=12, deadline=None, database=None)
  @given(SIZES, st.integers(0, 9))
  def check(sizes, seed):
    nonlocal cases
    parts = parts_of(sizes, mesh.size, seed)
    placed = put_batch(mesh, dict(enumerate(parts)))
    joined, found = jax.jit(lambda p: separated(mesh, p))(list(placed.values()))
    for part, again in zip(parts, found, strict=True):
      np.testing.assert_array_equal(part, again)
    for number, shard in enumerate(joined.addressable_shards):
      own = [np.split(part, mesh.size)[number] for part in parts]
      np.testing.assert_array_equal(shard.data, np.concatenate(own))
      assert shard.device == mesh.devices[number]
    cases += 1

  check()
  return cases


def test_no_row_changes_its_device(on_mesh):
  assert on_mesh['interleave'] >= 12


def per_device_on_mesh():
  mesh = data_mesh()
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((16, 6, 6, 3)), jnp.float32)
  weight = jnp.asarray(rng.standard_normal((6, 4, 3, 2)), jnp.float32)
  wrapped = BatchShardMap(mesh)(spectral.gate_fft)

  def both(function):
    def total(x, weight):
      return jnp.sum(jnp.sin(function(x, weight)))

    return function(x, weight), *jax.grad(total, argnums=(0, 1))(x, weight)

  plain = jax.jit(lambda: both(spectral.gate_fft))()
  split = jax.jit(lambda: both(wrapped))()
  return [float(jnp.abs(p - s).max()) for p, s in zip(plain, split)]


def test_per_device_is_the_plain_function(on_mesh, measured):
  for name, error in zip(
    ('output', 'gradient of rows', 'gradient of filter'), on_mesh['per device'], strict=True
  ):
    measured(f'gate on 8 devices, {name}', error, limit=1e-5)


def test_rows_must_split_evenly():
  class EightDevices:
    size = 8

  check_batch_sizes(EightDevices, {'a': 8, 'b': 24})
  for sizes, task in (({'a': 8, 'b': 12}, 'b'), ({'a': 0}, 'a'), ({'a': -8}, 'a')):
    with pytest.raises(InputError) as error:
      check_batch_sizes(EightDevices, sizes)
    line = str(error.value)
    assert f'task {task} has the batch size {sizes[task]}, which' in line
    assert f'config.tasks.{task}.' in line and 'a multiple of 8' in line


def test_mesh_has_one_automatic_axis():
  mesh = data_mesh()
  assert mesh.axis_names == ('data',) and mesh.size == len(jax.devices())
  assert mesh.axis_types == (AxisType.Auto,)


def put_on_mesh():
  mesh = data_mesh()
  rows = np.arange(32).reshape(16, 2)
  local = put_batch(mesh, {'x': rows})['x']
  whole = put_global(mesh, rows)
  assert local.sharding == whole.sharding == batch_sharding(mesh)
  np.testing.assert_array_equal(local, rows)
  np.testing.assert_array_equal(whole, rows)
  return [s.data.shape for s in whole.addressable_shards]


def test_batches_are_split_over_the_devices(on_mesh):
  assert on_mesh['put'] == [[2, 2]] * 8


# The training step.


_COLLECTIVE = re.compile(
  r'= (.*?) ((?:ragged-)?all-[a-z-]+|reduce-scatter|collective-[a-z-]+|send|recv)\('
)


def collectives(hlo):
  """Operation -> number of values that one device takes part with."""
  found = {}
  for shapes, operation in _COLLECTIVE.findall(hlo):
    operation = operation.removesuffix('-start')
    if operation.endswith('-done'):
      continue
    sizes = [
      np.prod([int(n) for n in dims.split(',') if n])
      for dims in re.findall(r'(?:f32|c64|bf16|s32|u32|pred|u8)\[([\d,]*)\]', shapes)
    ]
    found[operation] = found.get(operation, 0) + int(sum(sizes))
  return found


def train(devices, gate):
  """Losses of three steps, and what the devices say to one another in one."""
  step = SmallStep(devices=devices, gate=gate)
  state, losses = step.state, []
  for number in range(3):
    state, metrics = step(state, step.batch(number))
    losses.append(metrics)
  return {
    'losses': losses,
    'collectives': collectives(step.program()),
    'parameters': sum(a.size for a in state.params.values()),
    'filters': sum(a.size for p, a in state.params.items() if 'complex_weight' in p),
    'statistics': sum(a.size for a in state.stats.values()),
  }


def embed(gate):
  """What eight devices say to one another in embedding 16 images, and how wide it is."""
  mesh = data_mesh()
  config = registry.make_config('painformer_nano', **SMALL_MODEL, gate=gate)
  arrays = {
    path: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated(mesh))
    for path, a in functional.abstract_variables(config).items()
  }
  images = jax.ShapeDtypeStruct(
    (16, config.image_size, config.image_size, 3), np.uint8, sharding=batch_sharding(mesh)
  )
  program = (
    make_embed_step(config, mesh)
    .lower(arrays, images)
    .compile(compiler_options={'xla_backend_optimization_level': 0})
  )
  return {'collectives': collectives(program.as_text()), 'values': 16 * config.embedding_width}


def all_on_mesh():
  """What the functions above find on eight devices, in one process."""
  return {
    'interleave': interleave_on_mesh(),
    'per device': per_device_on_mesh(),
    'put': put_on_mesh(),
    'embed': {gate: embed(gate) for gate in ('fft', 'dft')},
    'one': train(jax.devices()[:1], 'fft'),
    'fft': train(jax.devices(), 'fft'),
    'dft': train(jax.devices(), 'dft'),
  }


@pytest.fixture(scope='module')
def on_mesh(on_devices):
  return on_devices(8, all_on_mesh)


def test_collectives_are_found_in_program_text():
  text = """
  %all-gather.1 = f32[24,8,5]{2,1,0} all-gather(%p), channel_id=1
  %ar = (f32[7,3]{1,0}, f32[8]{0}) all-reduce-start(%a, %b), channel_id=2
  %d = (f32[7,3]{1,0}, f32[8]{0}) all-reduce-done(%ar)
  %cp = u8[4]{0} collective-permute(%x)
  """
  assert collectives(text) == {'all-gather': 960, 'all-reduce': 29, 'collective-permute': 4}


@pytest.mark.parametrize('gate', ['fft', 'dft'])
def test_eight_devices_train_as_one(gate, on_mesh, measured):
  """The same losses, and only gradients and statistics go between devices."""
  one_device, eight = on_mesh['one'], on_mesh[gate]
  assert one_device['collectives'] == {}
  for number, (one, many) in enumerate(zip(one_device['losses'], eight['losses'], strict=True)):
    assert one.keys() == many.keys()
    for name in one:
      if name.endswith('accuracy'):
        assert one[name] == many[name]
    error = max(abs(one[n] - many[n]) for n in one if n.endswith('loss'))
    measured(f'losses on 8 devices, {gate}, step {number + 1}', error, limit=2e-6)

  # Each gradient goes round once, and the sums of three BatchNorms and the
  # metrics besides; the activations of a batch are 24 x 16 x 8 in stage 1 alone.
  # Filters count half where they are complex, twice where 'dft' uses them twice.
  assert eight['collectives'].keys() == {'all-reduce'}
  gradients = eight['parameters'] + eight['filters'] * {'fft': -0.5, 'dft': 1}[gate]
  extra = eight['collectives']['all-reduce'] - gradients
  assert 0 < extra < 4 * eight['statistics'] + 100, extra


@pytest.mark.parametrize('gate', ['fft', 'dft'])
def test_only_embeddings_are_gathered_from_eight_devices(gate, on_mesh):
  """No image, activation or spectrum leaves its device; all get every embedding."""
  found = on_mesh['embed'][gate]
  assert found['collectives'] == {'all-gather': found['values']}


# Several processes, that find each other as under Open MPI.


OVERRIDES = {
  'steps': 12,
  'log_every': 3,
  'checkpoint_every': 5,
  'eval_every': 6,
  'model.drop_path_rate': 0.2,
  **SMALL_OVERRIDES,
}


def start_two(command, workdir):
  """Two processes of one device each, on the loopback."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = str(free.getsockname()[1])
  return [
    subprocess.Popen(
      command.arguments(workdir, '--distributed'),
      stderr=subprocess.PIPE,
      text=True,
      env=command.environment()
      | {
        'OMPI_MCA_orte_hnp_uri': '1234.0;tcp://127.0.0.1:1',
        'JAX_COORDINATOR_PORT': port,
        'OMPI_COMM_WORLD_SIZE': '2',
        'OMPI_COMM_WORLD_RANK': str(rank),
        'OMPI_COMM_WORLD_LOCAL_RANK': str(rank),
      },
    )
    for rank in range(2)
  ]


def finish(processes):
  messages = [process.communicate(timeout=600)[1] for process in processes]
  return [process.returncode for process in processes], messages


def assert_near(found, expected):
  assert [row['step'] for row in found] == [row['step'] for row in expected]
  for row, other in zip(found, expected):
    assert row.keys() == other.keys()
    for name, value in row.items():
      assert value == pytest.approx(other[name], abs=2e-3 if 'norm' in name else 1e-4), name


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, tmp_path_factory):
  """The same figures as one process with two devices; one of the two writes."""
  folder = shared_folder(tmp_path_factory)
  alone = CommandLine(folder=folder, devices=2, overrides=OVERRIDES, flags=QUICK_COMPILE)
  done = alone.run(tmp_path / 'alone')
  assert done.returncode == 0, done.stderr
  two = CommandLine(folder=folder, overrides=OVERRIDES, flags=QUICK_COMPILE, cache=False)
  statuses, messages = finish(start_two(two, tmp_path / 'two'))
  assert statuses == [0, 0], messages
  assert 'step 12/12' in messages[0] and 'step ' not in messages[1]
  assert_near(rows(tmp_path / 'two'), rows(tmp_path / 'alone'))
  assert {p.name for p in (tmp_path / 'two').iterdir()} == {
    p.name for p in (tmp_path / 'alone').iterdir()
  }


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path, tmp_path_factory):
  """As when a cloud takes one machine back. What is saved goes on alone."""
  folder = shared_folder(tmp_path_factory)
  command = CommandLine(
    folder=folder,
    flags=QUICK_COMPILE,
    overrides=OVERRIDES | {'steps': 120, 'log_every': 20, 'checkpoint_every': 60, 'eval_every': 60},
  )
  workdir = tmp_path / 'run'
  processes = start_two(command, workdir)
  while not (workdir / 'metrics.jsonl').exists() or not (workdir / 'metrics.jsonl').read_text():
    time.sleep(0.05)
    assert all(process.poll() is None for process in processes), finish(processes)
  processes[1].send_signal(signal.SIGTERM)
  statuses, messages = finish(processes)
  assert statuses == [130, 130], messages
  saved = int(re.search(r'saved step (\d+); run', messages[0])[1])
  assert 20 <= saved < 120
  done = command.run(workdir)
  assert done.returncode == 0, done.stderr
  assert f'resumes from step {saved} of {workdir}' in done.stderr
  assert [row['step'] for row in rows(workdir) if 'loss' in row] == list(range(20, 121, 20))
