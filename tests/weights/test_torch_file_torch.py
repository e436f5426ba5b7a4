"""The .pth reader and writer held against PyTorch itself."""

import argparse
import pathlib
import warnings

import ml_dtypes
import numpy as np
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth

pytestmark = pytest.mark.torch
torch = pytest.importorskip('torch')


def numpy(tensor) -> np.ndarray:
  tensor = tensor.detach().contiguous()
  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


def assert_same(read_tensors, torch_tensors):
  assert list(read_tensors) == list(torch_tensors)
  for name, tensor in torch_tensors.items():
    expected = numpy(tensor)
    assert read_tensors[name].dtype == expected.dtype, name
    assert read_tensors[name].shape == expected.shape, name
    assert read_tensors[name].tobytes() == expected.tobytes(), name


def varied() -> dict:
  base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
  shared = torch.arange(6.0)
  return {
    'permuted': base.permute(2, 0, 1),
    'row': base[1],
    'step': base[..., ::2],
    'scalar': torch.tensor(3),
    'empty': torch.zeros(0, 3),
    'expanded': torch.ones(1).expand(3, 4),
    'shared': shared,
    'shared_view': shared[2:4],
    'parameter': torch.nn.Parameter(base[0]),
    'half': base.half(),
    'bfloat16': base.bfloat16()[:, 1:],
    'double': base.double(),
    'bool': base > 3,
    'complex': torch.complex(base, base),
    'uint16': torch.tensor([1, 65535], dtype=torch.uint16),
    **{
      str(dtype): base.to(dtype)
      for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    },
  }


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_reads_what_torch_writes(tmp_path, protocol):
  path = tmp_path / 'w.pth'
  torch.save(varied(), path, pickle_protocol=protocol)
  assert_same(read(path).tensors, varied())


def test_reads_a_training_checkpoint(tmp_path):
  """Wrapped modules, versions in _metadata, optimizer, arguments, scores."""
  network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
  optimizer = torch.optim.AdamW(network.parameters())
  network(torch.ones(2, 3)).square().sum().backward()
  optimizer.step()
  schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
  wrapped = torch.nn.DataParallel(network)
  path = tmp_path / 'w.pth'
  torch.save(
    {
      'model_state_dict': wrapped.state_dict(),
      'epoch': 3,
      'optimizer': optimizer.state_dict(),
      'schedule': schedule.state_dict(),
      'args': argparse.Namespace(lr=1e-4, out=pathlib.Path('x'), seeds={1, 2}),
      'best': np.float64(0.5),
      'curve': np.arange(3),
      'rng': torch.get_rng_state(),
      'dtype': torch.float16,
      'device': torch.device('cpu'),
      'size': torch.Size([3, 4]),
    },
    path,
  )
  result = read(path)
  assert result.container == 'model_state_dict'
  assert_same(result.tensors, network.state_dict())
  assert result.tensors['1.num_batches_tracked'] == 1
  assert result.ignored == [
    'epoch',
    'optimizer',
    'schedule',
    'args',
    'best',
    'curve',
    'rng',
    'dtype',
    'device',
    'size',
  ]


def test_reads_files_saved_without_checksums(tmp_path):
  path = tmp_path / 'w.pth'
  if not hasattr(torch.serialization, 'set_crc32_options'):
    pytest.skip('this PyTorch always records checksums')
  torch.serialization.set_crc32_options(False)
  try:
    torch.save(varied(), path)
  finally:
    torch.serialization.set_crc32_options(True)
  assert_same(read(path).tensors, varied())


def test_legacy_format_of_torch_itself(tmp_path):
  path = tmp_path / 'w.pth'
  torch.save(varied(), path, _use_new_zipfile_serialization=False)
  with pytest.raises(InputError, match='torch.save before PyTorch 1.6'):
    read(path)


def test_script_module(tmp_path):
  path = tmp_path / 'w.pth'
  example = torch.ones(1, 3)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)
    torch.jit.trace(torch.nn.Linear(3, 4), example).save(path)
  with pytest.raises(InputError, match='TorchScript module'):
    read(path)


@pytest.mark.parametrize('container', ['model_state_dict', ''])
@pytest.mark.parametrize('mmap', [False, True])
def test_torch_reads_what_is_written(tmp_path, container, mmap):
  path = tmp_path / 'w.pth'
  torch.save({k: v for k, v in varied().items() if k != 'uint16'}, path)
  arrays = read(path).tensors
  path = tmp_path / 'back.pth'
  write_pth(path, arrays, container=container)
  loaded = torch.load(path, weights_only=True, mmap=mmap)
  if container:
    assert list(loaded) == [container]
    loaded = loaded[container]
  assert_same(arrays, loaded)
  assert all(not tensor.requires_grad for tensor in loaded.values())
  module = torch.nn.Module()
  module.weight = torch.nn.Parameter(torch.zeros(2, 3, 4))
  module.load_state_dict({'weight': loaded['double']}, strict=True)
  assert module.weight[1, 2, 3] == 23
