"""A checksum of every array of a state, which does not depend on how it is sharded."""

import jax
import numpy as np

from painformer_jax.parallel import processes

_MODULUS = 2**64

# A long array is summed in rows of this many elements.
_WIDTH = 4096


def checksums(state) -> dict[str, int]:
  """A checksum below 2^64 for every array.

  It is the sum, modulo 2^64, of the bits of all elements as integers, each times
  (2 * position + 1). Sums of integers are the same in any order, so a state has the same
  checksums on one device, on eight or over several processes, each of which sums what
  it holds. As the factors are odd and differ, a changed element changes the sum, and so
  do two that changed places.

  Where arrays are divided over several processes, each must make the same calls.

  Args:
    state: pytree of arrays on devices or hosts.

  Returns:
    path in the tree, with dots between -> checksum.
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
    array.is_fully_addressable or array.is_fully_replicated
  )


def _share(array) -> int:
  """What this process adds to the sum: of each shard, only the first copy counts."""
  if not isinstance(array, jax.Array):
    return position_sum(np.asarray(array))
  if array.is_fully_replicated:
    return position_sum(np.asarray(array.addressable_data(0)))
  return (
    sum(
      position_sum(
        np.asarray(shard.data), shape=array.shape, starts=[part.start or 0 for part in shard.index]
      )
      for shard in array.addressable_shards
      if shard.replica_id == 0
    )
    % _MODULUS
  )


def position_sum(
  part: np.ndarray, *, shape: tuple[int, ...] | None = None, starts: list[int] | None = None
) -> int:
  """What one part of an array adds to the array's checksum.

  Args:
    part: of any shape and dtype of 1, 2, 4 or 8 bytes.
    shape: of the whole array; None where the part is all of it.
    starts: where the part begins in each axis.
  """
  bits = np.ascontiguousarray(part).view(f'u{part.dtype.itemsize}')
  lengths, shape = list(bits.shape), list(shape or bits.shape)
  starts = list(starts or [0] * len(shape))
  # An axis of which the part has everything is joined with the axis before it.
  for axis in reversed(range(1, len(shape))):
    if lengths[axis] == shape[axis]:
      size = shape.pop(axis)
      lengths.pop(axis), starts.pop(axis)
      lengths[axis - 1] *= size
      starts[axis - 1] *= size
      shape[axis - 1] *= size
  bits = bits.reshape(lengths)
  if len(shape) > 1:
    return _sum(bits, shape=shape, starts=starts) % _MODULUS
  cut = lengths[0] // _WIDTH * _WIDTH
  return (
    _sum(bits[:cut].reshape(-1, _WIDTH), offset=starts[0])
    + _sum(bits[cut:], offset=starts[0] + cut)
  ) % _MODULUS


def _sum(
  bits: np.ndarray,
  *,
  shape: list[int] | None = None,
  starts: list[int] | None = None,
  offset: int = 0,
) -> int:
  """A position is a sum over axes, so it is enough to weight one sum along each axis."""
  total, stride = (1 + 2 * offset) * int(bits.sum(dtype=np.uint64)), 1
  for axis in reversed(range(bits.ndim)):
    others = tuple(other for other in range(bits.ndim) if other != axis)
    along = bits.sum(axis=others, dtype=np.uint64)
    first = starts[axis] if starts else 0
    positions = np.arange(first, first + bits.shape[axis], dtype=np.uint64)
    total += 2 * stride * int(along @ positions)
    stride *= shape[axis] if shape else bits.shape[axis]
  return total
