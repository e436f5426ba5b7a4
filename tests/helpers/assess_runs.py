"""Assessments in small: a planted folder, a tiny backbone, a tiny Mixer."""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from painformer_jax.assessment.datasets import planted
from painformer_jax.cli.main import main
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
PLAN = planted.Plan(subjects=4, per_level=4, effect=4.0, subject_spread=0.5, seed=0)


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


@contextlib.contextmanager
def quick_jit(cache: pathlib.Path | None = None):
  """Compiling is nearly all of the time of small runs; code made quickly gives the same.

  Programs are kept in `cache`, so that what is compiled once serves many runs.
  """
  names = 'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs'
  before = [getattr(jax.config, name) for name in names]
  if cache is not None:
    for name, value in zip(names, (str(cache), 0)):
      jax.config.update(name, value)
    compilation_cache.reset_cache()
  try:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        jax,
        'jit',
        functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0}),
      )
      yield
  finally:
    if cache is not None:
      for name, value in zip(names, before):
        jax.config.update(name, value)
      compilation_cache.reset_cache()


@pytest.fixture(scope='session')
def small(tmp_path_factory):
  """A folder with a config.py of a planted study, its data and its weights."""
  return _small(tmp_path_factory.getbasetemp() / 'assess')


# Every module that takes a fixture makes it anew, a function's result they share.
@functools.cache
def _small(folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir()
  planted.write_study(folder / 'data', PLAN)
  weights = write_weights(folder / 'weights')
  (folder / 'config.py').write_text(CONFIG.format(data=str(folder / 'data'), weights=str(weights)))
  return folder


@dataclasses.dataclass(frozen=True)
class Done:
  """As a finished process: its exit status, and what it printed."""

  returncode: int
  stdout: str
  stderr: str


def run(*arguments) -> Done:
  """The command line in this process, so that what is compiled serves many tests."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      status = main([str(a) for a in arguments])
    except SystemExit as stop:
      status = stop.code
  return Done(status, out.getvalue(), err.getvalue())


def assess(*arguments) -> Done:
  """`painformer assess`."""
  return run('assess', *arguments)


def read_results(workdir: pathlib.Path) -> dict:
  """results.json by name of the experiment."""
  record = json.loads((workdir / 'results.json').read_text())
  return {each['name']: each for each in record['experiments']}


@pytest.fixture(scope='session')
def finished(small):
  """A finished run with assessors and shuffled labels: its workdir, and as a process."""
  return _finished(small)


@functools.cache
def _finished(folder: pathlib.Path) -> tuple[pathlib.Path, Done]:
  done = assess(
    '--config',
    folder / 'config.py',
    '--workdir',
    folder / 'work',
    '--config.shuffled=2',
    '--config.assessor=True',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return folder / 'work', done
