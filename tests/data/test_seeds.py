"""Generators by number."""

import threading

import grain
import pytest

from painformer_jax.data.seeds import NumberedGenerators


def draws(rng):
  # An odd number of half words last: something of them is left over.
  return (
    rng.random(3).tolist(),
    rng.normal(),
    rng.integers(0, 256, 5, 'uint8').tolist(),
    int(rng.integers(0, 7, dtype='int32')),
  )


@pytest.mark.parametrize('seed', [0, 77, 2**32 - 1])
def test_they_are_those_of_grain(seed):
  """Else a run that was begun with another release would go on with other images."""
  wanted = grain.MapDataset.range(2**46).random_map(lambda _, rng: draws(rng), seed=seed)
  numbered = NumberedGenerators(seed)
  for number in (0, 1, 5, 2**31, 3, 2**45 + 7, 3):
    assert draws(numbered.generator(number)) == wanted[number]


def test_threads_do_not_disturb_one_another():
  numbered = NumberedGenerators(1)
  alone = numbered.generator(3).random(2).tolist()
  own = numbered.generator(3)
  first = own.random()
  thread = threading.Thread(target=lambda: numbered.generator(4).random(100))
  thread.start()
  thread.join()
  assert [first, own.random()] == alone
