"""Safetensors in and out."""

import json

import ml_dtypes
import numpy as np
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.weights.safetensors_file import write_safetensors
from painformer_jax.weights.torch.read import read

DTYPES = [
  'float64',
  'float32',
  'float16',
  ml_dtypes.bfloat16,
  'int64',
  'int32',
  'int16',
  'int8',
  'uint64',
  'uint32',
  'uint16',
  'uint8',
  'bool',
  'complex64',
]


def by_hand(header: dict, data: bytes) -> bytes:
  text = json.dumps(header).encode()
  return len(text).to_bytes(8, 'little') + text + data


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('shape', [(), (0, 3), (2, 3)])
def test_round_trip(tmp_path, dtype, shape):
  path = tmp_path / 'w.safetensors'
  array = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(dtype)
  write_safetensors(path, {'a': array, 'transposed': array.T})
  result = read(path)
  for name, expected in [('a', array), ('transposed', array.T)]:
    assert result.tensors[name].dtype == expected.dtype
    np.testing.assert_array_equal(result.tensors[name], expected)
    assert result.tensors[name].flags.c_contiguous
  assert (result.container, result.ignored) == ('', [])


def test_reads_bytes_laid_out_by_hand_whatever_the_suffix(tmp_path):
  path = tmp_path / 'looks_like.pth'
  bfloat = np.array([1.5, -2], ml_dtypes.bfloat16)
  path.write_bytes(
    by_hand(
      {
        'module.b': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [4, 8]},
        'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]},
        '__metadata__': {'format': 'pt'},
      },
      np.array([3], '<f4').tobytes() + bfloat.tobytes(),
    )
  )
  tensors = read(path).tensors
  assert list(tensors) == ['a', 'b']  # in the order of the data
  assert tensors['a'] == np.float32(3)
  np.testing.assert_array_equal(tensors['b'], bfloat)


def test_big_endian_arrays_are_stored_as_numbers(tmp_path):
  path = tmp_path / 'w.safetensors'
  write_safetensors(path, {'a': np.arange(3, dtype='>i4')})
  np.testing.assert_array_equal(read(path).tensors['a'], [0, 1, 2])


def test_same_input_same_bytes(tmp_path):
  tensors = {name: np.ones(3, np.float32) for name in 'zyxa'}
  for name in ('one.safetensors', 'two.safetensors'):
    write_safetensors(tmp_path / name, tensors)
  assert (tmp_path / 'one.safetensors').read_bytes() == (tmp_path / 'two.safetensors').read_bytes()


ENTRY = {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}


def test_metadata_may_be_null(tmp_path):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(by_hand({'__metadata__': None, 'a': ENTRY}, b'\0' * 4))
  assert list(read(path).tensors) == ['a']


@pytest.mark.parametrize(
  'content,message',
  [
    (by_hand({'a': ENTRY}, b'\0' * 3), 'damaged or cut-off safetensors'),
    (by_hand({'a': ENTRY}, b'\0' * 5), 'damaged or cut-off safetensors'),
    (by_hand({'a': ENTRY}, b'')[:20], 'damaged or cut-off safetensors'),
    (
      by_hand({'a': {**ENTRY, 'shape': [10**6, 10**6]}}, b'\0' * 4),
      'damaged or cut-off safetensors',
    ),
    (by_hand({'a': ENTRY, 'b': ENTRY}, b'\0' * 4), 'damaged or cut-off'),
    (
      by_hand({'a': {**ENTRY, 'dtype': 'F8_E4M3', 'data_offsets': [0, 1]}}, b'\0'),
      "'a' has the element type F8_E4M3, which is not read",
    ),
    (by_hand({'a': {**ENTRY, 'dtype': 'X\n'}}, b'\0' * 4), 'damaged or cut-off'),
    (
      by_hand({'a': ENTRY, 'module.a': {**ENTRY, 'data_offsets': [4, 8]}}, b'\0' * 8),
      "holds both 'a' and 'module.a'",
    ),
  ],
)
def test_lies(tmp_path, content, message):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(content)
  with pytest.raises(InputError) as caught:
    read(path)
  assert str(caught.value).startswith(f'{path} ')
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.torch
def test_torch_side_reads_and_writes_the_same(tmp_path):
  torch = pytest.importorskip('torch')
  safetensors_torch = pytest.importorskip('safetensors.torch')
  path = tmp_path / 'w.safetensors'
  bfloat = np.array([1.5, -2], ml_dtypes.bfloat16)
  write_safetensors(path, {'a': np.arange(3, dtype=np.float16), 'b': bfloat})
  loaded = safetensors_torch.load_file(path)
  assert loaded['a'].dtype == torch.float16
  assert loaded['b'].dtype == torch.bfloat16
  assert loaded['b'].tolist() == [1.5, -2]
  safetensors_torch.save_file(loaded, path)
  np.testing.assert_array_equal(read(path).tensors['b'], bfloat)
