"""All folds at once beside a PyTorch loop: the same network, honest figures."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from painformer_jax.assessment.mixers import cost, speed
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.benchmarks import compare
from painformer_jax.benchmarks import folds as benchmark_folds
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer, embedding_mixer_config

SMALL = dict(
  latents=2,
  width=16,
  cross_head_width=8,
  self_head_width=2,
  self_attentions=1,
  depth=1,
  mlp_ratio=1,
  input_width=12,
)


def measure(**options):
  lines = []
  arguments = dict(folds=3, batch=4, tokens=2, samples=30, steps=2, rounds=2, **SMALL)
  result = benchmark_folds.run(progress=lines.append, **{**arguments, **options})
  return result, lines


def _measured_without_torch(folds):
  """What is measured and said where PyTorch is not installed."""
  sys.modules['torch'] = None
  result, lines = measure(folds=folds)
  return {'result': result, 'lines': lines, 'table': benchmark_folds.table(result)}


def test_measures_jax_where_there_is_no_torch(on_devices):
  """On two devices, which do not divide the folds."""
  answer = on_devices(2, _measured_without_torch, fresh=True, folds=3)
  result = answer['result']
  assert any('PyTorch is not installed' in line for line in answer['lines'])
  assert result['torch'] is None and result['ratio'] is None
  assert (result['devices'], result['folds']) == (2, 3)
  assert len(result['jax']['seconds']) == 2 and min(result['jax']['seconds']) > 0
  # What fills up the devices is no work done.
  middle = np.median(result['jax']['seconds'])
  assert result['jax']['fold_steps_per_second'] == pytest.approx(3 * 2 / middle)
  assert (
    'JAX, all folds at once' in answer['table'] and 'nothing to compare with' in answer['table']
  )


@pytest.mark.torch
def test_measures_both_sides():
  pytest.importorskip('torch')
  result, _ = measure()
  pairs = list(zip(result['jax']['seconds'], result['torch']['seconds'], strict=True))
  assert result['ratio'] == pytest.approx(np.median([t / j for j, t in pairs]))
  assert result['torch_threads'] >= 1 and result['torch_version']
  text = benchmark_folds.table(result)
  assert 'PyTorch, one by one' in text and f'{result["ratio"]:.2f}' in text


@pytest.mark.torch
@pytest.mark.parametrize(
  'change', [{}, {'tokens': 'scalar'}, {'bands': 0, 'cross_heads': 2}, {'latents': 40}]
)
def test_both_networks_give_the_same_logits(change, measured):
  torch = pytest.importorskip('torch')
  config = dataclasses.replace(
    embedding_mixer_config.make_config('mixer_laptop'), positions=3, outputs=5, **change
  )
  rng = np.random.default_rng(0)
  arrays = {
    path: np.float32(rng.normal(path.endswith('scale'), 0.1, a.shape))
    for path, a in embedding_mixer.abstract_parameters(config).items()
  }
  twin = compare.torch_mixer(config)
  compare.load_arrays(twin, arrays)
  x = rng.standard_normal((4, 3, config.input_width), np.float32)
  wanted = jax.jit(
    lambda arrays, x: embedding_mixer.from_parameters(config, arrays)(x),
    compiler_options={'xla_backend_optimization_level': 0},
  )(arrays, x)
  with torch.no_grad():
    found = twin.eval()(torch.from_numpy(x)).numpy()
  assert np.std(wanted) > 0.1
  measured(f'PyTorch Mixer, {change}', np.abs(found - wanted).max(), limit=1e-4)
  assert sum(p.numel() for p in twin.parameters()) == sum(a.size for a in arrays.values())


def test_hours_follow_from_a_measured_rate():
  config = FitConfig(model=embedding_mixer_config.make_config('mixer_laptop', **SMALL), batch=4)
  rate = speed.measured_rate(config, tokens=2, runs=1)
  assert 1e4 < rate < 1e13
  total = cost.training_cost(config.model, tokens=2, runs=87, steps=10, batch=4)
  assert total.flops == 87 * 40 * 6 * cost.size(config.model, tokens=2).multiply_adds
  assert total.hours(total.flops / 7200) == pytest.approx(2)
  assert str(total).startswith('87 runs x 40 samples x ')


def test_no_fold_trains_on_what_it_leaves_out():
  config = FitConfig(model=embedding_mixer_config.make_config('mixer_laptop', **SMALL), batch=4)
  problem = speed.make_problem(config, folds=3, samples=30, tokens=1, steps=9)
  assert problem.batches.shape == (3, 9, 4) and problem.inputs.shape == (30, 1, 12)
  for batches, test in zip(problem.batches, np.array_split(np.arange(30), 3)):
    assert not set(batches.ravel()) & set(test) and len(set(batches.ravel())) == 20


@pytest.mark.torch
def test_configs_beyond_the_benchmark_are_refused():
  pytest.importorskip('torch')
  with pytest.raises(ValueError, match='no encoder'):
    compare.torch_mixer(embedding_mixer_config.make_config('mixer_laptop', dtype='bfloat16'))


@pytest.mark.parametrize(
  'change, message',
  [
    ({'model': 'mixer'}, 'no mixer'),
    ({'folds': 1}, 'two folds or more'),
    ({'samples': 5}, '5 samples'),
    ({'batch': 0}, 'batch 0'),
    ({'rounds': 0}, 'rounds 0'),
  ],
)
def test_bad_input_is_one_line(change, message):
  with pytest.raises(InputError, match=message):
    measure(**change)


def test_folds_that_do_not_fit_are_refused_before_anything_runs(monkeypatch):
  monkeypatch.setattr(benchmark_folds, 'make_problem', None)
  monkeypatch.setattr(benchmark_folds, 'free_memory', lambda device: 16 << 30)
  with pytest.raises(
    InputError,
    match=(
      r'87 folds of batch 32 take about [\d.]+ GB, and 17.2 GB are free: take fewer --folds '
      r'\(at most 13 fit\) or a smaller --batch'
    ),
  ):
    benchmark_folds.run(model='mixer_published')
