"""Plans by the real compilers of TPUs and GPUs, where they are installed."""

import dataclasses
import importlib.util

import pytest
from test_plan import small_request
from training_runs import TASKS, small_config

from painformer_jax.parallel import topology
from painformer_jax.planning import plan
from painformer_jax.planning import text as plan_text
from painformer_jax.planning.result import Plan


def needs(module: str):
  return pytest.mark.skipif(
    importlib.util.find_spec(module) is None, reason=f'needs {module}, which is not installed'
  )


def compiled_with_dft(name: str, *, sharding=None, **model) -> plan.Program:
  """The small step, two rows a task and chip."""
  rows = 2 * topology.parse_topology(name).chips
  return plan.run_apart(
    small_request(
      name,
      tasks={task: dict(batch_size=rows) for task in TASKS},
      sharding=sharding or {},
      model={**small_config('nowhere').model.to_dict(), 'gate': 'dft', **model},
    )
  )


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('v5e:2x2', marks=needs('libtpu')),
    pytest.param('v5p:2x2x1', marks=[needs('libtpu'), pytest.mark.slow]),
    pytest.param('v6e:2x2', marks=[needs('libtpu'), pytest.mark.slow]),
    pytest.param('h100:2', marks=needs('jax_cuda12_plugin')),
    pytest.param('h100:8', marks=[needs('jax_cuda12_plugin'), pytest.mark.slow]),
    pytest.param('h100:16', marks=[needs('jax_cuda12_plugin'), pytest.mark.slow]),
  ],
)
def test_programs_for_real_chips(name):
  program = compiled_with_dft(name)
  assert program.failure is None and program.chips == topology.parse_topology(name).chips
  assert program.parameter_bytes < program.argument_bytes < program.peak_bytes
  state = program.parameter_bytes + program.optimizer_bytes
  assert program.traffic_bytes > 1.9 * state  # All of it is read and written anew.
  assert (program.flops is None) == (program.accessed_bytes is None) == name.startswith('h')
  summed = sum(c.bytes for c in program.collectives if c.kind == 'all-reduce')
  assert program.parameter_bytes <= summed < 1.1 * program.parameter_bytes
  result = Plan(program=program, epochs=1, samples=10**6)
  assert result.fits and 0 < result.roofline.mfu < 1
  # Nodes as a run finds them: sums over all chips go over the network between.
  nodes = topology.parse_topology(name).nodes
  assert program.mesh == {'dcn': nodes, 'data': program.chips // nodes, 'model': 1}
  assert {c.nodes for c in program.collectives} == {nodes}


@pytest.mark.slow
@needs('jax_cuda12_plugin')
def test_groups_of_two_gpus_within_and_across_nodes():
  """Slices of the config that are not the nodes: what is gathered leaves a node or not."""
  gathered = {}
  for slices in (8, 1):
    program = compiled_with_dft(
      'h100:16', widths=(32, 64), sharding={'state': 'fsdp', 'dcn_parallelism': slices}
    )
    gathered[slices] = {(c.group, c.nodes) for c in program.collectives if c.kind == 'all-gather'}
    assert program.mesh['dcn'] == slices
  assert gathered == {8: {(2, 1)}, 1: {(16, 2)}}


@pytest.mark.slow
@needs('libtpu')
def test_a_program_over_two_slices_of_tpus():
  one, two = (compiled_with_dft(name) for name in ('v5e:2x2', '2*v5e:2x2'))
  assert two.failure is None and (one.chips, two.chips) == (4, 8)
  assert two.mesh == {'dcn': 2, 'data': 4, 'model': 1} and one.mesh['dcn'] == 1
  # Every chip sends its share of the summed gradients, or a small array whole, both
  # padded to tiles of 8 by 128, which is much in so small a model.
  crossing = [c for c in two.collectives if c.nodes > 1]
  assert {(c.kind, c.group, c.nodes) for c in crossing} == {('all-reduce', 2, 2)}
  assert two.parameter_bytes / 4 <= sum(c.bytes for c in crossing) < 4 * two.parameter_bytes
  assert all(c.group == 4 for c in two.collectives if c.nodes == 1)
  seconds = [Plan(program=program, epochs=1, samples=1).roofline.seconds for program in (one, two)]
  assert seconds[1]['interconnect'] > 3 * seconds[0]['interconnect']


@needs('libtpu')
def test_a_program_that_does_not_fit():
  request = small_request('v5e:2x2')
  program = plan.run_apart(
    dataclasses.replace(
      request,
      config={
        **request.config,
        'batch_size': 4 * 2**25,
        'batch_size_multiple': 4,
        'tasks': {task: {} for task in TASKS},
      },
    )
  )
  assert 'exceed' in program.failure.lower() and program.peak_bytes is None
  assert program.batch_bytes > 16 * topology.GIB
  assert 'does not fit' in plan_text.describe(Plan(program=program, epochs=1, samples=1))
