"""Seeds of their own for each use of a run's seed, generators for each number."""

import hashlib
import threading

import numpy as np


def derived_seed(seed: int, *names: str) -> int:
  """32 bits that depend on the seed and on what they are for, and seem unrelated."""
  digest = hashlib.blake2b('/'.join([str(seed), *names]).encode(), digest_size=4)
  return int.from_bytes(digest.digest())


class Numbered:
  """`generator(n)`: random numbers that depend on the seed and on n alone.

  They are those of Grain's `random_map` with this seed, at a fraction of its calls.
  Every thread has one generator, which is set to the number when it is asked for: use
  up what it is to draw before asking for the next.

  Args:
    seed: 0 or above.
  """

  def __init__(self, seed: int):
    self._seed, self._own = seed, threading.local()

  def generator(self, number: int) -> np.random.Generator:
    """The generator of a number, 0 or above, below 2**64."""
    own = self._own
    if not hasattr(own, 'generator'):
      own.generator = np.random.Generator(np.random.Philox(self._seed))
      own.state = own.generator.bit_generator.state
    # Philox encrypts a counter: any place of its sequence is as near as the first.
    own.state['state']['counter'][:] = 0, 0, 0, number
    own.generator.bit_generator.state = own.state
    return own.generator
