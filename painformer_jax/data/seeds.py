"""Derives seeds for each use from a run's seed, and random generators for each element."""

import hashlib
import threading

import numpy as np


def derived_seed(seed: int, *names: str) -> int:
  """A 32-bit seed for a use of `seed`; seeds of other uses are statistically independent.

  Args:
    seed: of the run.
    names: what the seed is for.
  """
  digest = hashlib.blake2b('/'.join([str(seed), *names]).encode(), digest_size=4)
  return int.from_bytes(digest.digest())


class NumberedGenerators:
  """`generator(n)`: a random generator whose numbers depend on the seed and on n alone.

  The numbers are those of Grain's `random_map` with this seed. Every thread has one
  generator object, which each call sets to the start of sequence n: draw all that is
  needed from it before the next call.

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
    # Philox encrypts a counter, so that any sequence can be started at once.
    own.state['state']['counter'][:] = 0, 0, 0, number
    own.generator.bit_generator.state = own.state
    return own.generator
