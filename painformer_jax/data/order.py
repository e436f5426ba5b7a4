"""In which order a task's images are gone through, epoch after epoch."""

import functools

import numpy as np
from grain.experimental import index_shuffle

from painformer_jax.data.seeds import derived_seed

# Up to here an epoch's order is drawn and kept, beyond it is computed place by place.
MAX_KEPT = 2**16
# Of the cipher that computes it. Grain's own shuffle has 4, with which the first 10,000
# of ten million places favour some tenths of the data (chi-squared of 100 bins about 300,
# where chance gives 99 +- 14); 6 and more do not.
ROUNDS = 8


class EpochOrder:
  """`order(n)`: which record is the n-th of a stream without end.

  Every epoch is a permutation of all records, another one each time; any place costs
  the same. Safe to call from many threads.

  Args:
    size: number of records.
    seed: of all epochs.
    name: distinguishes streams of one seed.
  """

  def __init__(self, size: int, *, seed: int, name: str):
    self._size, self._seed, self._name = size, seed, name
    # Threads read ahead of one another, seldom by more than an epoch.
    self._kept = functools.lru_cache(maxsize=4)(self._draw)

  def __call__(self, place: int) -> int:
    epoch, within = divmod(int(place), self._size)
    if self._size <= MAX_KEPT:
      return int(self._kept(epoch)[within])
    seed = derived_seed(self._seed, self._name, 'order', str(epoch))
    # Where the largest index is a power of two, Grain 0.2.16's cipher leaves it out and
    # gives another one twice: a domain larger by one is walked through instead.
    last = self._size - 1
    last += (last & (last - 1)) == 0
    while True:
      within = index_shuffle(within, max_index=last, rounds=ROUNDS, seed=seed)
      if within < self._size:
        return within

  def _draw(self, epoch: int) -> np.ndarray:
    seed = derived_seed(self._seed, self._name, 'order', str(epoch))
    return np.random.default_rng(seed).permutation(self._size).astype(np.uint32)
