"""A run's folder as weights: for `load`, and to start another run from."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_tasks import store_tiny
from training_runs import SMALL_MODEL

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, registry
from painformer_jax.training.config import defaults, from_config_dict
from painformer_jax.training.loop import pretrain
from painformer_jax.weights import pretrain_run
from painformer_jax.weights.load import load_arrays

MODEL = registry.make_config('painformer_nano', **SMALL_MODEL)


def tiny_run(tmp_path, **changes):
  config = defaults('painformer_nano')
  config.model.update(SMALL_MODEL)
  config.data_dir = str(tmp_path / 'data')
  config.tasks = {'tiny': {'batch_size': 4}}
  config.steps = 2
  config.optimizer.learning_rate = 1e-3
  for key, value in changes.items():
    config[key] = value
  return from_config_dict(config)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Folder of a finished run of two steps; its data lie beside it."""
  tmp_path = tmp_path_factory.mktemp('run')
  store_tiny(tmp_path / 'data')
  pretrain(tiny_run(tmp_path), tmp_path / 'run')
  return tmp_path / 'run'


def test_load_gives_the_trained_backbone(run):
  model = pj.load(run)
  assert model.config == MODEL
  fresh = functional.initial_variables(model.config, 0)
  trained = functional.variables(model)
  # Two steps moved every kernel, and the running statistics.
  assert trained.keys() == fresh.keys()
  assert int(trained['patch_embed1/bn1/count']) == 2
  size = model.config.image_size
  out = model(jax.numpy.zeros((1, size, size, 3)))
  assert out.logits is None and np.isfinite(out.embedding).all()


def test_the_head_of_a_task(run, tmp_path):
  model = pj.load(run, head='tiny')
  assert model.config == dataclasses.replace(MODEL, num_classes=3)
  pj.convert(run, tmp_path / 'w.safetensors', head='tiny')
  exported = functional.variables(pj.load(tmp_path / 'w.safetensors', head='tiny', num_classes=3))
  for path, array in functional.variables(model).items():
    np.testing.assert_array_equal(exported[path], array, path)
  assert np.abs(exported['head/kernel']).min() > 0


def test_a_run_starts_from_another(run, tmp_path):
  first = functional.variables(pj.load(run))
  config = tiny_run(run.parent, initial_weights=str(run), steps=1)
  # A learning rate of 0 at the first step of a warm-up leaves the weights alone.
  config = dataclasses.replace(
    config, steps=2, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.0)
  )
  pretrain(config, tmp_path / 'second')
  second = functional.variables(pj.load(tmp_path / 'second'))
  learned = functional.parameter_paths(pj.load(run).config)
  for path in learned:
    np.testing.assert_array_equal(second[path], first[path], path)
  assert int(second['patch_embed1/bn1/count']) == 4


def test_weights_of_another_shape_are_refused(run):
  with pytest.raises(InputError, match='another shape .*widths'):
    load_arrays(run, config=registry.make_config('painformer_small'))


def test_another_input_size_resamples_the_filters(run):
  config = dataclasses.replace(MODEL, image_size=24)
  arrays = load_arrays(run, config=config)
  expected = functional.abstract_variables(config)
  assert {p: a.shape for p, a in arrays.items()} == {p: a.shape for p, a in expected.items()}


@pytest.mark.parametrize(
  'text, message',
  [
    ('{', 'damaged'),
    ('{"model": {"name": 5}}', '5'),
    ('{"model": {"name": "painformer_nano", "heads": [0, 0, 0, 0]}}', 'damaged .*heads'),
    ('{"model": {"name": "painformer_nano", "image_size": "x"}}', "damaged .*image_size 'x'"),
    ('{"model": {"name": "painformer_nano", "colour": 1}}', "damaged .*'colour'"),
    ('{"model": {"name": "painformer_micro"}}', 'painformer_micro'),
    ('{"model": {"name": "painformer_small"}}', 'does not have the arrays'),
  ],
)
def test_a_mangled_record_is_one_line(run, tmp_path, text, message):
  (tmp_path / 'config.json').write_text(text)
  (tmp_path / 'checkpoints').symlink_to(run / 'checkpoints')
  with pytest.raises(InputError, match=message):
    pretrain_run.load_run(tmp_path)


def test_a_run_without_a_checkpoint(run, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'model': {'name': 'painformer_nano'}}))
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(InputError, match='no finished checkpoint yet'):
    pj.load(tmp_path)
