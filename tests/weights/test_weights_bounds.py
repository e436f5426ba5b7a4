"""Files with very many names: refused in bounded time and memory, in a short line.

The limits leave room for a loaded machine; a process that only imports takes 230 MB.
"""

import json
import struct
import subprocess
import sys
import time

import forge
import numpy as np
import pytest
from repository import environment

from painformer_jax.core.errors import InputError, listed
from painformer_jax.weights.torch import pickle as torch_pickle
from painformer_jax.weights.torch import state_dicts
from painformer_jax.weights.torch.read import read

MANY = 1_000_000
ONE = [forge.floats(1)]


def safetensors_header(count: int) -> bytes:
  entry = '"layer{}.weight":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
  text = ('{' + ','.join(map(entry.format, range(count))) + '}').encode()
  return len(text).to_bytes(8, 'little') + text


def named(count: int, value: bytes) -> bytes:
  return b'}(' + b''.join(forge.text(f'l{i}') + value for i in range(count)) + b'u'


def tensors(count: int) -> bytes:
  """One tensor under many names."""
  return forge.archive(forge.tensor([1]) + b'q\0' + b'0' + named(count, b'h\0'), ONE)


MAKERS = {
  'safetensors': lambda: safetensors_header(MANY),
  'names': lambda: forge.archive(named(MANY, b'K\1')),
  'tensors': lambda: tensors(MANY),
  'tensors in reach': lambda: tensors(600_000),
  'names of one layer': lambda: forge.archive(
    b'}('
    + b''.join(forge.text(f'block1.{i}.attn.q.weight') + forge.tensor([1]) for i in range(9_999))
    + b'u',
    ONE,
  ),
  'objects': lambda: forge.archive(
    b'](' + forge.name('my', 'C') + b'q\0' + b'h\0)\x81' * (MANY // 2) + b'e'
  ),
  'dicts': lambda: forge.archive(b'](' + b'}' * 1_400_000 + b'e'),
  'members': lambda: forge.archive(forge.dict_(a=forge.tensor([1])), ONE * 60_000),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', MAKERS)
def test_a_million_names(tmp_path, kind):
  path = tmp_path / 'w'
  path.write_bytes(MAKERS[kind]())
  script = (
    'import resource, sys, time\n'
    'from painformer_jax.cli import commands\n'
    'import painformer_jax.weights.load\n'
    'began = time.process_time()\n'
    'status = commands.run(sys.argv[1:])\n'
    'print(status, time.process_time() - began,'
    ' resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', script, 'convert', str(path), str(tmp_path / 'out')],
    capture_output=True,
    text=True,
    env=environment(),
  )
  status, seconds, kilobytes = done.stdout.split()[-3:]
  assert int(status) == 2, done.stderr[-1000:]
  assert done.stderr.count('\n') == 1 and len(done.stderr) < 1500 + len(str(path))
  assert float(seconds) < 5
  assert int(kilobytes) < 500_000


@pytest.mark.parametrize('kind', ['safetensors', 'names', 'tensors', 'members'])
def test_more_than_there_can_be(tmp_path, kind, monkeypatch):
  """The same with lower limits."""
  monkeypatch.setattr(sys.modules[__name__], 'MANY', 50_000)
  monkeypatch.setattr(torch_pickle, 'MAX_STEPS', 20_000)
  path = tmp_path / 'w'
  path.write_bytes(MAKERS[kind]())
  began = time.process_time()
  with pytest.raises(InputError, match='more than') as caught:
    read(path)
  assert len(str(caught.value)) < 400 + len(str(path))
  assert time.process_time() - began < 5


@pytest.mark.parametrize(
  'shape,message',
  [
    ([1] * 100, '100 dimensions'),
    ([1] * 64, '64 dimensions'),
    ([0, 2**62], 'which no weights have'),
    ([2**31, 2**31, 0], 'which no weights have'),
  ],
)
def test_shapes_that_numpy_has_not(tmp_path, shape, message):
  count = int(np.prod(shape, dtype=object))
  header = {'x': {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, 4 * count]}}
  text = json.dumps(header).encode()
  path = tmp_path / 'w.safetensors'
  path.write_bytes(len(text).to_bytes(8, 'little') + text + bytes(4 * count))
  with pytest.raises(InputError, match=message) as caught:
    read(path)
  assert len(str(caught.value)) < 500 + len(str(path))


def test_long_lists_beside_the_weights_are_read(tmp_path):
  history = b'](' + b'G' + bytes(8) + (b'G' + bytes(8)) * 300_000 + b'e'
  path = tmp_path / 'w'
  body = forge.dict_(history=history, model=forge.dict_(a=forge.tensor([1])))
  path.write_bytes(forge.archive(body, ONE))
  assert read(path).ignored == ['history']


def test_dicts_that_hold_one_another_many_times(tmp_path):
  """Eight levels of a hundred places each would be 10^16 paths."""
  level = b'}q\0'
  for depth in range(1, 9):
    names = b''.join(forge.text(str(i)) + b'h' + bytes([depth - 1]) for i in range(100))
    level += b'}q' + bytes([depth]) + b'(' + names + b'u'
  path = tmp_path / 'w'
  path.write_bytes(forge.archive(level))
  with pytest.raises(InputError, match='holds no state dict; found only: 0, 1, 2'):
    read(path)


def test_lists_in_messages():
  assert listed(['a', 'b']) == 'a, b'
  assert listed([f'n{i}' for i in range(12)], most=3) == 'n0, n1, n2 and 9 more'
  assert listed(range(10)) == ', '.join(map(str, range(10)))
  assert listed({'x' * 10**6: 1}) == 'x' * 117 + '...'
  assert listed(['\x1b[2J\n']) == r'\x1b[2J\n'


@pytest.mark.parametrize('kind', [b'X', b'B'], ids=['text', 'bytes'])
def test_one_long_key_in_many_dicts(tmp_path, kind):
  """The program writes the key once and mentions it everywhere."""
  key = kind + struct.pack('<I', 1_000_000) + b'k' * 1_000_000
  dicts = [forge.text(str(i)) + b'}j\1\0\0\0]s' for i in range(1000)]
  path = tmp_path / 'w.pth'
  path.write_bytes(forge.archive(key + b'r\1\0\0\0' + b'0}(' + b''.join(dicts) + b'u'))
  began = time.process_time()
  with pytest.raises(InputError, match='holds no state dict; found only: 0, 1, '):
    read(path)
  assert time.process_time() - began < 2


def test_one_long_name_in_many_dicts():
  name = 'patch_embed1.' * 70
  nested = {str(i): {name: np.zeros(1), ('x',) * 9: 0} for i in range(5000)}
  began = time.process_time()
  found = state_dicts.find(nested)
  assert len(found) == 5000 and found[7].key == '7' and found[7].fitting == 0
  assert found[7].others == ("('x', 'x', 'x', 'x', 'x', ...)",)
  assert time.process_time() - began < 2


def test_paths_are_cut():
  tree = root = {}
  for _ in range(7):
    tree['x' * 5000] = tree = {}
  tree['w'] = np.zeros(1)
  assert [len(state.key) for state in state_dicts.find(root)] == [1000]
