"""How a training state is sharded over the devices: a strategy, and a table of rules.

The examples of a batch are always divided over all devices. What a strategy chooses is
how much of the state each device keeps.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from painformer_jax.core import path_rules
from painformer_jax.core.config_fields import Renamed
from painformer_jax.core.errors import InputError
from painformer_jax.models.heads import is_padded
from painformer_jax.parallel.mesh import DATA

DCN, MODEL = 'dcn', 'model'

# Elements: arrays with fewer are replicated under 'fsdp' too, since gathering them would
# cost more time than it saves memory.
LEAST_SPLIT = 2**12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
  """What each device keeps of the training state.

  Attributes:
    state: 'replicated': every device holds all of it (240 MB with AdamW for the
      released model, without heads); 'fsdp': parameters, optimizer moments and
      averages are divided over the devices of the axis 'data', and gathered for each step.
    model_parallelism: devices over which the classes of big heads are divided (heads of
      `models.heads.PADDED_FROM` classes and more); a power of two up to 128.
    dcn_parallelism: groups of devices joined by a slow network (DCN); only gradients
      cross it; 0 = detect.
  """

  RENAMED: ClassVar = Renamed(
    fields={'class_devices': 'model_parallelism', 'slices': 'dcn_parallelism'}
  )

  state: Literal['replicated', 'fsdp'] = 'replicated'
  model_parallelism: int = 1
  dcn_parallelism: int = 0


@dataclasses.dataclass(frozen=True)
class ShardingRule:
  """Which dimensions of an array may be divided over the axes of the mesh.

  Attributes:
    data: candidates for the axis 'data' under 'fsdp'; the first that divides evenly is.
    model: the dimension of classes, divided over the axis 'model'; None for none.
  """

  data: tuple[int, ...] = ()
  model: int | None = None


# The paths of the optimizer's moments and of the averages end with the path of their
# parameter, so they are sharded like it.
RULES = (
  (r'(.*/)?heads/[^/]+/kernel', ShardingRule(data=(0,), model=1)),
  (r'(.*/)?heads/[^/]+/bias', ShardingRule(model=0)),
  (r'(.*/)?log_variance/[^/]+', ShardingRule()),
  (r'(.*/)?complex_weight', ShardingRule(data=(2,))),
  (r'(.*/)?kernel', ShardingRule(data=(-1, -2))),
  (r'(.*/)?(bias|scale|mean|var|count)', ShardingRule()),
  (r'step|key', ShardingRule()),
)


def training_mesh(
  strategy: Strategy = Strategy(), devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh of the axes 'dcn', 'data', 'model' over all devices of all processes.

  Args:
    strategy: says how long the axes 'dcn' and 'model' are.
    devices: None for all.

  Raises:
    InputError: the number of devices is no multiple of the two.
  """
  devices = jax.devices() if devices is None else list(devices)
  dcn, model = strategy.dcn_parallelism or _count_slices(devices), strategy.model_parallelism
  if len(devices) % (dcn * model):
    raise InputError(
      f'{len(devices)} devices do not divide into {dcn} group(s) with model parallelism {model}: '
      'change config.sharding.dcn_parallelism or config.sharding.model_parallelism'
    )
  shape = (len(devices) // dcn // model, model)
  blocks = [
    mesh_utils.create_device_mesh(shape, block, allow_split_physical_axes=True)
    for block in _groups(devices, dcn)
  ]
  return Mesh(np.stack(blocks), (DCN, DATA, MODEL), axis_types=(AxisType.Auto,) * 3)


def _slice(device) -> int:
  """The slice of a TPU, between which the network is slow; 0 for other devices."""
  return getattr(device, 'slice_index', None) or 0


def _count_slices(devices: Sequence) -> int:
  return len({_slice(device) for device in devices})


def _groups(devices: Sequence, count: int) -> list[list]:
  """The devices of each slice; if there are not `count` slices, neighbours by process."""
  if _count_slices(devices) == count:
    order = sorted(devices, key=lambda d: (_slice(d), d.id))
  else:
    order = sorted(devices, key=lambda d: (d.process_index, d.id))
  size = len(order) // count
  return [order[start : start + size] for start in range(0, len(order), size)]


def state_shardings(mesh: Mesh, tree, strategy: Strategy = Strategy()):
  """The sharding of every leaf of a training state, by its path and shape.

  Args:
    mesh: from `training_mesh` with the same strategy; it may be abstract.
    tree: pytree of arrays or shapes.
    strategy: what each device keeps.

  Raises:
    ValueError: no rule matches a leaf.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
  paths = ['/'.join(_key(k) for k in keys) for keys, _ in leaves]
  rules = path_rules.match(RULES, paths, table='sharding')
  return jax.tree.unflatten(
    structure,
    [
      NamedSharding(mesh, _spec(mesh, rules[path], path, leaf.shape, strategy))
      for path, (_, leaf) in zip(paths, leaves)
    ],
  )


def _spec(
  mesh: Mesh, rule: ShardingRule, path: str, shape: tuple[int, ...], strategy: Strategy
) -> PartitionSpec:
  axes: list[str | None] = [None] * len(shape)
  if rule.model is not None and splits_classes(mesh, shape[rule.model]):
    axes[rule.model] = MODEL
  if strategy.state == 'fsdp' and np.prod(shape) >= LEAST_SPLIT:
    for dimension in rule.data:
      if axes[dimension] is None and shape[dimension] % mesh.shape[DATA] == 0:
        axes[dimension] = DATA
        break
  while axes and axes[-1] is None:
    axes.pop()
  return PartitionSpec(*axes)


def splits_classes(mesh: Mesh, columns: int) -> bool:
  """Whether a head with so many columns has its classes divided over devices."""
  return mesh.shape.get(MODEL, 1) > 1 and is_padded(columns)


def gathered(mesh: Mesh, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Replicates every parameter, except heads whose classes are divided over devices."""

  def gather(path, array):
    rule = path_rules.match(RULES, [path], table='sharding')[path]
    by_class = rule.model is not None and splits_classes(mesh, array.shape[rule.model])
    axes = [MODEL if by_class and n == rule.model else None for n in range(array.ndim)]
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(*axes)))

  return {path: gather(path, array) for path, array in params.items()}


def constrained(tree, shardings):
  """Constrains arrays within a compiled function to the given shardings."""
  return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)


def _key(key) -> str:
  return str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
