"""Studies to embed in small: a planted folder, video files, a nano backbone."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest
from assessment_layouts import write_table
from test_models import drawn, run

from painformer_jax.assessment.datasets import biovid, planted
from painformer_jax.assessment.datasets.recordings import Locator, Sample, Study
from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.embed import compute_embeddings
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.modalities.windows import SignalConfig
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.registry import make_config
from painformer_jax.weights.folder import Weights, WeightsSource

CONFIG = make_config('painformer_nano')
SIDE, WIDTH = CONFIG.image_size, CONFIG.embedding_width
GSR = EmbeddingSettings(source='gsr')
WAVEFORM = EmbeddingSettings(source='gsr', signal=SignalConfig(representations=('waveform',)))
RGB = EmbeddingSettings(source='video', image_type='rgb')
FINISHED = ['.lock', 'files.json', 'mask.npy', 'record.json', 'summary.json', 'values.npy']
PLAN = planted.PlantedPlan(subjects=2, per_level=2)


@pytest.fixture
def small_parts(monkeypatch):
  """Parts of 8 samples of 4 images in batches of 4."""
  monkeypatch.setattr(embeddings, '_BATCHES_A_PART', 8)


@functools.cache
def nano(seed=0):
  return Weights(
    config=CONFIG,
    source=WeightsSource(name='nano'),
    variables={path: np.asarray(a) for path, a in drawn(CONFIG, seed).items()},
  )


def compute(study, modalities, folder, **options):
  return compute_embeddings(
    study, modalities, folder=folder, **{'weights': nano(), 'batch_size': 4} | options
  )


def expected(images):
  """What the model gives for uint8 images, run apart from the code under test."""
  x = (np.stack(images) / 255 - PainFormerConfig.mean) / np.array(PainFormerConfig.std)
  return run(CONFIG, nano().variables, x.astype(np.float32)).embedding


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return planted.write_study(tmp_path_factory.mktemp('planted') / 'BioVid', PLAN)


@pytest.fixture
def study(root, tmp_path):
  """A copy of a few samples, so that tests can spoil it."""
  shutil.copytree(root, tmp_path / 'BioVid')
  return biovid.open_study(tmp_path / 'BioVid', modalities=('gsr', 'ecg'))


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
  """The planted study and its embeddings."""
  study = biovid.open_study(root, modalities=('gsr', 'ecg'))
  return study, compute(
    study,
    {'gsr': GSR, 'ecg': dataclasses.replace(WAVEFORM, source='ecg')},
    tmp_path_factory.mktemp('whole'),
  )


def video_study(folder, clips, modality='video'):
  """A study of video files, or of names without a file."""
  return Study(
    name='clips',
    root=folder,
    levels=('no pain',),
    samples=tuple(
      Sample(subject=name, name=name, level=0, data={modality: Locator(path=folder / name)})
      for name in clips
    ),
  )


def copies(study, count):
  """The study's first samples, each many times over under other names."""
  samples = [
    dataclasses.replace(s, name=f'{s.name}-{k}')
    for s in study.samples
    for k in range(-(-count // len(study.samples)))
  ]
  return dataclasses.replace(study, samples=tuple(samples[:count]))


def small_study(root):
  return biovid.open_study(root, modalities=('gsr',))


def spoil(study, number, kind):
  """Makes one sample's GSR useless, in one of several ways."""
  path = study.samples[number].data['gsr'].path
  if kind == 'missing':
    path.unlink()
  elif kind == 'broken':
    path.write_text('no table')
  else:
    values = {'flat': 3.0, 'nan': 'nan', 'short': 3.0}[kind]
    rows = 200 if kind == 'short' else 2816
    write_table(
      path, ('time', 'gsr', 'ecg'), ((k, values, k % 7) for k in range(rows)), delimiter='\t'
    )
