"""Files that are not what they claim: one clear line each, nothing executed."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
import zlib

import forge
import numpy as np
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch import pickle as torch_pickle
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth

ONE = forge.floats(1)
HONEST = forge.dict_(model=forge.dict_(a=forge.tensor([1])))


@pytest.fixture
def refuses(tmp_path):
  """Asserts that `read` refuses `content` in one line that says `message`."""

  def refuses(content: bytes, message: str):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
      read(path)
    line = str(caught.value)
    assert line.startswith(f'{path} ')
    assert message in line
    assert '\n' not in line and line.isprintable() and len(line) < 600

  return refuses


def npz() -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, a=np.ones(3))
  return buffer.getvalue()


def tar() -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as archive:
    for name in ('sys_info', 'pickle', 'tensors', 'storages'):
      archive.addfile(tarfile.TarInfo(name), io.BytesIO())
  return buffer.getvalue()


@pytest.mark.parametrize(
  'content,message',
  [
    (b'', 'is empty'),
    (b'\0', 'neither a PyTorch (zip) nor a safetensors file'),
    (b'\x80', 'neither a PyTorch (zip) nor a safetensors file'),
    (b'GIF89a' + b'\0' * 300, 'neither a PyTorch (zip) nor a safetensors'),
    (gzip.compress(b'x', mtime=0), 'neither a PyTorch (zip) nor a safetensors file'),
    (tar(), 'is a tar archive; if PyTorch wrote it (before 0.4), save it'),
    (pickle.dumps(0x1950A86A20F9469CFC6C, 2), 'before PyTorch 1.6; save it'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'\n<!DOCTYPE html><html>', 'is a web page'),
    (npz(), 'is a NumPy .npz archive'),
    (b'PK\x05\x06' + b'\0' * 18, 'a zip archive without FOLDER/data.pkl'),
    (b'PK\x03\x04', 'is a damaged or cut-off zip archive'),
  ],
)
def test_other_files(refuses, content, message):
  refuses(content, message)


def test_places_that_are_no_files(tmp_path):
  with pytest.raises(InputError, match='is a folder; give the .pth'):
    read(tmp_path)
  with pytest.raises(InputError, match='does not exist; check the path'):
    read(tmp_path / 'absent.pth')
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(InputError, match='is not a regular file'):
    read(tmp_path / 'pipe')


def test_files_too_large_are_not_read(tmp_path):
  path = tmp_path / 'sparse.pth'
  with path.open('wb') as file:
    file.truncate((4 << 30) + 1)
  with pytest.raises(InputError, match='has 4,294,967,297 bytes, more than'):
    read(path)


@pytest.mark.parametrize('kept', [0.01, 0.3, 0.7, 0.99])
def test_truncated(refuses, kept):
  content = forge.archive(HONEST, [ONE])
  refuses(content[: int(kept * len(content))], 'download')


class Runs:
  """Pickles to a call, as an attacker would write it."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(
  'function,name', [(os.system, f'{os.system.__module__}.system'), (eval, 'builtins.eval')]
)
def test_calls_are_refused_and_not_made(refuses, tmp_path, protocol, function, name):
  marker = tmp_path / 'executed'
  source = f'touch {marker}' if function is os.system else f'open({str(marker)!r}, "w").close()'
  attack = pickle.dumps({'model': Runs(function, source)}, protocol)
  if protocol == 2:
    name = name.replace('builtins', '__builtin__')
  refuses(forge.archive(attack[2:-1]), f'refuses {name}')
  assert not marker.exists()
  pickle.loads(attack)
  assert marker.exists(), 'the attack would have worked'


@pytest.mark.parametrize(
  'body,opcode',
  [
    (b'I7\n', 'INT'),
    (b"S'x'\n", 'STRING'),
    (b'Vls\n', 'UNICODE'),
    (b'(ios\nsystem\n', 'INST'),
    (b'Pmodule\n', 'PERSID'),
    (b'(o', 'OBJ'),
    (b']\x82\x01', 'EXT1'),
    (b'\x97', 'NEXT_BUFFER'),
  ],
)
def test_foreign_opcodes(refuses, body, opcode):
  refuses(forge.archive(body), f'refuses pickle opcode {opcode},')


@pytest.mark.parametrize(
  'body',
  [
    b's',
    b'u',
    b't',
    b'R',
    b'b',
    b'Q',
    b'h\1',
    b'a',
    b'e',
    b'\x85',
    b'\x93',
    b'(cos\n',
    b'}(K\1u',
    b'}K\1a',
    b'K\1K\2K\3s',
    b'X\xff\xff\xff\xffab',
    b'\x8b\xff\xff\xff\x7f',
    b'\x8d' + b'\xff' * 8,
    b'(K\1tQ',
    b'K\1)R',
    b'q\1',
    forge.name('torch', 'FloatStorage') + b')R',
    forge.name('collections', 'OrderedDict') + b'(]tR',
    forge.name('torch', 'Size') + b')R',
    forge.name('torch._utils', '_rebuild_parameter') + b'K\1K\1K\1\x87R',
    forge.name('torch._utils', '_rebuild_tensor_v2') + b'(K\1K\1))\x89}tR',
    forge.tensor([-1]),
    forge.tensor([2], [-1]),
    forge.tensor([2], []),
    forge.tensor([1], offset=-1),
    forge.tensor([2**70], [1]),
    forge.tensor([1] * 33),
    forge.tensor([1], count=-1),
    forge.dict_(a=b''),
  ],
)
def test_damaged_programs(refuses, body):
  refuses(forge.archive(body, [ONE]), 'its list of tensors is damaged')


def test_dict_keys_that_could_stall_or_crash(refuses):
  deep = b')' + b'\x85' * 100_000
  refuses(forge.archive(b'}' + deep + b'K\1s'), 'found only: key of type tuple')
  refuses(forge.archive(b'}' + forge.number(2**70) + b'K\1s'), 'found only: key of type int')


def test_deep_nesting_does_no_harm(refuses):
  deep = b'}K\1' * 200_000 + b'}' + b's' * 200_000
  refuses(forge.archive(deep), 'holds no state dict')
  loop = b'}q\0' + forge.text('model') + b'h\0s'
  refuses(forge.archive(loop), 'holds no state dict')


@pytest.mark.parametrize(
  'body,message',
  [
    (b'K\1', 'holds no state dict but a single object'),
    (b'}', 'found only: nothing'),
    (forge.dict_(epoch=b'K\1', model=b'}'), 'found only: epoch, model'),
    (forge.dict_(a=forge.tensor([1], extra=forge.dict_(conj=b'\x88'))), 'a pending conjugation'),
  ],
)
def test_no_state_dict(refuses, body, message):
  refuses(forge.archive(body, [ONE]), message)


@pytest.mark.parametrize(
  'tensor,message',
  [
    (forge.tensor([10**6, 10**6]), 'a storage said to hold 4,000,000,000,000 bytes and holding 4'),
    (
      forge.tensor([10**6, 10**6], [0, 0], count=1),
      'claims 1,000,000,000,000 elements, shape (1000000, 1000000), and its storage holds 1;',
    ),
    (forge.tensor([0, 2**62], count=1), 'claims 0 elements'),
    (
      forge.tensor([2**40] * 32, [0] * 32, count=1),
      'claims more than 10^385 elements, shape (1099511627776,',
    ),
    (forge.tensor([2], count=1), 'reaches element 1 of a storage that holds 1'),
    (forge.tensor([1], offset=1), 'reaches element 1 of a storage'),
    (forge.tensor([2], [2**62], count=1), 'reaches element'),
    (forge.tensor([1], key='9'), "member 'data/9', which the file does not"),
    (forge.tensor([1], key='../x'), "member 'data/../x', which the file"),
    (forge.tensor([2]), 'said to hold 8 bytes and holding 4'),
    (forge.tensor([1], storage='DoubleStorage'), 'to hold 8 bytes'),
  ],
)
def test_tensors_that_the_file_cannot_hold(refuses, tensor, message):
  refuses(forge.archive(forge.dict_(a=tensor), [ONE]), message)


def test_many_small_lies_are_added_up(refuses):
  """Each tensor repeats one element within reason; together they do not."""
  body = (
    b'}('
    + b''.join(forge.text(str(i)) + forge.tensor([10_000], [0], count=1) for i in range(200))
    + b'u'
  )
  refuses(forge.archive(body, [ONE]), 'claims 10,000 elements')


def test_program_too_long(refuses):
  body = b'N' * torch_pickle.MAX_PROGRAM_BYTES
  refuses(forge.archive(body), f'more than the {torch_pickle.MAX_PROGRAM_BYTES:,}')


def test_zip_bomb(refuses):
  zeros = np.zeros(10_000_000, '<f4').tobytes()
  content = forge.archive(
    forge.dict_(a=forge.tensor([10_000_000])), [zeros], compression=zipfile.ZIP_DEFLATED
  )
  assert len(content) < len(zeros) / 500
  refuses(content, 'has the compressed member')


def patched(content: bytes, member: str, *, offset: int, value: bytes) -> bytes:
  """Overwrites a field of a member's entry in the central directory."""
  at = content.rindex(b'PK\x01\x02', 0, content.rindex(member.encode())) + offset
  return content[:at] + value + content[at + len(value) :]


def test_members_that_lie(refuses):
  content = forge.archive(
    forge.dict_(a=forge.tensor([1]), b=forge.tensor([1], key='1')), [ONE, ONE]
  )
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    first = archive.getinfo('archive/data/0').header_offset
    near = archive.getinfo('archive/data/1').header_offset + 1
  second = 'archive/data/1'
  refuses(
    patched(content, second, offset=42, value=first.to_bytes(4, 'little')),
    'overlaps or repeats another',
  )
  refuses(
    patched(content, second, offset=46, value=b'archive/data/0'), 'overlaps or repeats another'
  )
  refuses(
    patched(content, second, offset=42, value=near.to_bytes(4, 'little')), 'no member begins where'
  )
  huge = (10**9).to_bytes(4, 'little')
  refuses(
    patched(content, second, offset=20, value=huge + huge),
    'claims 1,000,000,000 bytes that the file does not hold',
  )
  refuses(
    patched(content, second, offset=24, value=huge),
    'claims 1,000,000,000 bytes that the file does not hold',
  )
  refuses(patched(content, second, offset=8, value=b'\1\0'), 'is encrypted')


def test_archives_of_other_kinds(refuses):
  refuses(
    forge.archive(HONEST, [ONE], more=[('archive/constants.pkl', b'')]), 'is a TorchScript module'
  )
  refuses(
    forge.archive(HONEST, [ONE], more=[('other/data.pkl', b'')]),
    'holds more than one checkpoint: archive/, other/',
  )
  refuses(forge.archive(HONEST, [ONE], folder='a/b'), 'not one packed again')
  refuses(forge.archive(HONEST, [ONE], byteorder=b'middle'), 'byteorder record')
  refuses(forge.archive(HONEST, [ONE], byteorder=b'x' * 99), 'byteorder record')


def test_names_cannot_garble_the_terminal(refuses):
  name = '\x1b[2J\n' + 'x' * 5000
  refuses(
    forge.archive(b'}' + forge.text(name) + forge.tensor([9], count=1) + b's', [ONE]),
    '\\x1b[2J\\nxxx',
  )


def test_bytes_flipped_on_the_way(refuses, tmp_path):
  """Every single-byte change to the tensor data is noticed."""
  path = tmp_path / 'whole.pth'
  array = np.arange(4, dtype=np.float32)
  write_pth(path, {'a': array})
  content = path.read_bytes()
  start = content.index(array.tobytes())
  for at in range(start, start + array.nbytes):
    flipped = bytes([content[at] ^ 0x10])
    refuses(content[:at] + flipped + content[at + 1 :], 'checksum')
  assert zlib.crc32(array.tobytes()).to_bytes(4, 'little') in content
