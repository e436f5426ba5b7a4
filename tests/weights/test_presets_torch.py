"""Presets beside PyTorch: state dicts as PyTorch saves them give PyTorch's embeddings."""

import dataclasses

import jax
import numpy as np
import pytest
import reference

import painformer_jax as pj
from painformer_jax.models import functional
from painformer_jax.models.config import PRESETS, PainFormerConfig
from painformer_jax.weights.convert import export

pytestmark = pytest.mark.torch
torch = pytest.importorskip('torch')
from torch_backbone import Backbone  # noqa: E402 (it needs torch)


def small(config: PainFormerConfig, **changes) -> PainFormerConfig:
  """The config with its heads, and with few and narrow blocks."""
  return dataclasses.replace(
    config,
    image_size=32,
    stem_width=4,
    widths=tuple(2 * heads for heads in config.heads),
    mixers=tuple(''.join(dict.fromkeys(pattern)) for pattern in config.mixers),
    mlp_ratios=(2,) * len(config.widths),
    **changes,
  )


def random_state(config: PainFormerConfig) -> dict[str, np.ndarray]:
  """Values that spread as those of a trained network."""
  names = export({p: np.zeros(a.shape, a.dtype) for p, a in shapes(config).items()})
  return {name: reference.array(name, array.shape) for name, array in names.items()}


def shapes(config):
  return functional.abstract_variables(config)


def statement(state, config) -> Backbone:
  return Backbone(
    {name: torch.from_numpy(array) for name, array in state.items()},
    mixers=config.mixers,
    heads=config.heads,
    post_heads=config.post_heads,
  )


def largest_error(state, config, model) -> float:
  images = reference.images(2, size=config.image_size)
  expected = statement(state, config)(torch.from_numpy(images)).numpy()
  embed = jax.jit(lambda arrays, x: functional.from_variables(config, arrays)(x).embedding)
  actual = np.asarray(embed(functional.variables(model), images.transpose(0, 2, 3, 1)))
  return float(np.abs(actual - expected).max())


def test_a_file_of_pytorch_gives_the_embeddings_of_pytorch(tmp_path, measured):
  name = 'tiny_biomoe'  # The SpectFormers differ in sizes alone; a slow test has their real ones.
  config = small(PRESETS[name].config)
  state = random_state(config)
  torch.save({'model': {n: torch.from_numpy(a) for n, a in state.items()}}, tmp_path / 'w.pth')
  model = pj.load(tmp_path / 'w.pth', heads=(*config.heads, config.post_heads))
  assert (model.config.widths, model.config.heads) == (config.widths, config.heads)
  measured(f'{name}, small, beside PyTorch', largest_error(state, config, model), limit=2e-5)
  # What leaves here is read by PyTorch, and has the config.
  pj.save(model, tmp_path / 'back.pth')
  back = torch.load(tmp_path / 'back.pth', weights_only=True)
  assert tuple(back['painformer_config']['config']['heads']) == config.heads
  for tensor, array in zip(back['model_state_dict'].values(), state.values(), strict=True):
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_the_statement_is_the_release(measured):
  """The same layers on the released weights, beside the vectors measured on the release."""
  state = reference.state_dict()
  config = PRESETS['painformer'].config
  with np.load(reference.FOLDER / 'painformer_seed0.npz') as file:
    expected = file['eval/embedding'][:1]
  with torch.no_grad():
    actual = statement(state, config)(torch.from_numpy(reference.images(4))[:1]).numpy()
  error = float(np.abs(actual - expected).max())
  measured('statement in PyTorch beside the release', error, limit=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['spectformer_s', 'spectformer_b', 'spectformer_l', 'tiny_biomoe'])
def test_presets_in_their_real_size(name, tmp_path, measured):
  config = PRESETS[name].config
  state = random_state(config)
  extra = {f'aux_head.{leaf}': torch.zeros(3) for leaf in ('weight', 'bias')}
  tensors = {n: torch.from_numpy(a) for n, a in state.items()} | extra
  torch.save(tensors, tmp_path / 'w.pth')
  model = pj.load(tmp_path / 'w.pth')
  assert model.config == config
  measured(f'{name} beside PyTorch', largest_error(state, config, model), limit=5e-5)
