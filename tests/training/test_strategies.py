"""One loss curve, however a step is laid out: devices, FSDP, classes, parts, remat."""

import collections
import os
import re

import jax
import numpy as np
import pytest
from training_runs import SmallStep, small_config

from painformer_jax.parallel import layout
from painformer_jax.planning import hlo
from painformer_jax.planning.collectives import collectives
from painformer_jax.training.config import OptimizerConfig, from_config_dict
from painformer_jax.training.setup import assemble

# Big enough to be divided by class.
CLASSES = {'alpha': 3, 'beta': 1100}
FSDP = {'sharding': {'state': 'fsdp'}}
EVERYTHING = {
  'sharding': {'state': 'fsdp', 'model_parallelism': 2, 'dcn_parallelism': 2},
  'grad_accum_steps': 2,
  'remat': 'full-dots',
  'ema_decay': 0.5,
  'non_finite': 'skip',
}

# Name -> devices and fields of the configuration.
VARIANTS = {
  'one device': (1, {}),
  'two devices': (2, {}),
  'four devices': (4, {}),
  'eight devices': (8, {}),
  'fsdp': (8, FSDP),
  'classes': (8, {'sharding': {'model_parallelism': 8}}),
  'slices': (8, {'sharding': {'dcn_parallelism': 4}}),
  'four parts': (2, {'grad_accum_steps': 4}),
  'four parts, one device': (1, {'grad_accum_steps': 4}),
  'remat of inputs': (1, {'remat': 'full'}),
  'remat of products': (1, {'remat': 'dots-none'}),
  'everything': (8, EVERYTHING),
}
QUICK = ('one device', 'fsdp', 'everything')

# Name -> what a step's program has besides all-reduces: of the divided arrays, and of
# what the devices that share classes need of each row.
BESIDES_SUMS = {
  'fsdp': {'all-gather': 1},
  'classes': {'all-gather': 2, 'reduce-scatter': 1},
  'everything': {'all-gather': 5, 'reduce-scatter': 2},
}


class Step(SmallStep):
  """With stochastic depth, whose draws must not depend on where a row lies either."""

  rows = {'alpha': 16, 'beta': 16}

  def __init__(self, **options):
    super().__init__(drop_path_rate=0.2, **options)


def curve(name):
  """Metrics of three steps, parameters after them, and what its program says."""
  devices, config = VARIANTS[name]
  step = Step(
    devices=jax.devices()[:devices],
    config=config,
    classes=CLASSES,
    optimizer=OptimizerConfig(learning_rate=1e-3, head_learning_rate_multiplier=2.0),
  )
  state, metrics = step.state, []
  for number in range(3):
    state, values = step(state, step.batch(number))
    metrics.append(values)
  text = step.program()
  counts, sizes = collections.Counter(), collections.Counter()
  for found in collectives(hlo.parse(text)):
    counts[found.kind] += found.count
    sizes[found.kind] += found.bytes
  arrays = jax.device_get({**state.params, **state.stats})
  return {
    'metrics': metrics,
    'collectives': counts,
    'summed bytes': sizes['all-reduce'],
    'arrays': {path: np.asarray(a, np.float64).ravel()[:50].tolist() for path, a in arrays.items()},
    'average': {
      path: np.asarray(a, np.float64).ravel()[:3].tolist()
      for path, a in jax.device_get(state.ema).items()
    },
    'held': sum(
      s.data.nbytes
      for a in jax.tree.leaves((state.params, state.opt_state))
      for s in a.addressable_shards
      if s.device == jax.devices()[0]
    ),
    'widths': max(int(n) for dims in re.findall(r'f32\[([\d,]+)\]', text) for n in dims.split(',')),
  }


def curves(names):
  return {name: curve(name) for name in names}


@pytest.fixture(scope='module')
def ran(on_devices):
  return on_devices(8, curves, names=list(QUICK))


@pytest.fixture(scope='module')
def all_ran(on_devices):
  return on_devices(8, curves, names=list(VARIANTS))


def compare(ran, measured):
  one = ran['one device']
  for name, other in ran.items():
    for step, (a, b) in enumerate(zip(one['metrics'], other['metrics'], strict=True), start=1):
      assert a.keys() == b.keys() - {'skipped'}
      for task in CLASSES:
        assert a[f'task/{task}/accuracy'] == b[f'task/{task}/accuracy']
      error = max(abs(a[n] - b[n]) / abs(a[n]) for n in a if n.endswith('loss'))
      measured(f'losses, {name}, step {step}', error, limit=3e-6)
      measured(
        f'gradient norm, {name}, step {step}',
        abs(a['gradient_norm'] - b['gradient_norm']) / a['gradient_norm'],
        limit=2e-5,
      )
    for path, array in one['arrays'].items():
      # Adam's steps are of one size even where a gradient is near 0 by rounding alone.
      np.testing.assert_allclose(
        other['arrays'][path],
        array,
        atol=4e-4 if 'stem' not in path else 1e-3,
        rtol=1e-4,
        err_msg=f'{name} {path}',
      )
      if path.endswith(('/mean', '/var')):
        measured(
          f'statistics, {name}', np.abs(np.subtract(other['arrays'][path], array)).max(), limit=2e-5
        )


def test_one_curve(ran, measured):
  compare(ran, measured)


@pytest.mark.slow
def test_one_curve_however_it_is_laid_out(all_ran, measured):
  compare(all_ran, measured)


def gathers():
  """All-gathers of a step under FSDP, and the shards of the parameters it divides."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(layout, 'LEAST_SPLIT', 256)  # So that arrays of the small model are divided too.
    step = Step(devices=jax.devices(), config=FSDP, classes=CLASSES)
  shardings = step.setup.shardings.params
  shards = [
    int(np.prod(shardings[path].shard_shape(a.shape))) * a.itemsize
    for path, a in step.state.params.items()
    if shardings[path].spec
  ]
  found = [c for c in collectives(hlo.parse(step.program())) if c.kind == 'all-gather']
  return {
    'shards': shards,
    'count': sum(c.count for c in found),
    'bytes': sum(c.bytes for c in found),
  }


def test_fsdp_gathers_each_parameter_once_and_nothing_else(on_devices):
  """No activation, and no parameter a second time for the gradient."""
  found = on_devices(8, gathers)
  assert len(found['shards']) > 10
  assert (found['count'], found['bytes']) == (len(found['shards']), sum(found['shards']))


def check_collectives(ran):
  for name, found in ran.items():
    counts = dict(found['collectives'])
    # How many sums go together is the compiler's business.
    assert bool(counts.pop('all-reduce', 0)) == (VARIANTS[name][0] > 1), name
    assert counts == BESIDES_SUMS.get(name, {}), name


def test_collectives_of_a_layout(ran):
  check_collectives(ran)


@pytest.mark.slow
def test_collectives_of_every_layout(all_ran):
  """Where every device has the whole state, no more than gradients and moments is summed."""
  check_collectives(all_ran)
  summed = {
    all_ran[name]['summed bytes']
    for name in ('two devices', 'four devices', 'eight devices', 'slices')
  }
  assert len(summed) == 1


def temporaries(remats, grad_accum_steps):
  """Bytes that a compiled step of two blocks a stage works in, by what the blocks keep."""
  # XLA:CPU takes away what keeps it from joining the second computation to the first.
  os.environ['XLA_FLAGS'] = '--xla_disable_hlo_passes=cse_barrier_expander'
  found = []
  for remat in remats:
    config = small_config('', remat=remat, grad_accum_steps=grad_accum_steps)
    config.model.update(mixers=('ss', 'aa'), mlp_ratios=(4, 4))
    for task in config.tasks.values():
      task.batch_size = 32
    setup = assemble(from_config_dict(config), dict.fromkeys(config.tasks, 3))
    step = setup.train_step().lower(setup.abstract, setup.batch())
    found.append(
      step.compile(compiler_options={'xla_backend_optimization_level': 0})
      .memory_analysis()
      .temp_size_in_bytes
    )
  return found


@pytest.mark.slow
def test_what_blocks_do_not_keep_takes_no_memory(on_devices):
  everything, products, inputs = on_devices(
    1, temporaries, fresh=True, remats=['none', 'dots', 'full'], grad_accum_steps=1
  )
  assert 0.75 * everything > products > 1.03 * inputs


@pytest.mark.slow
def test_what_blocks_of_a_stage_do_not_keep_takes_no_memory(on_devices):
  """Of either stage alone too, with a step in parts."""
  everything, first, second, products, inputs = on_devices(
    1,
    temporaries,
    fresh=True,
    remats=['none', 'full-none', 'none-full', 'dots', 'full'],
    grad_accum_steps=4,
  )
  assert 0.75 * everything > products > 1.03 * inputs
  assert all(0.95 * everything > one > 1.03 * inputs for one in (first, second))


def test_a_device_keeps_its_share(ran):
  """Of the small model little is large enough to divide; the big head is most of it."""
  assert ran['everything']['held'] < 0.6 * ran['one device']['held']
  assert ran['everything']['widths'] < 1152 <= ran['one device']['widths']


def test_averages_follow_the_parameters(ran):
  assert ran['one device']['average'] == {}
  found = ran['everything']
  assert found['average'].keys() == {
    p
    for p in found['arrays']
    if '/' in p and (p.split('/')[0] in ('backbone', 'heads', 'log_variance'))
  }
  assert any(found['average'][path] != found['arrays'][path][:3] for path in found['average'])
