"""Weights of the nano model, as a folder and as a model."""

import numpy as np
import pytest
from test_models import drawn

import painformer_jax as pj
from painformer_jax.models.registry import make_config
from painformer_jax.weights import folder as weights

CONFIG = make_config('painformer_nano')


@pytest.fixture(scope='session')
def stored(tmp_path_factory):
  """A weights folder of the nano model."""
  folder = tmp_path_factory.mktemp('weights') / 'nano'
  weights.save_weights(
    folder,
    {path: np.asarray(a) for path, a in drawn(CONFIG).items()},
    config=CONFIG,
    source=weights.WeightsSource(name='nano.pth', sha256='ab' * 32, model='painformer_nano'),
  )
  return folder


@pytest.fixture(scope='session')
def model(stored):
  return pj.load(stored)
