"""How every array of a training state is sharded, for named machines.

`python tests/parallel/test_layout.py` writes the golden dumps anew.
"""

import dataclasses
import functools
import math
import pathlib
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from painformer_jax.core.errors import InputError
from painformer_jax.data.corpus import CORPUS
from painformer_jax.models import heads, registry
from painformer_jax.parallel import layout
from painformer_jax.parallel.layout import Strategy
from painformer_jax.training.config import OptimizerConfig
from painformer_jax.training.optimizer import make_optimizer
from painformer_jax.training.state import initial_state

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'shardings'

# Name -> strategy, and sizes of the axes 'dcn', 'data', 'model'.
MACHINES = {
  'replicated_8': (Strategy(), (1, 8, 1)),
  'fsdp_8': (Strategy(state='fsdp'), (1, 8, 1)),
  'fsdp_256_model_16': (Strategy(state='fsdp', model_parallelism=16), (1, 16, 16)),
  'fsdp_dcn_2_of_32_model_4': (
    Strategy(state='fsdp', model_parallelism=4, dcn_parallelism=2),
    (2, 8, 4),
  ),
}


def mesh_of(shape):
  return AbstractMesh(
    shape, (layout.DCN, layout.DATA, layout.MODEL), axis_types=(AxisType.Auto,) * 3
  )


@functools.cache
def shapes(preset='painformer'):
  """A training state of the corpus's 14 tasks, as shapes, with averages."""
  model = registry.make_config(preset)
  optimizer = make_optimizer(OptimizerConfig(layer_decay=0.9), steps=10, model=model)
  return jax.eval_shape(
    lambda: initial_state(
      model,
      classes={task.name: task.classes for task in CORPUS},
      learned_weighting=True,
      optimizer=optimizer,
      seed=0,
      averaged=True,
    )
  )


def dump(name):
  """One line an array: its path, and over which axes its dimensions are divided."""
  strategy, shape = MACHINES[name]
  state = shapes()
  # The moments and averages have their parameter's place, see below.
  state = {'params': state.params, 'stats': state.stats, 'step': state.step, 'key': state.key}
  shardings = layout.state_shardings(mesh_of(shape), state, strategy)
  leaves, _ = jax.tree_util.tree_flatten_with_path(shardings)
  return ''.join(
    f'{jax.tree_util.keystr(keys, simple=True, separator="/")}  {tuple(s.spec)}\n'
    for keys, s in leaves
  )


@pytest.mark.parametrize('name', MACHINES)
def test_every_array_lies_where_the_dump_says(name):
  assert dump(name) == (GOLDEN / f'{name}.txt').read_text()


@pytest.mark.parametrize('name', MACHINES)
def test_moments_and_averages_lie_with_their_parameters(name):
  strategy, shape = MACHINES[name]
  state = shapes()
  found = layout.state_shardings(mesh_of(shape), state, strategy)
  moments = found.opt_state[1][0]
  assert found.params == found.ema == moments.mu == moments.nu
  for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
    assert math.prod(place.shard_shape(leaf.shape)) > 0  # It divides evenly.


def test_fsdp_leaves_little_whole():
  """What every device keeps of all parameters, against a fair share."""
  strategy, shape = MACHINES['fsdp_8']
  state = shapes()
  places = layout.state_shardings(mesh_of(shape), state.params, strategy)
  kept = sum(math.prod(places[p].shard_shape(a.shape)) for p, a in state.params.items())
  total = sum(a.size for a in state.params.values())
  assert total / 8 <= kept < 1.05 * total / 8


@pytest.mark.parametrize('preset', registry.list_models())
def test_the_rules_cover_every_model(preset):
  layout.state_shardings(mesh_of((1, 8, 1)), shapes(preset), Strategy(state='fsdp'))


def test_an_unknown_path_is_an_error():
  with pytest.raises(ValueError, match='no rule of the sharding table matches: params/new/gamma'):
    layout.state_shardings(mesh_of((1, 8, 1)), {'params': {'new/gamma': np.ones(3)}})


def test_heads_of_any_size():
  mesh = mesh_of((1, 2, 4))
  arrays = {
    f'heads/{task}/{kind}': np.zeros(shape)
    for task, count in (('small', 8), ('faces', 9131))
    for kind, shape in (('kernel', (160, heads.columns(count))), ('bias', (heads.columns(count),)))
  }
  found = {
    path: tuple(s.spec)
    for path, s in layout.state_shardings(
      mesh, arrays, Strategy(state='fsdp', model_parallelism=4)
    ).items()
  }
  assert heads.columns(9131) == 9216
  assert found == {
    'heads/small/kernel': (),
    'heads/small/bias': (),
    'heads/faces/kernel': ('data', 'model'),
    'heads/faces/bias': ('model',),
  }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200_000))
def test_columns_of_heads(classes):
  columns = heads.columns(classes)
  assert classes <= columns < classes + heads.PADDED_TO
  assert heads.is_padded(columns) == (classes >= heads.PADDED_FROM)
  if heads.is_padded(columns):
    assert columns % 128 == 0
  else:
    assert columns == classes


# The mesh.


@dataclasses.dataclass(frozen=True)
class Device:
  """As much of a jax.Device as a mesh asks for."""

  id: int
  process_index: int = 0
  slice_index: int | None = None
  platform: str = 'cpu'
  device_kind: str = 'cpu'


def test_the_mesh_of_one_device():
  mesh = layout.training_mesh()
  assert mesh.axis_names == ('dcn', 'data', 'model') and mesh.size == len(jax.devices())
  assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize('order', [1, -1])
def test_slices_are_those_that_devices_name(order):
  devices = [Device(id=n, process_index=n // 2, slice_index=n % 2) for n in range(16)][::order]
  mesh = layout.training_mesh(Strategy(model_parallelism=2), devices)
  assert dict(mesh.shape) == {'dcn': 2, 'data': 4, 'model': 2}
  for number, block in enumerate(mesh.devices):
    assert {d.slice_index for d in block.flat} == {number}


def test_slices_of_devices_that_name_none_are_neighbours():
  devices = [Device(id=n, process_index=n // 4) for n in range(8)]
  mesh = layout.training_mesh(Strategy(dcn_parallelism=2), devices)
  assert mesh.devices.shape == (2, 4, 1)
  assert [{d.process_index for d in block.flat} for block in mesh.devices] == [{0}, {1}]


@pytest.mark.parametrize(
  'strategy',
  [
    Strategy(dcn_parallelism=3),
    Strategy(model_parallelism=16),
    Strategy(dcn_parallelism=4, model_parallelism=4),
  ],
)
def test_devices_that_do_not_divide(strategy):
  with pytest.raises(
    InputError, match=r'8 devices do not divide into \d group\(s\) with model parallelism'
  ):
    layout.training_mesh(strategy, [Device(id=n) for n in range(8)])


def test_specs_have_no_trailing_axes():
  found = layout.state_shardings(mesh_of((1, 8, 1)), shapes(), Strategy(state='fsdp'))
  for place in jax.tree.leaves(found):
    assert place.spec == PartitionSpec() or place.spec[-1] is not None


def test_only_this_room_makes_meshes_and_shardings():
  """`.importlinter` says which room imports which; it does not see parts of JAX."""
  makes = re.compile(r'\b(PartitionSpec|NamedSharding|shard_map|make_mesh)\b')
  package = pathlib.Path(layout.__file__).parents[1]
  assert {p.parent.name for p in package.rglob('*.py') if makes.search(p.read_text())} == {
    'parallel'
  }


if __name__ == '__main__':
  for machine in MACHINES:
    (GOLDEN / f'{machine}.txt').write_text(dump(machine))
