"""Several real processes on one machine that meet, agree, share a state and part."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from process_runs import ProcessRun, Topology, free_port
from repository import ROOT, environment
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, rows, shared_folder

from painformer_jax.checkpoints.checksums import checksums
from painformer_jax.checkpoints.read import restore_arrays
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import processes
from painformer_jax.parallel.mesh import data_mesh, wait_for_all

_CALL = """
import importlib, json, sys
from painformer_jax.cli.commands import explain
from painformer_jax.parallel import processes
function, arguments, coordinator, count, index = sys.argv[1:]
with processes.joined(coordinator=coordinator, count=int(count), index=int(index),
                      explain=explain, peer_timeout=20):
  result = getattr(importlib.import_module('test_processes'), function)(**json.loads(arguments))
print('\\n' + json.dumps(result))
"""


def in_processes(count, function, *, devices=1, **arguments):
  """Calls a function of this module in several processes: exit status, result, messages."""
  place = f'127.0.0.1:{free_port()}'
  started = [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        _CALL,
        function.__name__,
        json.dumps(arguments),
        place,
        str(count),
        str(index),
      ],
      text=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=environment(JAX_PLATFORMS='cpu', JAX_NUM_CPU_DEVICES=str(devices), NPROC='32'),
    )
    for index in range(count)
  ]
  try:
    said = [process.communicate(timeout=300) for process in started]
  finally:
    for process in started:
      process.kill()
  return [
    (
      process.returncode,
      json.loads(out.splitlines()[-1]) if not process.returncode else None,
      messages,
    )
    for process, (out, messages) in zip(started, said)
  ]


def results(found):
  for status, _, messages in found:
    assert status == 0, messages
  return [result for _, result, _ in found]


# Usage.


@pytest.mark.parametrize(
  'arguments,message',
  [
    (['--coordinator', '127.0.0.1:9876'], '--coordinator needs --processes and --process as well'),
    (['--coordinator', '127.0.0.1:9876', '--processes', '2'], 'needs --processes and --process'),
    (['--processes', '2', '--process', '0'], 'need --coordinator HOST:PORT as well'),
    (
      ['--coordinator', 'here', '--processes', '2', '--process', '0'],
      '--coordinator here is no HOST:PORT, such as 127.0.0.1:9876',
    ),
    (['--coordinator', 'here:70000', '--processes', '2', '--process', '0'], 'no HOST:PORT'),
    (
      ['--coordinator', 'h:1', '--processes', '2', '--process', '2'],
      '--process 2 of --processes 2: processes are numbered from 0 on',
    ),
    (
      ['--coordinator', 'h:1', '--processes', '0', '--process', '0'],
      '--process 0 of --processes 0',
    ),
    (['--coordinator', 'h:1', '--distributed'], '--distributed finds the coordinator by itself'),
    (['--distributed', '--peer-timeout', '1'], '--peer-timeout is 1, below 5 seconds'),
  ],
)
def test_flags_that_do_not_fit(arguments, message, tmp_path, capsys):
  status = main(
    [
      'pretrain',
      '--config',
      f'{ROOT}/configs/tiny.py',
      '--workdir',
      str(tmp_path / 'run'),
      *arguments,
    ]
  )
  line = capsys.readouterr().err
  assert status == 2 and line.startswith('painformer: ') and line.count('\n') == 1
  assert message in line and not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_nobody_comes(tmp_path):
  """A port where nothing answers, and a process that waits for others in vain."""
  code = """
import sys
from painformer_jax.cli.commands import explain
from painformer_jax.parallel import processes
with processes.joined(coordinator=sys.argv[1], count=2, index=int(sys.argv[2]),
                      explain=explain, start_timeout=3):
  pass
"""
  place = f'127.0.0.1:{free_port()}'
  for index in range(2):
    done = subprocess.run(
      [sys.executable, '-c', code, place, str(index)],
      text=True,
      capture_output=True,
      env=environment(JAX_PLATFORMS='cpu'),
      timeout=100,
      check=False,
    )
    line = done.stderr.splitlines()[-1]
    assert line.startswith('painformer: after 3 s not all processes have started')
    assert done.returncode == 1 and 'Traceback' not in done.stderr


@pytest.mark.parametrize('error, status', [('RuntimeError', 1), ('ValueError', 2)])
def test_an_error_of_the_network_is_no_refusal(error, status):
  """What starts processes again does so after 1, and ends after 2."""
  code = f"""
import sys
import jax
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import processes

def initialize(*arguments, **options):
  raise {error}('UNAVAILABLE: connection reset\\nin many lines')

jax.distributed.initialize = initialize
try:
  with processes.joined(coordinator=sys.argv[1], count=2, index=1, explain=None):
    pass
except InputError as error:
  print(f'painformer: {{error}}', file=sys.stderr)
  sys.exit(2)
"""
  place = f'127.0.0.1:{free_port()}'
  done = subprocess.run(
    [sys.executable, '-c', code, place],
    text=True,
    capture_output=True,
    env=environment(JAX_PLATFORMS='cpu'),
    timeout=100,
    check=False,
  )
  assert done.returncode == status
  assert done.stderr.splitlines() == [
    'painformer: the processes do not find each other (UNAVAILABLE: connection reset)'
  ]


def test_a_port_that_is_taken(tmp_path, capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    place = f'127.0.0.1:{taken.getsockname()[1]}'
    status = main(
      [
        'pretrain',
        '--config',
        f'{ROOT}/configs/tiny.py',
        '--workdir',
        str(tmp_path / 'run'),
        '--coordinator',
        place,
        '--processes',
        '2',
        '--process',
        '0',
      ]
    )
  assert status == 2 and capsys.readouterr().err.splitlines()[-1] == (
    f'painformer: process 0 cannot answer at {place} (Address already in use): name '
    'another port, in all processes'
  )


def test_the_timeout_is_what_help_says(capsys):
  with pytest.raises(SystemExit):
    main(['pretrain', '--help'])
  assert f'(default: {processes.PEER_TIMEOUT:g})' in ' '.join(capsys.readouterr().out.split())


# Agreement.


def agree():
  index = jax.process_index()
  asked, answers = processes.AnyProcess(), []
  for question in range(8):
    answers.append(asked(question == 3 and index == 1))
  big = np.array([2**64 - 1, index, 2**40], np.uint64)
  return {
    'answers': answers,
    'all': processes.all_agree(True),
    'not all': processes.all_agree(index == 0),
    'total': processes.total(big).tolist(),
    'devices': jax.device_count(),
  }


def test_all_get_the_same_answers():
  found = results(in_processes(2, agree, devices=2))
  late = processes.AnyProcess.LAG
  assert (
    found
    == [
      {
        'answers': [number == 3 + late for number in range(8)],
        'all': True,
        'not all': False,
        'total': [2**64 - 2, 1, 2**41],
        'devices': 4,
      }
    ]
    * 2
  )


def test_alone_nothing_is_asked():
  assert processes.all_agree(True) and not processes.all_agree(False)
  assert processes.total(np.array([3], np.uint64)).tolist() == [3]


# A state that no process holds all of.


def state_of(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'params': {
      'rows': rng.standard_normal((16, 6)).astype(np.float32),
      'columns': rng.standard_normal((3, 8)).astype(np.float32),
      'whole': rng.standard_normal(5).astype(np.float32),
    },
    'stats': {'count': np.int32(seed)},
  }


SPECS = {'rows': PartitionSpec('data'), 'columns': PartitionSpec(None, 'data')}


def placed(state, specs):
  """The state with its arrays split as `specs` say; each process holds a part."""
  mesh = data_mesh()

  def place(path, array):
    sharding = NamedSharding(mesh, specs.get(path[-1].key, PartitionSpec()))
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

  return jax.tree_util.tree_map_with_path(place, state)


def abstract(state, specs):
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), placed(state, specs)
  )


def save_split(folder):
  """Two checkpoints, written by all."""
  store = CheckpointStore(folder)
  for step in (1, 2):
    store.save(step, placed(state_of(step), SPECS), {'number': step})
  store.finish()
  store.close()
  split = placed(state_of(2), SPECS)
  return [checksums(split), split['params']['rows'].is_fully_addressable]


def read_split(folder):
  """The newest sound checkpoint: its step, and whether all shards here are right."""
  expected = {step: state_of(step) for step in (1, 2)}
  store = CheckpointStore(folder)
  found = store.restore_newest(abstract(expected[1], SPECS))

  def right(array, value):
    return all(
      np.array_equal(np.asarray(shard.data), np.asarray(value)[shard.index])
      for shard in array.addressable_shards
    )

  same = jax.tree.map(right, found.state, expected[found.step])
  store.close()
  return [found.step, found.record, all(jax.tree.leaves(same))]


def turn_a_bit(path):
  file = max((p for p in path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def test_two_processes_save_what_one_reads_and_the_other_way(tmp_path):
  folder = tmp_path / 'checkpoints'
  expected = checksums(state_of(2))
  assert results(in_processes(2, save_split, folder=str(folder))) == [[expected, False]] * 2
  assert read_split(folder) == [2, {'number': 2}, True]
  step, arrays = restore_arrays(folder)
  assert step == 2
  np.testing.assert_array_equal(arrays['params']['columns'], state_of(2)['params']['columns'])


@pytest.mark.slow
def test_split_states_on_other_processes_and_devices(tmp_path):
  folder = tmp_path / 'checkpoints'
  results(in_processes(4, save_split, folder=str(folder)))
  for count, devices in ((2, 1), (2, 4), (4, 2)):
    found = in_processes(count, read_split, devices=devices, folder=str(folder))
    assert results(found) == [[2, {'number': 2}, True]] * count


@pytest.mark.slow
def test_damage_that_one_process_meets_moves_all_to_the_one_before(tmp_path):
  folder = tmp_path / 'checkpoints'
  results(in_processes(2, save_split, folder=str(folder)))
  turn_a_bit(folder / '2')
  found = in_processes(2, read_split, folder=str(folder))
  assert results(found) == [[1, {'number': 1}, True]] * 2
  warnings = [
    line
    for _, _, messages in found
    for line in messages.splitlines()
    if line.startswith('warning: ')
  ]
  assert len(warnings) == 1 and 'renamed damaged-2, and the run resumes from step 1' in warnings[0]
  assert sorted(p.name for p in folder.iterdir()) == ['1', 'damaged-2']


# One that fails.


def fail(index, how):
  if jax.process_index() != index:
    while True:
      wait_for_all('in vain')
  if how == 'input':
    raise InputError('the disk of this one is full')
  raise ZeroDivisionError('of this package')


@pytest.mark.slow
@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize(
  'how,status,line',
  [
    ('input', 2, 'painformer: the disk of this one is full'),
    ('defect', 1, 'painformer: process {index} of 2 stops'),
  ],
)
def test_one_that_fails_ends_all(index, how, status, line):
  """With its own line and status; the others with an error, and nobody waits."""
  found = in_processes(2, fail, index=index, how=how)
  assert found[index][0] == status
  assert found[index][2].splitlines()[-1].startswith(line.format(index=index))
  assert found[1 - index][0] not in (0, 2)  # Which would say that all is well, or in vain.


# Training.


OVERRIDES = {
  'steps': 12,
  'log_every': 3,
  'checkpoint_every': 5,
  'eval_every': 6,
  'model.drop_path_rate': 0.2,
  **SMALL_OVERRIDES,
}


@pytest.fixture(scope='module')
def command(tmp_path_factory):
  return CommandLine(
    folder=shared_folder(tmp_path_factory), overrides=OVERRIDES, flags=QUICK_COMPILE
  )


def near(found, expected):
  assert [row['step'] for row in found] == [row['step'] for row in expected]
  for row, other in zip(found, expected):
    assert row.keys() == other.keys()
    for name, value in row.items():
      assert value == pytest.approx(other[name], abs=2e-3 if 'norm' in name else 1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize('topology', [Topology(4), Topology(2, 4)], ids=str)
def test_processes_train_as_one(command, topology, tmp_path):
  """The same figures as one process with as many devices; one of them writes."""
  alone = Topology(1, topology.processes * topology.devices)
  for workdir, where in (('alone', alone), ('together', topology)):
    with ProcessRun(command, tmp_path / workdir, where) as run:
      assert run.finish() == [0] * where.processes, run.messages()
      messages = run.messages()
  assert 'step 12/12' in messages[0] and 'step ' not in ''.join(messages[1:])
  near(rows(tmp_path / 'together'), rows(tmp_path / 'alone'))
  assert {p.name for p in (tmp_path / 'together').iterdir()} == {
    p.name for p in (tmp_path / 'alone').iterdir()
  }
