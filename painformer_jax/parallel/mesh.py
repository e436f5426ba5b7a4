"""The mesh of devices, and how a batch is sharded over it.

`layout` says how a training state is sharded.
"""

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

  The axis is Auto: jax.make_mesh makes Explicit ones by default, and convolutions do not
  take operands that are sharded over those.
  """
  devices = jax.devices() if devices is None else list(devices)
  return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


@dataclasses.dataclass(frozen=True)
class BatchShardMap:
  """A shard_map wrapper: `f(batch, weight)` runs on each device's own part of the batch.

  For functions that treat all examples alike but that the compiler would not partition
  by itself, such as FFTs. The weight is replicated.
  """

  mesh: Mesh

  def __call__(self, function: Callable) -> Callable:
    batch, replicated_weight = batch_spec(self.mesh), PartitionSpec()
    return jax.shard_map(
      function, mesh=self.mesh, in_specs=(batch, replicated_weight), out_specs=batch
    )


def batch_spec(mesh: Mesh) -> PartitionSpec:
  """The examples of a batch are divided over every axis of the mesh."""
  return PartitionSpec(mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0])


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The examples of a batch, divided evenly over the devices."""
  return NamedSharding(mesh, batch_spec(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def with_shardings(shapes, shardings):
  """Adds shardings to shapes, for a restore.

  Args:
    shapes: pytree of ShapeDtypeStruct.
    shardings: pytree of the same structure.

  Returns:
    pytree of ShapeDtypeStruct with shardings.
  """
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings
  )


def replicate(mesh: Mesh, tree):
  """Copies arrays whole to every device."""
  return _replicate(mesh)(tree)


@functools.lru_cache(maxsize=4)
def _replicate(mesh: Mesh):
  """Cached, since a new function would be compiled anew."""
  return jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))


def put_batch(mesh: Mesh, batch: Mapping):
  """Makes global arrays, divided over all devices, from this process's examples.

  Args:
    mesh: over the devices of all processes.
    batch: pytree of host arrays [examples of this process, ...].
  """
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
  )


def put_global(mesh: Mesh, array: np.ndarray) -> jax.Array:
  """Makes a global array, divided over all devices, from one that each process has whole."""
  return jax.make_array_from_callback(array.shape, batch_sharding(mesh), lambda index: array[index])


def is_main() -> bool:
  """Whether this process is the one that writes a run's files."""
  return jax.process_index() == 0


def many_processes() -> bool:
  """Whether this is one of several processes that train together."""
  return jax.process_count() > 1


def wait_for_all(purpose: str) -> None:
  """Returns once every process has called it with the same purpose."""
  if many_processes():
    multihost_utils.sync_global_devices(purpose)


def check_batch_sizes(
  mesh: Mesh, batch_sizes: Mapping[str, int], *, grad_accum_steps: int = 1
) -> None:
  """Asserts that every task's batch divides evenly over devices and microbatches.

  Args:
    mesh: of the training.
    batch_sizes: task -> examples of a step, on all devices together.
    grad_accum_steps: microbatches of a step.

  Raises:
    InputError: one does not.
  """
  parts = mesh.size * grad_accum_steps
  over = f'{mesh.size} devices'
  if grad_accum_steps > 1:
    over += f' and {grad_accum_steps} microbatches'
  for task, size in batch_sizes.items():
    if size < 1 or size % parts:
      raise InputError(
        f'task {task} has the batch size {size}, which does not divide over {over}: make '
        f'config.tasks.{task}.batch_size a multiple of {parts}'
      )


def split_microbatches(mesh: Mesh, tree, count: int):
  """Cuts a batch into microbatches; no example moves to another device.

  Args:
    mesh: over which the batch is divided.
    tree: pytree of arrays [batch, ...].
    count: of microbatches.

  Returns:
    The pytree with arrays [count, batch / count, ...].
  """

  def split(array):
    blocks = array.reshape(mesh.size, count, -1, *array.shape[1:])
    microbatches = jax.numpy.swapaxes(blocks, 0, 1)
    return jax.lax.with_sharding_constraint(
      microbatches.reshape(count, -1, *array.shape[1:]),
      NamedSharding(mesh, PartitionSpec(None, *batch_spec(mesh))),
    )

  return jax.tree.map(split, tree)


def interleave(mesh: Mesh, batches: Sequence[jax.Array]) -> jax.Array:
  """Joins the batches of all tasks; no example moves to another device.

  Args:
    mesh: over which the batches are divided.
    batches: [batch_i, ...] for each task.

  Returns:
    [sum of batch_i, ...]: on each device its own examples of every task in turn.
  """
  blocks = [b.reshape(mesh.size, -1, *b.shape[1:]) for b in batches]
  joined = jax.numpy.concatenate(blocks, axis=1)
  return jax.lax.with_sharding_constraint(
    joined.reshape(-1, *joined.shape[2:]), batch_sharding(mesh)
  )


def separate(mesh: Mesh, joined: jax.Array, batch_sizes: Sequence[int]) -> list[jax.Array]:
  """Undoes `interleave`: [sum of batch_i, ...] -> [batch_i, ...] for each task."""
  blocks = joined.reshape(mesh.size, -1, *joined.shape[1:])
  ends = np.cumsum([size // mesh.size for size in batch_sizes])[:-1]
  return [b.reshape(-1, *b.shape[2:]) for b in jax.numpy.split(blocks, ends, axis=1)]
