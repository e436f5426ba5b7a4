"""How a run's state is laid over its devices: a strategy, and a table of rules.

Rows of a batch are always divided over all devices. What a strategy chooses is how
much of the state each device keeps.
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

# Smaller arrays stay whole under 'fsdp': a message costs more than they do.
LEAST_SPLIT = 2**12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
  """What each device keeps of the training state.

  Attributes:
    state: 'replicated': every device holds all of it (240 MB with AdamW for the
      released model, without heads); 'fsdp': parameters, optimizer moments and
      averages are split over the devices of a slice, and gathered for each step.
    model_parallelism: devices that share the classes of big heads (those of
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
class Split:
  """Which dimensions of an array may be divided.

  Attributes:
    data: over the devices of a slice under 'fsdp'; the first that divides evenly.
    classes: over the devices that share classes; None for none.
  """

  data: tuple[int, ...] = ()
  classes: int | None = None


# The optimizer's moments and the averages have their parameter's path at the end of
# their own, and lie where it lies.
RULES = (
  (r'(.*/)?heads/[^/]+/kernel', Split(data=(0,), classes=1)),
  (r'(.*/)?heads/[^/]+/bias', Split(classes=0)),
  (r'(.*/)?log_variance/[^/]+', Split()),
  (r'(.*/)?complex_weight', Split(data=(2,))),
  (r'(.*/)?kernel', Split(data=(-1, -2))),
  (r'(.*/)?(bias|scale|mean|var|count)', Split()),
  (r'step|key', Split()),
)


def training_mesh(
  strategy: Strategy = Strategy(), devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh of the axes 'dcn', 'data', 'model' over all devices of all processes.

  Raises:
    InputError: the devices do not divide so.
  """
  devices = jax.devices() if devices is None else list(devices)
  slices, shared = strategy.dcn_parallelism or _own_slices(devices), strategy.model_parallelism
  if len(devices) % (slices * shared):
    raise InputError(
      f'{len(devices)} devices do not divide into {slices} slice(s) of groups of {shared}: '
      'mend config.sharding.dcn_parallelism or config.sharding.model_parallelism'
    )
  shape = (len(devices) // slices // shared, shared)
  blocks = [
    mesh_utils.create_device_mesh(shape, block, allow_split_physical_axes=True)
    for block in _blocks(devices, slices)
  ]
  return Mesh(np.stack(blocks), (DCN, DATA, MODEL), axis_types=(AxisType.Auto,) * 3)


def _own_slices(devices: Sequence) -> int:
  return len({getattr(d, 'slice_index', None) or 0 for d in devices})


def _blocks(devices: Sequence, slices: int) -> list[list]:
  """Devices by slice; where they name none or others, neighbours by process."""
  if _own_slices(devices) == slices:
    order = sorted(devices, key=lambda d: (getattr(d, 'slice_index', None) or 0, d.id))
  else:
    order = sorted(devices, key=lambda d: (d.process_index, d.id))
  size = len(order) // slices
  return [order[start : start + size] for start in range(0, len(order), size)]


def state_shardings(mesh: Mesh, tree, strategy: Strategy = Strategy()):
  """The sharding of every leaf of a training state, by its path and shape.

  Args:
    mesh: from `training_mesh` with the same strategy; it may be abstract.
    tree: any pytree of arrays or shapes.
    strategy: see there.

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
  mesh: Mesh, rule: Split, path: str, shape: tuple[int, ...], strategy: Strategy
) -> PartitionSpec:
  axes: list[str | None] = [None] * len(shape)
  if rule.classes is not None and splits_classes(mesh, shape[rule.classes]):
    axes[rule.classes] = MODEL
  if strategy.state == 'fsdp' and np.prod(shape) >= LEAST_SPLIT:
    for dimension in rule.data:
      if axes[dimension] is None and shape[dimension] % mesh.shape[DATA] == 0:
        axes[dimension] = DATA
        break
  while axes and axes[-1] is None:
    axes.pop()
  return PartitionSpec(*axes)


def splits_classes(mesh: Mesh, columns: int) -> bool:
  """Whether a head of so many columns is divided over devices by class."""
  return mesh.shape.get(MODEL, 1) > 1 and is_padded(columns)


def gathered(mesh: Mesh, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Every parameter whole on every device, but heads that are divided by class."""

  def whole(path, array):
    rule = path_rules.match(RULES, [path], table='sharding')[path]
    by_class = rule.classes is not None and splits_classes(mesh, array.shape[rule.classes])
    axes = [MODEL if by_class and n == rule.classes else None for n in range(array.ndim)]
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(*axes)))

  return {path: whole(path, array) for path, array in params.items()}


def constrained(tree, shardings):
  """Arrays within a compiled function, made to lie so."""
  return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)


def _key(key) -> str:
  return str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))


def dump(shardings) -> str:
  """One line an array: its path, and over which axes its dimensions are divided."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(shardings)
  return ''.join(f'{"/".join(_key(k) for k in keys)}  {tuple(s.spec)}\n' for keys, s in leaves)
