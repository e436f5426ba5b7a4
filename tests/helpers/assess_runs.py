"""Assessments in small: a planted folder, a tiny backbone, a tiny Mixer."""

import json
import pathlib
import subprocess

import numpy as np
import pytest
from command_line import run_command

from painformer_jax.assessment.datasets import planted
from painformer_jax.models import functional, registry
from painformer_jax.weights.folder import WeightsSource, save_weights

CONFIG = """
from painformer_jax.assessment.config import defaults

def get_config():
  config = defaults()
  config.dataset = 'planted'
  config.data_dir = {data!r}
  config.weights = {weights!r}
  config.planted = dict(subjects=4, per_level=4, effect=4.0, subject_spread=0.5, seed=0)
  drawn = dict(representations=('waveform',))
  config.modalities = dict(
      gsr=dict(source='gsr', signal=drawn), ecg=dict(source='ecg', signal=drawn))
  config.rows = dict(
      gsr=dict(fusion=dict(kind='add', modalities=('gsr',)), label='GSR'),
      both=dict(fusion=dict(kind='fusion-2', modalities=('gsr', 'ecg')), label='GSR+ECG'))
  config.tasks = ('BL1-PA4',)
  config.protocol = 'loso'
  config.normalise = 'subject'
  config.mixer.update(latents=2, width=8, cross_head_width=8, self_heads=2, self_head_width=4,
                      depth=1, self_attentions=1)
  config.fit.epochs = 3
  config.fit.batch = 8
  config.figures = False
  return config
"""
PLAN = planted.PlantedPlan(subjects=4, per_level=4, effect=4.0, subject_spread=0.5, seed=0)


# Half of painformer_nano, which compiles in half of the time.
TWO_STAGES = dict(widths=(8, 16), mixers=('s', 'a'), heads=(1, 2), mlp_ratios=(2, 2), stem_width=4)


def write_weights(folder: pathlib.Path, **shape) -> pathlib.Path:
  """A nano backbone that was never trained, with fields of its shape replaced."""
  config = registry.make_config('painformer_nano', num_classes=0, **shape)
  rng = np.random.default_rng(0)

  def fresh(path: str, shape: tuple[int, ...]) -> np.ndarray:
    if path.rpartition('/')[2] in ('scale', 'var'):
      return np.ones(shape, np.float32)
    return rng.normal(0, 0.2, shape).astype(np.float32) * (len(shape) > 1)

  arrays = {path: fresh(path, a.shape) for path, a in functional.abstract_variables(config).items()}
  save_weights(
    folder, arrays, config=config, source=WeightsSource(name='test', model='painformer_nano')
  )
  return folder


@pytest.fixture(scope='session')
def small(tmp_path_factory) -> pathlib.Path:
  """A folder with a config.py of a planted study, its data and its weights."""
  folder = tmp_path_factory.mktemp('assess')
  planted.write_study(folder / 'data', PLAN)
  weights = write_weights(folder / 'weights')
  (folder / 'config.py').write_text(CONFIG.format(data=str(folder / 'data'), weights=str(weights)))
  return folder


def assess(*arguments) -> subprocess.CompletedProcess[str]:
  """`painformer assess`, in this process."""
  return run_command('assess', *arguments)


def read_results(workdir: pathlib.Path) -> dict:
  """results.json by name of the experiment."""
  record = json.loads((workdir / 'results.json').read_text())
  return {each['name']: each for each in record['experiments']}


@pytest.fixture(scope='session')
def finished(small) -> tuple[pathlib.Path, subprocess.CompletedProcess[str]]:
  """A finished run with assessors and shuffled labels: its workdir, and as a process."""
  done = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    small / 'work',
    '--config.shuffled=2',
    '--config.assessor=True',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return small / 'work', done
