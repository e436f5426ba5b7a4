"""Exported files are loaded strictly by torch modules with the released names and shapes."""

import numpy as np
import pytest
import reference

from painformer_jax.cli.main import main
from painformer_jax.weights.torch.write import write_pth

pytestmark = pytest.mark.torch
torch = pytest.importorskip('torch')
safetensors_torch = pytest.importorskip('safetensors.torch')

_BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


def released_module(manifest):
  """The modules, parameters and buffers of the release, all NaN or -1."""
  root = torch.nn.Module()
  for key, shape in manifest.items():
    *path, leaf = key.split('.')
    module = root
    for name in path:
      if not hasattr(module, name):
        module.add_module(name, torch.nn.Module())
      module = getattr(module, name)
    if leaf == 'num_batches_tracked':
      module.register_buffer(leaf, torch.tensor(-1))
    elif leaf in _BUFFERS:
      module.register_buffer(leaf, torch.full(shape, torch.nan))
    else:
      module.register_parameter(leaf, torch.nn.Parameter(torch.full(shape, torch.nan)))
  return root


@pytest.fixture(scope='module')
def state():
  return reference.state_dict()


@pytest.fixture(scope='module')
def exported(tmp_path_factory, state):
  """The released weights through `painformer export`, in each format."""
  place = tmp_path_factory.mktemp('exported')
  write_pth(place / 'released.pth', state, container='')
  for suffix in ('.pth', '.safetensors'):
    assert main(['export', str(place / 'released.pth'), str(place / f'out{suffix}')]) == 0
  return place


def load(place, suffix):
  if suffix == '.safetensors':
    return safetensors_torch.load_file(place / 'out.safetensors')
  return torch.load(place / 'out.pth', weights_only=True)['model_state_dict']


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_torch_loads_exports_strictly_into_the_released_names_and_shapes(exported, state, suffix):
  module = released_module(reference.manifest())
  assert set(module.state_dict()) == set(state)
  loaded = load(exported, suffix)
  module.load_state_dict(loaded, strict=True)
  for name, tensor in module.state_dict().items():
    found = tensor.numpy()
    assert loaded[name].numpy().dtype == found.dtype == state[name].dtype, name
    np.testing.assert_array_equal(found, state[name], err_msg=name)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('change', ['lacks', 'has one more', 'has another shape'])
def test_strictly_is_meant(exported, suffix, change):
  manifest = reference.manifest()
  if change == 'lacks':
    del manifest['post_network.0.attn.q.weight']
  elif change == 'has one more':
    manifest['norm9.weight'] = (3,)
  else:
    manifest['head.weight'] = (7, 160)
  with pytest.raises(RuntimeError, match='Unexpected key|Missing key|size mismatch'):
    released_module(manifest).load_state_dict(load(exported, suffix), strict=True)
