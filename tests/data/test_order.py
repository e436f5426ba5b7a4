"""The order of epochs: permutations, different ones, evenly spread, at any size."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.data import order as order_lib
from painformer_jax.data.order import EpochOrder

LARGE = order_lib.MAX_KEPT + 1


def places(order, start, count):
  return np.array([order(n) for n in range(start, start + count)])


@given(size=st.integers(1, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(size, seed, epoch):
  order = EpochOrder(size, seed=seed, name='task')
  assert sorted(places(order, epoch * size, size)) == list(range(size))


@settings(deadline=None, max_examples=20)
@given(
  size=st.one_of(st.integers(2, 300), st.sampled_from([3, 5, 9, 17, 33, 65, 129, 257, 513])),
  seed=st.integers(0, 1000),
)
def test_computed_orders_are_permutations_too(size, seed):
  kept = order_lib.MAX_KEPT
  order_lib.MAX_KEPT = 0
  try:
    order = EpochOrder(size, seed=seed, name='task')
    first, second = places(order, 0, size), places(order, size, size)
  finally:
    order_lib.MAX_KEPT = kept
  assert sorted(first) == sorted(second) == list(range(size))


def test_a_large_order_is_a_permutation():
  assert len(set(places(EpochOrder(LARGE, seed=1, name='t'), 0, LARGE))) == LARGE


@pytest.mark.parametrize('size', [50_000, 11_000_000])
def test_epochs_seeds_and_names_differ(size):
  first = places(EpochOrder(size, seed=1, name='a'), 0, 50)
  for order, start in (
    (EpochOrder(size, seed=1, name='a'), size),
    (EpochOrder(size, seed=2, name='a'), 0),
    (EpochOrder(size, seed=1, name='b'), 0),
  ):
    # By chance two of 50 places agree about once in 1,000 (of the smaller size).
    assert (places(order, start, 50) == first).sum() <= 1
  assert (places(EpochOrder(size, seed=1, name='a'), 0, 50) == first).all()


@pytest.mark.parametrize('size', [50_000, 1_000_000, 3_310_000, 10_900_000])
@pytest.mark.parametrize('seed', [0, 1])
def test_what_comes_in_a_row_is_spread_as_by_chance(size, seed, measured):
  """Chi-squared of 100 bins; chance stays below 161 in 9,999 of 10,000 cases."""
  found = places(EpochOrder(size, seed=seed, name='task'), 0, 10_000)
  counts = np.histogram(found, bins=100, range=(0, size))[0]
  measured(
    f'shuffle of {size:,}, chi-squared of 100 bins, seed {seed}',
    float(((counts - 100.0) ** 2 / 100).sum()),
    limit=161,
  )
  # Neighbours are no nearer each other than two places at random, size / 3 apart.
  assert 0.31 < np.abs(np.diff(found)).mean() / size < 0.36


def test_threads_agree():
  order = EpochOrder(1000, seed=3, name='task')
  expected = places(EpochOrder(1000, seed=3, name='task'), 0, 20_000)
  results = {}

  def read(start):
    results[start] = [order(n) for n in range(start, 20_000, 4)]

  threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for start, found in results.items():
    assert found == list(expected[start::4])
