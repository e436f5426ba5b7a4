"""A checksum of every array of a state, the same however devices share it."""

import jax
import numpy as np

from painformer_jax.parallel import processes

_MODULUS = 2 ** 64


def checksums(state) -> dict[str, int]:
  """A number below 2^64 for every array, by its path.

  It is the sum of all elements' bits, each times twice its position plus one. Sums of
  integers come out the same in any order, so a state has the same checksums on one
  device, on eight or over several processes, each of which adds up what it holds. The
  odd factors tell every changed element, and two that changed places.

  Where several processes share arrays, each must call this alike.

  Args:
    state: pytree of arrays on devices or hosts.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  paths = [jax.tree_util.keystr(keys, simple=True, separator='.') for keys, _ in leaves]
  sums = np.array([_share(array) for _, array in leaves], np.uint64)
  shared = np.array([_is_shared(array) for _, array in leaves], bool)
  if shared.any():
    sums[shared] = processes.total(sums[shared])
  return dict(zip(paths, sums.tolist()))


def _is_shared(array) -> bool:
  """Whether no process holds all of it."""
  return isinstance(array, jax.Array) and not (
      array.is_fully_addressable or array.is_fully_replicated)


def _share(array) -> int:
  """What this process adds: all that it holds, or its shards, each of them once."""
  if not isinstance(array, jax.Array):
    return position_sum(np.asarray(array))
  if array.is_fully_replicated:
    return position_sum(np.asarray(array.addressable_data(0)))
  return sum(
      position_sum(np.asarray(shard.data), shape=array.shape,
                   starts=[part.start or 0 for part in shard.index])
      for shard in array.addressable_shards if shard.replica_id == 0) % _MODULUS


def position_sum(part: np.ndarray, *, shape: tuple[int, ...] | None = None,
                 starts: list[int] | None = None) -> int:
  """The share that one part of an array has in the array's checksum.

  Args:
    part: of any shape and dtype of 1, 2, 4 or 8 bytes.
    shape: of the whole array; None where the part is all of it.
    starts: where the part begins in each axis.
  """
  bits = np.ascontiguousarray(part).view(f'u{part.dtype.itemsize}')
  shape, starts = shape or bits.shape, starts or [0] * bits.ndim
  total, stride = int(bits.sum(dtype=np.uint64)), 1
  # Positions are sums over axes, so one sum along each does for all elements.
  for axis in reversed(range(bits.ndim)):
    others = tuple(other for other in range(bits.ndim) if other != axis)
    along = bits.sum(axis=others, dtype=np.uint64)
    positions = np.arange(starts[axis], starts[axis] + bits.shape[axis], dtype=np.uint64)
    total += 2 * stride * int(along @ positions)
    stride *= shape[axis]
  return total % _MODULUS
