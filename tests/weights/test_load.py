"""`pj.load` from every form of weights."""

import jax
import numpy as np
import pytest

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights import folder as weights
from painformer_jax.weights import load as load_module
from painformer_jax.weights.convert import export
from painformer_jax.weights.safetensors_file import write_safetensors
from painformer_jax.weights.torch.write import write_pth

CONFIG = make_config('painformer_nano', num_classes=3)


@pytest.fixture(scope='module')
def variables() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    path: rng.random(a.shape).astype(a.dtype)
    for path, a in functional.abstract_variables(CONFIG).items()
  }


@pytest.fixture(scope='module')
def forms(tmp_path_factory, variables):
  """The same weights in each form."""
  folder = tmp_path_factory.mktemp('weights')
  write_pth(folder / 'w.pth', export(variables))
  write_safetensors(folder / 'w.safetensors', export(variables))
  weights.save_weights(
    folder / 'w', variables, config=CONFIG, source=weights.WeightsSource(name='w.pth')
  )
  return folder


def arrays(model) -> dict[str, np.ndarray]:
  return {path: np.asarray(a) for path, a in functional.variables(model).items()}


@pytest.mark.parametrize('form', ['w.pth', 'w.safetensors', 'w'])
def test_every_form(forms, variables, form):
  model = pj.load(forms / form)
  assert isinstance(model, pj.PainFormer)
  assert model.config == CONFIG
  loaded = arrays(model)
  assert all(np.array_equal(loaded[path], variables[path]) for path in variables)
  assert model.patch_embed1.bn1.use_running_average  # evaluation mode


def test_loaded_models_run(forms):
  images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
  out = jax.jit(pj.load(forms / 'w.pth').__call__)(images)
  assert out.embedding.shape == (2, 32) and out.logits.shape == (2, 3)
  assert np.isfinite(out.logits).all()


def test_arithmetic(forms):
  model = pj.load(forms / 'w.pth', dtype='bfloat16', gate='dft')
  assert (model.config.dtype, model.config.gate) == ('bfloat16', 'dft')
  assert all(a.dtype in (np.float32, np.int32) for a in arrays(model).values())


@pytest.mark.parametrize('classes', [0, 3, 5])
def test_heads(forms, variables, classes):
  model = pj.load(forms / 'w', num_classes=classes, new_head=classes == 5)
  loaded = arrays(model)
  assert model.config.num_classes == classes
  if classes == 3:
    np.testing.assert_array_equal(loaded['head/kernel'], variables['head/kernel'])
  if classes == 5:
    assert loaded['head/kernel'].shape == (32, 5)
    assert 0 < np.abs(loaded['head/kernel']).mean() < 0.1
    other = arrays(pj.load(forms / 'w', num_classes=5, new_head=True, seed=1))
    assert not np.array_equal(other['head/kernel'], loaded['head/kernel'])
  assert ('head/kernel' in loaded) == (classes > 0)
  np.testing.assert_array_equal(loaded['norm1/scale'], variables['norm1/scale'])


def test_other_input_size(forms, variables):
  model = pj.load(forms / 'w.pth', image_size=64)
  loaded = arrays(model)
  name = 'block1/0/attn/complex_weight'
  assert variables[name].shape[:2] == (8, 5)
  assert loaded[name].shape[:2] == (16, 9)
  np.testing.assert_allclose(loaded[name][0, 0], variables[name][0, 0], rtol=1e-6)
  changed = [path for path in variables if not np.array_equal(loaded[path], variables[path])]
  assert changed and all(path.endswith('complex_weight') for path in changed)


@pytest.mark.parametrize(
  'options,message',
  [
    ({'colour': 1}, 'load takes no colour'),
    ({'widths': (1,)}, 'load takes no widths'),
    ({'dtype': 'float8'}, 'dtype'),
    ({'image_size': 3}, 'image_size 3'),
    ({'image_size': '64'}, 'load .*w.pth'),
    ({'num_classes': -1}, 'num_classes -1 is below 0'),
    ({'num_classes': 'x'}, "load .*w.pth: num_classes 'x'"),
    ({'num_classes': 2.5}, 'load .*w.pth: num_classes 2.5'),
    ({'image_size': 40.5}, 'load .*w.pth: image_size 40.5'),
  ],
)
def test_arguments_that_do_not_fit(forms, options, message):
  with pytest.raises(InputError, match=message):
    pj.load(forms / 'w.pth', **options)


def test_places_without_weights(tmp_path):
  with pytest.raises(InputError, match='is a folder without weights'):
    pj.load(tmp_path)
  with pytest.raises(InputError, match='does not exist'):
    pj.load(tmp_path / 'absent.pth')
  (tmp_path / 'empty.pth').touch()
  with pytest.raises(InputError, match='is empty'):
    pj.load(tmp_path / 'empty.pth')


def test_source_is_kept(forms):
  stored = load_module.read_weights(forms / 'w.pth')
  assert (stored.source.name, stored.source.model) == ('w.pth', 'painformer_nano')
  assert len(stored.source.sha256) == 64
