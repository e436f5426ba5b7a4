"""One number for an array, however it is cut into parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from painformer_jax.checkpoints.checksums import checksums, position_sum

SHAPES = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)
DTYPES = ['uint8', 'float16', 'int32', 'float32', 'complex64', 'float64']


def made(shape, dtype, seed):
  rng = np.random.default_rng(seed)
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


def plain(array):
  """The definition, element by element."""
  bits = array.reshape(-1).view(f'u{array.dtype.itemsize}').tolist()
  return sum(b * (2 * n + 1) for n, b in enumerate(bits)) % 2**64


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from(DTYPES), st.integers(0, 99), st.data())
def test_parts_add_up_to_the_whole(shape, dtype, seed, data):
  array = made(shape, dtype, seed)
  assert position_sum(array) == plain(array)
  cuts = [
    sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=2))}) for size in shape
  ]
  total = 0
  for corner in np.ndindex(*(len(c) - 1 for c in cuts)):
    starts = [c[i] for c, i in zip(cuts, corner)]
    ends = [c[i + 1] for c, i in zip(cuts, corner)]
    part = array[tuple(slice(a, b) for a, b in zip(starts, ends))]
    total += position_sum(part, shape=shape, starts=starts)
  assert total % 2**64 == plain(array)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from(DTYPES), st.integers(0, 99), st.data())
def test_every_change_is_told(shape, dtype, seed, data):
  array = made(shape, dtype, seed)
  before = position_sum(array)
  content = bytearray(array.tobytes())
  content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
  assert position_sum(np.frombuffer(bytes(content), dtype).reshape(shape)) != before


@pytest.mark.parametrize('size', [4095, 4096, 4097, 3 * 4096 + 5])
def test_long_arrays_are_summed_in_blocks(size):
  array = made((size,), 'float32', size)
  assert position_sum(array) == plain(array)
  parts = [
    position_sum(array[a:b], shape=(size,), starts=[a])
    for a, b in ((0, 100), (100, 4000), (4000, size))
  ]
  assert sum(parts) % 2**64 == plain(array)


def test_elements_that_changed_places_are_told():
  """Also powers of two, far apart, in 32 bits, where simpler sums come out the same."""
  array = np.zeros(1 << 20, np.float32)
  array[0], array[1 << 19] = 1, 2
  swapped = array[::-1].copy()
  swapped[0], swapped[1 << 19] = 2, 1
  swapped[-1] = swapped[(1 << 19) - 1] = 0
  assert position_sum(array) != position_sum(swapped)


def test_paths_and_kinds_of_arrays():
  host, device = np.arange(6.0).reshape(2, 3), jnp.ones((3,), jnp.bfloat16)
  found = checksums(
    {'a/b': {'c': host}, 'd': (device, jnp.int32(-1)), 'e': jnp.array([True, True])}
  )
  assert found == {
    'a/b.c': plain(host),
    'd.0': plain(np.asarray(device)),
    'd.1': 2**32 - 1,
    'e': 1 + 3,
  }


def on_mesh():
  """The checksums of one state, split over eight devices in some ways."""
  mesh = jax.make_mesh((4, 2), ('x', 'y'))
  array = made((8, 4, 2), 'int32', 5)
  specs = [
    PartitionSpec(),
    PartitionSpec('x'),
    PartitionSpec('x', 'y'),
    PartitionSpec(None, 'x', 'y'),
    PartitionSpec(('y', 'x')),
  ]
  return [checksums([jax.device_put(array, NamedSharding(mesh, spec))])['0'] for spec in specs]


def test_devices_do_not_change_it(on_devices):
  assert on_devices(8, on_mesh) == [plain(made((8, 4, 2), 'int32', 5))] * 5
