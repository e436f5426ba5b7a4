"""The mesh of devices, and how a batch lies on it; `layout` says where a state lies."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from painformer_jax.core.errors import InputError

DATA = 'data'


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis, 'data', over all devices of all processes.

  The axis is Auto: jax.make_mesh makes Explicit ones, which convolutions with
  sharded operands do not take.
  """
  devices = jax.devices() if devices is None else list(devices)
  return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


@dataclasses.dataclass(frozen=True)
class PerDevice:
  """Makes `f(rows, weight)` run on each device's own rows of the batch.

  For functions that treat the rows of a batch alike but that the compiler
  would not partition by itself, such as FFTs.
  """

  mesh: Mesh

  def __call__(self, function: Callable) -> Callable:
    rows, whole = rows_spec(self.mesh), PartitionSpec()
    return jax.shard_map(function, mesh=self.mesh, in_specs=(rows, whole), out_specs=rows)


def rows_spec(mesh: Mesh) -> PartitionSpec:
  """Rows of a batch are divided over every axis of the mesh."""
  return PartitionSpec(mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0])


def with_shardings(abstract, tree_of_shardings):
  """Shapes and dtypes -> the same with where they lie, for a restore."""
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, tree_of_shardings
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows of a batch, split evenly over the devices."""
  return NamedSharding(mesh, rows_spec(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def everywhere(mesh: Mesh, tree):
  """The arrays, whole on every device."""
  return _gather(mesh)(tree)


@functools.lru_cache(maxsize=4)
def _gather(mesh: Mesh):
  """Kept, since a function made anew would be compiled anew."""
  return jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))


def put_batch(mesh: Mesh, batch: Mapping):
  """Host arrays of this process's rows -> global arrays split over devices."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch
  )


def put_whole(mesh: Mesh, rows: np.ndarray) -> jax.Array:
  """Rows that every process holds in full -> a global array split over devices."""
  return jax.make_array_from_callback(rows.shape, batch_sharding(mesh), lambda index: rows[index])


def is_main() -> bool:
  """Whether this process is the one that writes a run's files."""
  return jax.process_index() == 0


def many_processes() -> bool:
  """Whether this is one of several processes that train together."""
  return jax.process_count() > 1


def wait_for_all(purpose: str) -> None:
  """Returns once every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(purpose)


def check_rows(mesh: Mesh, rows: Mapping[str, int], *, grad_accum_steps: int = 1) -> None:
  """Asserts that every task's rows split evenly over devices and parts of a step.

  Raises:
    InputError: they do not.
  """
  parts = mesh.size * grad_accum_steps
  over = f'{mesh.size} devices' + (
    f' and {grad_accum_steps} parts of a step' if grad_accum_steps > 1 else ''
  )
  for task, count in rows.items():
    if count < 1 or count % parts:
      raise InputError(
        f'task {task} has {count} rows a batch, which do not split over {over}: make '
        f'config.tasks.{task}.batch_size a multiple of {parts}'
      )


def in_parts(mesh: Mesh, tree, count: int):
  """[rows, ...] -> [count, rows / count, ...], no row changing its device."""

  def split(rows):
    blocks = rows.reshape(mesh.size, count, -1, *rows.shape[1:])
    parts = jax.numpy.swapaxes(blocks, 0, 1)
    return jax.lax.with_sharding_constraint(
      parts.reshape(count, -1, *rows.shape[1:]),
      NamedSharding(mesh, PartitionSpec(None, *rows_spec(mesh))),
    )

  return jax.tree.map(split, tree)


def interleave(mesh: Mesh, parts: Sequence[jax.Array]) -> jax.Array:
  """Joins the rows of all tasks so that no row changes its device.

  Args:
    mesh: from `data_mesh`.
    parts: [rows_i, ...] for each task, rows split evenly over the devices.

  Returns:
    [sum of rows, ...]: on each device its own rows of every part in turn.
  """
  blocks = [p.reshape(mesh.size, -1, *p.shape[1:]) for p in parts]
  joined = jax.numpy.concatenate(blocks, axis=1)
  return jax.lax.with_sharding_constraint(
    joined.reshape(-1, *joined.shape[2:]), batch_sharding(mesh)
  )


def separate(mesh: Mesh, joined: jax.Array, rows: Sequence[int]) -> list[jax.Array]:
  """Undoes `interleave`: [sum of rows, ...] -> [rows_i, ...] for each task."""
  blocks = joined.reshape(mesh.size, -1, *joined.shape[1:])
  ends = np.cumsum([count // mesh.size for count in rows])[:-1]
  return [p.reshape(-1, *p.shape[2:]) for p in jax.numpy.split(blocks, ends, axis=1)]
