"""`painformer plan`: against real allocations, the loop, and by its command line."""

import ctypes
import dataclasses
import os
import pathlib
import re

import pytest
from repository import ROOT
from tiny_tasks import store_tiny
from training_runs import SMALL_OVERRIDES, TASKS, small_config

from painformer_jax.cli.config_file import load_config
from painformer_jax.core.errors import InputError
from painformer_jax.data.corpus import CORPUS
from painformer_jax.parallel import topology
from painformer_jax.planning import plan
from painformer_jax.planning import text as plan_text
from painformer_jax.planning.collectives import Collective
from painformer_jax.planning.result import Plan
from painformer_jax.planning.roofline import collective_seconds
from painformer_jax.planning.tasks import task_sizes
from painformer_jax.training import loop, setup
from painformer_jax.training.config import from_config_dict

TINY = [
  f'--config={ROOT}/configs/tiny.py:alpha,beta',
  '--config.data_dir=nowhere',
  *(f'--config.{key}={value}' for key, value in SMALL_OVERRIDES.items()),
]
CLASSES = ['--classes=alpha=3', '--classes=beta=2']


def small_request(topology_name, **fields) -> plan.Request:
  return plan.Request(
    config=small_config('nowhere', **fields).to_dict(),
    classes=TASKS,
    sizes=dict.fromkeys(TASKS, 1),
    topology=topology_name,
  )


# --- The compiled step against reality.


def allocated(cache: str) -> dict:
  """What a plan says and what one of 4 devices really holds, in bytes."""
  import jax
  import numpy as np

  from painformer_jax.parallel.mesh import put_batch
  from painformer_jax.training.setup import assemble

  # The same program is compiled twice here: once for its figures, once to run it.
  jax.config.update('jax_compilation_cache_dir', cache)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  request = small_request('cpu:4')
  program = plan.compile_step(request)
  config = from_config_dict(request.config)
  run = assemble(config, TASKS)
  state = run.make_state()
  batch = put_batch(
    run.mesh, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), run.batch())
  )

  def held(tree) -> int:
    return sum(
      shard.data.nbytes
      for array in jax.tree.leaves(tree)
      for shard in array.addressable_shards
      if shard.device == jax.devices()[0]
    )

  # Buffers that are really there, of any array: nothing else lies on the device.
  live = sum(
    shard.data.nbytes
    for array in jax.live_arrays()
    for shard in array.addressable_shards
    if shard.device == jax.devices()[0]
  )
  found = dict(
    params=held(state.params),
    optimizer=held(state.opt_state),
    state=held(state),
    batch=held(batch),
    live=live,
  )
  after = (
    run.train_step()
    .lower(state, batch)
    .compile(compiler_options={'xla_backend_optimization_level': 0})(state, batch)
  )
  found |= dict(
    after=held(after),
    state_after=held(after[0]),
    leaves=len(jax.tree.leaves(after)),
    donated=all(leaf.is_deleted() for leaf in jax.tree.leaves(state)),
  )
  return {'real': found, 'plan': dataclasses.asdict(program)}


def test_its_memory_is_what_a_device_really_holds(on_devices, tmp_path):
  both = on_devices(4, allocated, fresh=True, cache=str(tmp_path))
  real, planned = both['real'], both['plan']
  assert planned['parameter_bytes'] == real['params'] > 10_000
  assert planned['optimizer_bytes'] == real['optimizer'] > 2 * real['params'] - 1
  assert planned['other_state_bytes'] == real['state'] - real['params'] - real['optimizer']
  assert planned['batch_bytes'] == real['batch'] == 16 // 4 * (16 * 16 * 3 + 4)
  # The compiler's own figure, without padding on a CPU, against live buffers.
  assert planned['argument_bytes'] == real['state'] + real['batch'] == real['live']
  # Results: the same state in the same place, and metrics. The rest is their table.
  assert real['donated'] and planned['alias_bytes'] == real['state_after']
  assert planned['output_bytes'] == real['after'] + 8 * real['leaves']
  assert planned['peak_bytes'] == (
    planned['argument_bytes']
    + planned['output_bytes']
    - planned['alias_bytes']
    + planned['temporary_bytes']
    + planned['code_bytes']
  )
  # Gradients and activations are among the temporaries.
  assert planned['temporary_bytes'] > real['params']
  # Data parallelism: one sum over all gradients, and little else.
  (gradients,) = planned['collectives']
  assert gradients['kind'] == 'all-reduce' and gradients['group'] == 4
  assert real['params'] <= gradients['bytes'] < 1.05 * real['params']


def worked_in() -> dict:
  """What a plan says that a step works in, and by how much a process grows during one."""
  import jax
  import numpy as np

  from painformer_jax.parallel.mesh import put_batch
  from painformer_jax.training.setup import assemble

  def memory(name: str) -> int:
    text = pathlib.Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'^{name}:\s+(\d+) kB', text, re.M)[1])

  config = small_config('nowhere', tasks={task: dict(batch_size=6144) for task in TASKS})
  program = plan.compile_step(
    plan.Request(config=config.to_dict(), classes=TASKS, sizes=TASKS, topology='cpu:1')
  )
  run = assemble(from_config_dict(config.to_dict()), TASKS)
  state = run.make_state()
  batch = put_batch(
    run.mesh, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), run.batch())
  )
  step = (
    run.train_step()
    .lower(state, batch)
    .compile(compiler_options={'xla_backend_optimization_level': 0})
  )
  state = jax.block_until_ready(step(state, batch))[0]
  ctypes.CDLL(None).malloc_trim(0)  # What the first step has left.
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # The peak begins anew.
  before = memory('VmRSS')
  jax.block_until_ready(step(state, batch))
  return {'plan': program.temporary_bytes, 'real': memory('VmHWM') - before}


@pytest.mark.slow
@pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='needs Linux and glibc')
def test_a_process_grows_in_a_step_by_what_the_step_works_in(on_devices):
  found = on_devices(1, worked_in, fresh=True)
  assert found['plan'] > 128 * 2**20, found
  assert 0.9 * found['plan'] < found['real'] < 1.25 * found['plan'], found


def test_it_compiles_what_the_loop_runs(tmp_path, monkeypatch):
  """Same step, optimizer, mesh, places and batch, for a config with all its options."""
  for name, classes in TASKS.items():
    store_tiny(tmp_path / 'data', name, train=24, test=4, classes=classes)
  config = small_config(tmp_path / 'data', weighting='fixed', label_smoothing=0.1, steps=2)
  config.tasks.alpha = dict(batch_size=8, augment='face', weight=2.0, mixup=0.5, cutmix=0.5)
  config = from_config_dict(config)
  seen = []

  class Seen(Exception):
    """Ends the loop where it makes its step."""

  def catch(*args, **kwargs):
    seen.append((args, kwargs))
    raise Seen

  monkeypatch.setattr(setup, 'make_train_step', catch)
  with pytest.raises(Seen):
    loop.pretrain(config, tmp_path / 'run')
  import jax

  with pytest.raises(Seen):
    plan.compile_step(
      plan.Request(
        config=dataclasses.asdict(config),
        classes=TASKS,
        sizes=dict.fromkeys(TASKS, 1),
        topology='cpu:1',
      )
    )
  (by_loop, loop_options), (by_plan, plan_options) = seen
  assert len(by_loop) == len(by_plan) == 3 and by_loop[0].mixup['alpha'].mixup == 0.5
  assert by_loop[0] == by_plan[0] and by_loop[2] == by_plan[2]
  assert loop_options == plan_options and loop_options['state_shardings'].params
  weights = {'a/kernel': jax.ShapeDtypeStruct((2, 3), 'float32')}
  assert str(jax.eval_shape(by_loop[1].init, weights)) == str(
    jax.eval_shape(by_plan[1].init, weights)
  )


def counted_flops() -> dict:
  """Of a step in which products outweigh all else: one token, many rows, no loops."""
  config = small_config('nowhere')
  config.model.update(
    image_size=4,
    stem_width=16,
    widths=(128,),
    mixers=('a',),
    heads=(2,),
    mlp_ratios=(4,),
    depthwise='shift',
  )
  config.tasks = {task: dict(batch_size=256) for task in TASKS}
  return dataclasses.asdict(
    plan.compile_step(
      plan.Request(config=config.to_dict(), classes=TASKS, sizes=TASKS, topology='cpu:1')
    )
  )


def test_its_flops_are_those_of_the_formula(on_devices):
  program = on_devices(1, counted_flops)
  ratio = program['flops'] / program['images'] / program['model_flops']
  # Activations, normalisation and the optimizer come on top; images need no gradient.
  assert 0.9 < ratio < 1.3, ratio
  assert program['accessed_bytes'] > 0 and program['collectives'] == []


# --- Machines and tasks.


def test_classes_come_from_what_is_known_first(tmp_path):
  store_tiny(tmp_path / 'data', 'affectnet', train=6, test=4, classes=3)
  tasks = {name: dict(batch_size=2) for name in ('affectnet', 'digiface', 'mine')}
  config = small_config(tmp_path / 'data')
  config.tasks = tasks
  config = from_config_dict(config)
  classes, sizes = task_sizes(config, explicit=['mine=5'])
  assert classes == {'affectnet': 3, 'digiface': 110_000, 'mine': 5}
  assert sizes == {'affectnet': 6, 'digiface': 1_220_000, 'mine': 1}
  assert task_sizes(config, explicit=['mine=5', 'affectnet=8'])[0]['affectnet'] == 8
  with pytest.raises(InputError, match='mine is neither .* --classes mine=N'):
    task_sizes(config)
  for wrong in ('mine', 'mine=0', 'yours=3', 'mine=x'):
    with pytest.raises(InputError, match='write it as TASK=N'):
      task_sizes(config, explicit=[wrong])


# --- The estimate, worked out by hand.


def planned(**fields) -> Plan:
  """A step on 16 GPUs: 1 ms of arithmetic, 2 ms of traffic."""
  return Plan(
    epochs=2,
    samples=36_000_000,
    program=plan.Program(
      **{
        'topology': 'h100:16',
        'chips': 16,
        'mesh': {'dcn': 2, 'data': 8, 'model': 1},
        'images': 1600,
        'model': 'painformer at 224',
        'model_flops': 4.945e9,
        'gate_flops': 0.0,
        'microbatch_flops': 0.0,
        'remat': 'none',
        'compiler': 'jax',
        'flags': '',
        'compile_seconds': 1.0,
        'parameter_bytes': 10**8,
        'optimizer_bytes': 2 * 10**8,
        'other_state_bytes': 0,
        'batch_bytes': 1,
        'argument_bytes': 1,
        'output_bytes': 1,
        'alias_bytes': 1,
        'temporary_bytes': 10**10,
        'code_bytes': 0,
        'peak_bytes': 2 * 10**10,
        'flops': 989e9,
        'traffic_bytes': 6.7e9,
        'accessed_bytes': None,
        'unknown_loops': 0,
        **fields,
      }
    ),
  )


def test_the_slowest_part_decides():
  estimate = planned().roofline
  assert estimate.seconds == pytest.approx(
    {'arithmetic': 1e-3, 'memory': 2e-3, 'interconnect': 0.0}
  )
  assert estimate.bound == 'memory' and estimate.images_per_second == pytest.approx(800e3)
  assert estimate.mfu == pytest.approx(0.25)  # Half the arithmetic, twice the time.
  record = planned().record()
  assert record['fits'] and record['estimated']['hours'] == pytest.approx(72e6 / 800e3 / 3600)
  assert record['estimated']['chip_hours'] == 16 * record['estimated']['hours']
  # Without the compiler's count, the formulas serve: of the model, the gate, the parts.
  for fields in (dict(gate_flops=4.945e9), dict(microbatch_flops=4.945e9)):
    by_formula = planned(flops=None, **fields).roofline
    assert by_formula.seconds['arithmetic'] == pytest.approx(1e-3)


@pytest.mark.parametrize(
  ('kind', 'group', 'nodes', 'links', 'network'),
  [
    ('all-reduce', 8, 1, 2 * 7 / 8, 0),
    ('all-reduce', 16, 2, 2 * 7 / 8, 2 / 2 / 8),
    ('reduce-scatter', 16, 2, 7 / 8, 1 / 2 / 8),
    ('all-gather', 16, 2, 14, 1),
    ('all-to-all', 16, 2, 7 / 16, 1 / 2),
    ('collective-permute', 8, 1, 1, 0),
    ('collective-permute', 16, 2, 0, 1),
    ('all-reduce', 2, 1, 1, 0),
    ('all-reduce', 1, 1, 0, 0),
    # One chip of each node, and two of each: of the same size as groups within a node.
    ('all-reduce', 2, 2, 0, 1),
    ('all-reduce', 4, 2, 1, 2 / 2 / 2),
  ],
)
def test_collectives_over_links_and_network(kind, group, nodes, links, network):
  one = Collective(kind=kind, group=group, nodes=nodes, count=1, bytes=10**9)
  expected = 1e9 * (links / 450e9 + network / 50e9)
  assert collective_seconds([one], topology.parse_topology('h100:16')) == pytest.approx(expected)
  assert collective_seconds([one, one], topology.parse_topology('h100:16')) == pytest.approx(
    2 * expected
  )


def test_all_of_a_tpu_slice_is_joined_by_links():
  one = Collective(kind='all-reduce', group=256, count=1, bytes=10**8)
  assert collective_seconds([one], topology.parse_topology('v5e:16x16')) == pytest.approx(
    2 * 255 / 256 * 1e8 / 200e9
  )
  between = Collective(kind='all-reduce', group=2, nodes=2, count=1, bytes=10**8)
  assert collective_seconds([between], topology.parse_topology('2*v5e:16x16')) == pytest.approx(
    1e8 / 3.125e9
  )


def lines_of(**fields) -> dict[str, str]:
  """What `describe` says, by the name of the row."""
  return dict(re.findall(r'^  (\S.*?)  +(.*)$', plan_text.describe(planned(**fields)), re.M))


def test_the_mesh_is_said_and_how_it_lies():
  assert lines_of()['mesh'].startswith('dcn 2, data 8, model 1; a slice is a node of 8')
  flat = {'dcn': 1, 'data': 16, 'model': 1}
  assert 'the chips are 2 nodes: only what leaves' in lines_of(mesh=flat)['mesh']
  assert lines_of(mesh=flat, topology='cpu:16')['mesh'] == 'dcn 1, data 16, model 1'
  assert lines_of(mesh=flat, topology='v5e:4x4')['mesh'] == 'dcn 1, data 16, model 1'
  # Slices of the config that the named chips are not: no word of a network between.
  one = lines_of(topology='v5e:4x4')['mesh']
  assert 'the chips are 1 slice' in one and 'named 2*v5e:4x4' in one
  two = lines_of(topology='2*v5e:4x2')['mesh']
  assert 'a slice has 8 chips' in two and '3.1 GB/s a chip, an assumption' in two
  crossing = Collective(kind='all-reduce', group=16, nodes=2, count=3, bytes=10**6)
  assert lines_of(collectives=(crossing,))['collectives'] == (
    '3 all-reduce over 16 chips of 2 nodes, 1.0 MB'
  )


def test_it_is_said_how_the_program_differs_from_that_of_a_run():
  said = lines_of()['compiled']
  assert "without Triton's kernels" in said and 'without XLA_FLAGS; launch/with.sh gpu' in said
  assert lines_of(flags='--xla_a=1')['compiled'].endswith('with XLA_FLAGS=--xla_a=1')
  assert lines_of(topology='v5e:4x4')['compiled'] == (
    'without LIBTPU_INIT_ARGS; launch/with.sh tpu sets some'
  )
  assert lines_of(topology='cpu:16')['compiled'] == 'not optimised'
  table = plan_text.table([planned(), planned(), planned(topology='v5e:4x4')]).splitlines()
  assert [line.partition(':')[0] for line in table[-2:]] == ['cuda', 'tpu']
  for platform, variable in plan.FLAGS.items():
    assert platform == 'cpu' or variable in (ROOT / 'launch/with.sh').read_text()


def test_recomputation_that_is_not_counted_is_said():
  assert 'not counted' not in lines_of(flops=None)
  assert 'not counted' not in lines_of(remat='full')  # The compiler counted it.
  for remat in ('full', 'none-dots-none-none'):
    silent = planned(flops=None, remat=remat)
    assert f'remat={remat} computes again' in lines_of(flops=None, remat=remat)['not counted']
    assert 'what remat computes again is not in' in plan_text.table([planned(), silent])
    assert silent.record()['estimated']['arithmetic_without'] == silent.uncounted
  assert 'remat' not in plan_text.table([planned(), planned(flops=None)])
  assert planned(flops=None, remat='full', failure='too much').uncounted == ''


def test_words_tell_facts_from_estimates():
  lines = plan_text.describe(planned()).splitlines()
  facts = next(i for i, line in enumerate(lines) if 'Facts about the program' in line)
  estimates = next(i for i, line in enumerate(lines) if line.startswith('Roofline, an estimate'))
  (peak,) = [i for i, line in enumerate(lines) if 'peak memory' in line]
  (mfu,) = [i for i, line in enumerate(lines) if 'MFU' in line]
  assert facts < peak < estimates < mfu
  assert 'on-chip' not in '\n'.join(lines)
  assert 'memory 2 ms (4 if on-chip memory saved nothing)' in plan_text.describe(
    planned(accessed_bytes=13.4e9)
  )
  assert '20.0 GB of 76.5 GB (26.1%)' in lines[peak] and '25.0%' in lines[mfu]


def test_what_does_not_fit_is_said():
  full = planned(peak_bytes=77 * 10**9)  # Of 85 GB, of which XLA takes nine tenths.
  assert full.fits is False and 'does not fit' in plan_text.describe(full)
  failed = planned(failure='needs 20G of 15.75G', peak_bytes=None, flops=None)
  assert failed.fits is False and failed.roofline is None
  assert plan_text.describe(failed).endswith('It does not fit: needs 20G of 15.75G')
  assert 'does not fit' in plan_text.table([failed, full])
  assert failed.record()['estimated'] is None
  assert planned(topology='cpu:16').fits is None
  assert 'No estimate' in plan_text.describe(planned(topology='cpu:16'))


@pytest.mark.parametrize(
  ('amount', 'text'),
  [
    (0, '0 B'),
    (999, '999 B'),
    (1000, '1.0 kB'),
    (97.44e6, '97.4 MB'),
    (11e9, '11.0 GB'),
    (2e12, '2.0 TB'),
  ],
)
def test_sizes_in_words(amount, text):
  assert plan_text.size(amount) == text


def test_the_full_config_is_known_without_data():
  config = from_config_dict(load_config(f'{ROOT}/configs/pretrain_painformer.py'))
  classes, sizes = task_sizes(config)
  assert len(classes) == len(CORPUS) == 14 and classes['digiface'] == 110_000
  assert sum(sizes.values()) == sum(task.samples for task in CORPUS)


def test_the_config_and_the_docs_name_the_same_hours():
  docs = (ROOT / 'docs/pods.md').read_text().splitlines()
  row = next(line for line in docs if line.startswith('| 200 epochs of 10.9 M'))
  fft, dft, gpu = (cell.strip() for cell in row.split('|')[2:5])
  said = ' '.join((ROOT / 'configs/pretrain_painformer.py').read_text().split())
  assert f'{fft} on a v5e:16x16 slice with the FFT gate' in said
  assert f'{dft} with the DFT gate' in said and f'{gpu} on 8 H100' in said
