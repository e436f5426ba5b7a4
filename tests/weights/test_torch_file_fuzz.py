"""A thousand damaged files: each is refused in one line or read soundly."""

import pickletools
import random
import sys
import time
import tracemalloc

import forge
import ml_dtypes
import numpy as np
import pytest
import test_weights_folders as folders

from painformer_jax.core.errors import InputError
from painformer_jax.weights.safetensors_file import write_safetensors
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth

MUTANTS = 400  # of each kind
MEMORY = 32 << 20
SECONDS = 2.0

TENSORS = {
  'module.norm.weight': np.arange(4, dtype=np.float32),
  'mlp.weight': np.arange(6, dtype=np.float16).reshape(2, 3),
  'half': np.ones((1, 2), ml_dtypes.bfloat16),
  'count': np.asarray(5),
}

# A program with the memo, extras, views and a shared storage.
BODY = forge.dict_(
  epoch=forge.number(300),
  history=forge.name('collections', 'defaultdict')
  + forge.tuple_(forge.name('builtins', 'list'))
  + b'R',
  kind=forge.name('builtins', 'getattr')
  + forge.tuple_(forge.name('mine.config', 'Kind'), forge.text('FAST'))
  + b'R',
  start=forge.name('datetime', 'datetime') + forge.tuple_(b'C\x03abc') + b'R',
  args=forge.name('argparse', 'Namespace')
  + b')\x81'
  + forge.dict_(lr=b'G' + b'\x3f\xf0' + b'\0' * 6)
  + b'b',
  state_dict=forge.ORDERED_DICT
  + b'q\1('
  + forge.text('a')
  + forge.tensor([2, 2], [1, 2], count=6, offset=1)
  + forge.text('b')
  + forge.tensor([6])
  + b'u'
  + forge.dict_(_metadata=b'h\1')
  + b'b',
)
# A module that was pickled whole.
MODULE = forge.instance(
  'mine.models',
  'Network',
  forge.dict_(
    _parameters=forge.dict_(a=forge.tensor([2, 3])),
    _buffers=forge.ORDERED_DICT,
    _modules=forge.dict_(
      inner=forge.instance(
        'torch.nn.modules.linear',
        'Linear',
        forge.dict_(_parameters=forge.dict_(b=forge.tensor([6]))),
      )
    ),
  ),
)
STORAGE = forge.floats(1, 2, 3, 4, 5, 6)

EXTREMES = [0, 1, 255, 2**16, 2**31 - 1, -1, -(2**31), 2**40, 10**12, 2**63, 2**90]


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
  """One to four flips, cuts, insertions, deletions, copies or overwrites."""
  data = bytearray(content)
  for _ in range(rng.randint(1, 4)):
    at = rng.randrange(len(data))
    span = rng.choice([1, 2, 4, 8, 64])
    match rng.randrange(6):
      case 0:
        data[at] ^= 1 << rng.randrange(8)
      case 1:
        del data[max(at, 1) :]
      case 2:
        data[at:at] = rng.randbytes(span)
      case 3:
        del data[at : at + span]
      case 4:
        other = rng.randrange(len(data))
        data[at : at + span] = data[other : other + span]
      case 5:
        data[at : at + span] = rng.choice([b'\0', b'\xff']) * span
    if not data:
      data = bytearray(b'\0')
  return bytes(data)


def operations(program: bytes) -> list[bytes]:
  starts = [at for _, _, at in pickletools.genops(program)] + [len(program)]
  return [program[a:b] for a, b in zip(starts, starts[1:])]


def mutated_program(rng: random.Random, program: bytes) -> bytes:
  """One to four opcodes dropped, repeated, swapped, replaced or given another
  argument; the zip around it is sound, checksums and all."""
  ops = operations(program)
  foreign = [bytes([code]) for code in range(256)] + [
    forge.name('os', 'system'),
    forge.name('builtins', 'eval'),
    forge.name('builtins', 'getattr'),
    forge.name('torch._utils', '_rebuild_qtensor'),
    forge.name('torch._tensor', '_rebuild_from_type_v2'),
    forge.name('mine', 'Class'),
    forge.name('torch', 'FloatStorage'),
    forge.text('storage'),
    b'h\1',
    b'\x94',
    b'2',
    b'0',
  ]
  for _ in range(rng.randint(1, 4)):
    at, other = rng.randrange(len(ops)), rng.randrange(len(ops))
    match rng.randrange(6):
      case 0:
        del ops[at]
      case 1:
        ops[at:at] = [ops[other]] * rng.choice([1, 2, 1000])
      case 2:
        ops[at], ops[other] = ops[other], ops[at]
      case 3:
        ops[at] = rng.choice(foreign)
      case _:
        numbers = [i for i, op in enumerate(ops) if op[:1] in (b'K', b'J')]
        if numbers:
          ops[rng.choice(numbers)] = forge.number(rng.choice(EXTREMES))
    if not ops:
      ops = [b'N']
  return b''.join(ops)


def mutants(kind: str, folder):
  """Yields the damaged files, from a fixed seed."""
  rng = random.Random(kind)
  pth, safetensors = folder / 'whole.pth', folder / 'whole.safetensors'
  write_pth(pth, TENSORS)
  write_safetensors(safetensors, TENSORS)
  wholes = [pth.read_bytes(), forge.archive(BODY, [STORAGE])]
  for whole in wholes:
    (folder / 'sound').write_bytes(whole)
    assert read(folder / 'sound').tensors
  for index in range(MUTANTS):
    if kind == 'bytes':
      yield mutated_bytes(rng, wholes[index % 2])
    elif kind == 'modules':
      program = forge.program(MODULE)
      yield forge.archive_of(mutated_program(rng, program), [STORAGE])
    elif kind == 'opcodes':
      yield forge.archive_of(mutated_program(rng, forge.program(BODY)), [STORAGE])
    else:
      yield mutated_bytes(rng, safetensors.read_bytes())


@pytest.mark.parametrize('kind', ['bytes', 'opcodes', 'modules', 'safetensors'])
def test_damaged_files(tmp_path, kind):
  path = tmp_path / 'damaged'
  refused = read_whole = 0
  for index, content in enumerate(mutants(kind, tmp_path)):
    path.write_bytes(content)
    modules = set(sys.modules)
    tracemalloc.start()
    began = time.perf_counter()
    try:
      result = read(path)
    except InputError as error:
      refused += 1
      line = str(error)
      assert line.startswith(f'{path} ') and line.isprintable(), index
      assert len(line) < 600 + len(str(path)), index
    else:
      read_whole += 1
      total = sum(array.nbytes for array in result.tensors.values())
      assert total <= 4 * len(content) + (1 << 20), index
      assert all(type(name) is str for name in result.tensors), index
    finally:
      peak = tracemalloc.get_traced_memory()[1]
      tracemalloc.stop()
    assert peak < MEMORY, index
    assert time.perf_counter() - began < SECONDS, index
    imported = set(sys.modules) - modules
    assert all(name.startswith('encodings.') for name in imported), imported
  assert refused + read_whole == MUTANTS
  assert refused > MUTANTS / 4
  assert read_whole > MUTANTS / 100


def test_damaged_folders(tmp_path):
  """The metadata and the data of a distributed checkpoint, and the index of several files."""
  rng = random.Random('folders')
  folder = folders.dcp(
    tmp_path / 'dcp', {'a': np.ones((4, 3), np.float32), 'b': np.ones(2, np.float32)}
  )
  parts = folders.index(tmp_path / 'parts', ending='bin')
  files = [folder / '.metadata', folder / '__0_0.distcp', parts]
  refused = 0
  for number in range(MUTANTS):
    file = files[number % 3]
    whole = file.read_bytes()
    if number % 6 == 0:
      file.write_bytes(mutated_program(rng, whole))
    else:
      file.write_bytes(mutated_bytes(rng, whole))
    modules = set(sys.modules)
    began = time.perf_counter()
    try:
      read(parts.parent if file == parts else folder)
    except InputError as error:
      refused += 1
      assert str(error).isprintable() and len(str(error)) < 900 + len(str(tmp_path)), number
    finally:
      file.write_bytes(whole)
    assert time.perf_counter() - began < SECONDS, number
    assert all(name.startswith('encodings.') for name in set(sys.modules) - modules)
  assert refused > MUTANTS / 4
