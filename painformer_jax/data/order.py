"""The order of a task's images: another permutation of them each epoch."""

import functools

import numpy as np
from grain.experimental import index_shuffle

from painformer_jax.data.seeds import derived_seed

# Up to this size an epoch's permutation is made at once and kept; beyond, each index is
# computed when it is asked for.
MAX_KEPT = 2**16
# Of the cipher that computes an index. Grain's own shuffle has 4 rounds, with which the
# first 10,000 indices of ten million prefer some tenths of the data (chi-squared of 100
# bins about 300, where chance gives 99 +- 14); 6 and more do not.
ROUNDS = 8


class EpochOrder:
  """`order(n)`: index of the record that is the n-th of a stream without end.

  Every epoch is a permutation of all records, another one each time. Every n takes the
  same time. Safe to call from threads.

  Args:
    size: number of records.
    seed: of all epochs.
    name: gives streams of one seed different orders.
  """

  def __init__(self, size: int, *, seed: int, name: str):
    self._size, self._seed, self._name = size, seed, name
    # Threads are seldom more than an epoch apart.
    self._kept = functools.lru_cache(maxsize=4)(self._permutation)

  def __call__(self, n: int) -> int:
    epoch, within = divmod(int(n), self._size)
    if self._size <= MAX_KEPT:
      return int(self._kept(epoch)[within])
    seed = derived_seed(self._seed, self._name, 'order', str(epoch))
    # Where the largest index is a power of two, Grain 0.2.16's cipher never gives it and
    # gives another one twice. A domain larger by one is right; indices beyond the last
    # record are mapped again until they are below it.
    last = self._size - 1
    last += (last & (last - 1)) == 0
    while True:
      within = index_shuffle(within, max_index=last, rounds=ROUNDS, seed=seed)
      if within < self._size:
        return within

  def _permutation(self, epoch: int) -> np.ndarray:
    seed = derived_seed(self._seed, self._name, 'order', str(epoch))
    return np.random.default_rng(seed).permutation(self._size).astype(np.uint32)
