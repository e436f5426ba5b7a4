"""Reading and writing .pth files without PyTorch."""

import hashlib
import os
import re
import stat
import subprocess
import sys
import zipfile

import forge
import hypothesis
import hypothesis.extra.numpy as hypothesis_numpy
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import reference
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth

DTYPES = [
  'float64',
  'float32',
  'float16',
  ml_dtypes.bfloat16,
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
  'complex64',
  'complex128',
]


@pytest.fixture
def save(tmp_path):
  def save(content: bytes):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    return path

  return save


def same(left: np.ndarray, right: np.ndarray) -> bool:
  return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


def test_reads_order_container_and_hash(save):
  content = forge.archive(
    forge.dict_(
      epoch=forge.number(7),
      model_state_dict=forge.ORDERED_DICT
      + b'('
      + forge.text('b')
      + forge.tensor([2], key='1')
      + forge.text('a')
      + forge.tensor([2, 2])
      + b'u',
      args=forge.dict_(lr=b'G' + b'\x3f\xf0' + b'\0' * 6),
    ),
    [forge.floats(1, 2, 3, 4), forge.floats(5, 6)],
  )
  result = read(save(content))
  assert list(result.tensors) == ['b', 'a']
  np.testing.assert_array_equal(result.tensors['a'], [[1, 2], [3, 4]])
  np.testing.assert_array_equal(result.tensors['b'], [5, 6])
  assert result.container == 'model_state_dict'
  assert result.ignored == ['epoch', 'args']
  assert result.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize('container', ['', 'model', 'state_dict', 'model_state_dict'])
def test_each_container(tmp_path, container):
  path = tmp_path / 'w.pth'
  write_pth(path, {'a': np.ones(3, np.float32)}, container=container)
  result = read(path)
  assert result.container == container
  assert list(result.tensors) == ['a']


def test_container_preference_and_decoys(save):
  tensors = forge.dict_(a=forge.tensor([1]))
  body = forge.dict_(
    model=forge.dict_(name=forge.text('a name, no weights')),
    state_dict=tensors,
    best=forge.tensor([1]),
  )
  result = read(save(forge.archive(body, [forge.floats(1)])))
  assert result.container == 'state_dict'
  assert result.ignored == ['model', 'best']


def test_bare_dict_ignores_what_is_no_tensor(save):
  body = forge.dict_(a=forge.tensor([1]), epoch=forge.number(3))
  result = read(save(forge.archive(body, [forge.floats(1)])))
  assert (result.container, result.ignored) == ('', ['epoch'])


@pytest.mark.parametrize(
  'key,expected',
  [
    ('module.a.weight', 'a.weight'),
    ('_orig_mod.a.weight', 'a.weight'),
    ('module._orig_mod.module.a.weight', 'a.weight'),
    ('a._orig_mod.weight', 'a.weight'),
    ('a.module', 'a.module'),
    ('modules.a', 'modules.a'),
  ],
)
def test_wrapper_prefixes(tmp_path, key, expected):
  write_pth(tmp_path / 'w.pth', {key: np.ones(1, np.float32)})
  assert list(read(tmp_path / 'w.pth').tensors) == [expected]


def test_names_that_collide_without_prefix(tmp_path):
  one = np.ones(1, np.float32)
  write_pth(tmp_path / 'w.pth', {'module.a': one, 'a': one})
  with pytest.raises(InputError, match="both 'module.a' and 'a'"):
    read(tmp_path / 'w.pth')


def test_strides_offsets_and_shared_storage(save):
  values = np.arange(12, dtype='<f4')
  body = forge.dict_(
    whole=forge.tensor([3, 4]),
    transposed=forge.tensor([4, 3], [1, 4]),
    row=forge.tensor([4], count=12, offset=4),
    column=forge.tensor([3], [4], count=12, offset=1),
    scalar=forge.tensor([], count=12, offset=11),
    repeated=forge.tensor([2, 4], [0, 1], count=12),
    huge_stride=forge.tensor([1, 4], [2**62, 1], count=12),
    empty=forge.tensor([0, 5], count=12),
  )
  tensors = read(save(forge.archive(body, [values.tobytes()]))).tensors
  grid = values.reshape(3, 4)
  np.testing.assert_array_equal(tensors['whole'], grid)
  np.testing.assert_array_equal(tensors['transposed'], grid.T)
  np.testing.assert_array_equal(tensors['row'], grid[1])
  np.testing.assert_array_equal(tensors['column'], grid[:, 1])
  assert tensors['scalar'].shape == () and tensors['scalar'] == 11
  np.testing.assert_array_equal(tensors['repeated'], [grid[0], grid[0]])
  np.testing.assert_array_equal(tensors['huge_stride'], grid[:1])
  assert tensors['empty'].shape == (0, 5)
  for array in tensors.values():
    assert array.flags.c_contiguous and array.flags.writeable
  tensors['whole'][:] = 0
  assert tensors['row'][0] == 4  # tied on disk, apart in memory


@pytest.mark.parametrize('order', ['little', 'big'])
@pytest.mark.parametrize(
  'dtype,storage',
  [
    ('f8', 'DoubleStorage'),
    ('f4', 'FloatStorage'),
    ('f2', 'HalfStorage'),
    ('i8', 'LongStorage'),
    ('i4', 'IntStorage'),
    ('i2', 'ShortStorage'),
    ('i1', 'CharStorage'),
    ('u1', 'ByteStorage'),
    ('c8', 'ComplexFloatStorage'),
    ('c16', 'ComplexDoubleStorage'),
  ],
)
def test_byte_order(save, order, dtype, storage):
  expected = np.array([1, 2, 3], dtype)
  stored = expected.astype(expected.dtype.newbyteorder(order))
  body = forge.dict_(a=forge.tensor([3], storage=storage))
  array = read(save(forge.archive(body, [stored.tobytes()], byteorder=order.encode()))).tensors['a']
  assert same(array, expected)


@pytest.mark.parametrize('order', ['little', 'big'])
def test_bfloat16_and_bool_byte_order(save, order):
  half = np.array([1.5, -3], ml_dtypes.bfloat16)
  stored = half.view('u2').astype('<u2' if order == 'little' else '>u2')
  body = forge.dict_(
    a=forge.tensor([2], storage='BFloat16Storage'),
    b=forge.tensor([3], key='1', storage='BoolStorage'),
  )
  tensors = read(
    save(forge.archive(body, [stored.tobytes(), b'\0\1\2'], byteorder=order.encode()))
  ).tensors
  assert same(tensors['a'], half)
  assert same(tensors['b'], np.array([False, True, True]))


def test_no_byteorder_record_means_little(save):
  body = forge.dict_(a=forge.tensor([1]))
  content = forge.archive(body, [forge.floats(2)], byteorder=None)
  assert read(save(content)).tensors['a'] == [2]


def test_extras_of_training_scripts_are_inert(save):
  """Namespace, Counter, NumPy scalars, sets, paths: built, never called."""
  new = b')\x81'
  body = forge.dict_(
    model=forge.dict_(a=forge.tensor([1])),
    args=forge.name('argparse', 'Namespace')
    + new
    + forge.dict_(
      lr=forge.number(1),
      size=forge.name('torch', 'Size') + forge.tuple_(forge.tuple_(forge.number(3))) + b'R',
    )
    + b'b',
    path=forge.name('pathlib', 'PosixPath')
    + forge.tuple_(forge.text('/'), forge.text('tmp'))
    + b'R',
    counter=forge.name('collections', 'Counter') + forge.tuple_(b'}') + b'R',
    score=forge.name('numpy.core.multiarray', 'scalar')
    + forge.tuple_(
      forge.name('numpy', 'dtype') + forge.tuple_(forge.text('f8')) + b'R',
      forge.name('_codecs', 'encode')
      + forge.tuple_(forge.text('abcdefgh'), forge.text('latin1'))
      + b'R',
    )
    + b'R',
    names=b']' + forge.text('x') + b'a',
    dtype=forge.name('torch', 'float16'),
    kinds=b'\x8f(' + forge.number(1) + b'\x90',
  )
  result = read(save(forge.archive(body, [forge.floats(1)])))
  assert list(result.tensors) == ['a']
  assert result.ignored == ['args', 'path', 'counter', 'score', 'names', 'dtype', 'kinds']


def test_metadata_attributes_and_parameters(save):
  parameter = (
    forge.name('torch._utils', '_rebuild_parameter')
    + forge.tuple_(forge.tensor([1]), b'\x88', forge.ORDERED_DICT)
    + b'R'
  )
  state = (
    forge.ORDERED_DICT
    + b'('
    + forge.text('a')
    + parameter
    + b'u'
    + forge.dict_(_metadata=forge.ORDERED_DICT)
    + b'b'
  )
  tensors = read(save(forge.archive(state, [forge.floats(9)]))).tensors
  assert list(tensors) == ['a'] and tensors['a'] == [9]


def test_opcodes_of_newer_protocols(save):
  """FRAME, SHORT_BINUNICODE, MEMOIZE, STACK_GLOBAL, BINGET, BINPUT."""
  frame = b'\x95' + (100).to_bytes(8, 'little')
  ordered = b'\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93)Rq\7'
  body = (
    frame
    + ordered
    + b'\x8c\x01a'
    + forge.tensor([2])
    + b's'
    + b'}'
    + forge.text('state_dict')
    + b'h\7'
    + b's'
  )
  result = read(save(forge.archive(body, [forge.floats(1, 2)])))
  np.testing.assert_array_equal(result.tensors['a'], [1, 2])
  assert result.container == 'state_dict'


def test_checksums_may_be_absent_but_not_wrong(save):
  """PyTorch can be told to record zeros in place of checksums."""
  content = bytearray(forge.archive(forge.dict_(a=forge.tensor([1])), [forge.floats(1)]))
  crc = zipfile.zlib.crc32(forge.floats(1)).to_bytes(4, 'little')
  absent = bytes(content).replace(crc, b'\0\0\0\0')
  assert read(save(absent)).tensors['a'] == [1]
  wrong = bytes(content).replace(crc, b'\1\0\0\0')
  with pytest.raises(InputError, match='checksum of its member data/0'):
    read(save(wrong))


@hypothesis.settings(
  deadline=None,
  max_examples=60,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_written_files_read_back_bit_for_bit(tmp_path, data):
  names = st.text(  # no dots: a wrapper's name would be taken off
    st.characters(exclude_characters='.', exclude_categories=['Cs'])
  )
  tensors = data.draw(
    st.dictionaries(
      names,
      st.sampled_from(DTYPES).flatmap(
        lambda dtype: hypothesis_numpy.arrays(
          np.uint8, st.tuples(*[st.integers(0, 3)] * 2, st.just(np.dtype(dtype).itemsize))
        ).map(lambda raw: (raw % 2).view(dtype)[..., 0])
      ),
      min_size=1,
      max_size=4,
    )
  )
  path = tmp_path / 'w.pth'
  write_pth(path, tensors)
  first = path.read_bytes()
  result = read(path).tensors
  assert list(result) == list(tensors)
  assert all(same(result[name], tensors[name]) for name in tensors)
  write_pth(path, tensors)
  assert path.read_bytes() == first


def test_written_layout(tmp_path):
  """Aligned as PyTorch aligns, in its member order, without a clock."""
  path = tmp_path / 'w.pth'
  write_pth(path, {'a': np.arange(6.0).reshape(2, 3).T, 'b': np.arange(3, dtype='>i4')})
  content = path.read_bytes()
  with zipfile.ZipFile(path) as archive:
    entries = archive.infolist()
    assert archive.testzip() is None
  assert [e.filename for e in entries] == [
    'painformer_jax/data.pkl',
    'painformer_jax/byteorder',
    'painformer_jax/data/0',
    'painformer_jax/data/1',
    'painformer_jax/version',
  ]
  for entry in entries:
    assert entry.compress_type == zipfile.ZIP_STORED
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    lengths = np.frombuffer(content, '<u2', 2, entry.header_offset + 26)
    assert (entry.header_offset + 30 + int(lengths.sum())) % 64 == 0
  np.testing.assert_array_equal(read(path).tensors['a'], np.arange(6.0).reshape(2, 3).T)


def test_write_refuses_types_without_a_storage_class(tmp_path):
  with pytest.raises(InputError, match="'a' has the element type uint16"):
    write_pth(tmp_path / 'w.pth', {'a': np.ones(1, np.uint16)})
  assert not list(tmp_path.iterdir())


def test_write_replaces_and_keeps_permissions_usual(tmp_path):
  path = tmp_path / 'w.pth'
  write_pth(path, {'before': np.ones(2, np.float32)})
  write_pth(path, {'a': np.ones(1, np.float32)})
  assert list(read(path).tensors) == ['a']
  assert list(tmp_path.iterdir()) == [path]
  umask = os.umask(0)
  os.umask(umask)
  assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_write_to_places_that_cannot_be(tmp_path):
  one = {'a': np.ones(1, np.float32)}
  with pytest.raises(InputError, match=re.escape(str(tmp_path))):
    write_pth(tmp_path, one)
  with pytest.raises(InputError, match='missing'):
    write_pth(tmp_path / 'missing' / 'w.pth', one)


def test_full_disk_leaves_nothing_new(tmp_path):
  """A limit on file sizes stands in for a full disk: a real OSError."""
  path = tmp_path / 'w.pth'
  write_pth(path, {'before': np.ones(2, np.float32)})
  before = path.read_bytes()
  script = (
    'import resource, sys, numpy as np\n'
    'from painformer_jax.weights.torch.write import write_pth\n'
    'from painformer_jax.core.errors import InputError\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n'
    'try:\n'
    '  write_pth(sys.argv[1], {"a": np.ones(1_000_000, np.float32)})\n'
    'except InputError as error:\n'
    '  print(error)\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', script, str(path)], capture_output=True, text=True, env=environment()
  )
  assert result.stdout.startswith(f'{path} ') and 'File too large' in result.stdout, result.stderr
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


def test_reads_a_whole_released_checkpoint(tmp_path):
  expected = reference.state_dict()
  path = tmp_path / 'painformer.pth'
  write_pth(path, expected)
  result = read(path)
  assert list(result.tensors) == list(expected)
  assert len(result.tensors) == 375
  assert all(same(result.tensors[k], v) for k, v in expected.items())
