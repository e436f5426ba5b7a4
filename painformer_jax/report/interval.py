"""How far an accuracy can be trusted."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """A 95 % interval of an accuracy.

  Attributes:
    low, high: its ends, in [0, 1].
    count: how many independent images it is worth, at most as many as there are.
  """

  low: float
  high: float
  count: float


def accuracy_interval(correct: np.ndarray, label: np.ndarray) -> Interval:
  """Wilson's interval for as many images as there are independent ones.

  Args:
    correct: [n] bool, in the order the images are stored.
    label: [n] int.
  """
  count = effective_count(correct, label)
  return wilson(float(correct.mean()), count)


def effective_count(correct: np.ndarray, label: np.ndarray) -> float:
  """How many independent images n neighbouring ones are worth, at most n.

  Windows of one recording, or channels of one moment, are right or wrong
  together; twenty of them say little more than one. The variance of the mean is
  estimated from the correlation of neighbours, with Bartlett's weights up to a
  distance of 2 sqrt(n) (Newey and West, Econometrica 1987), after each class's
  own accuracy is taken out: the classes' sizes are chosen, not drawn.
  """
  n = len(correct)
  _, inverse = np.unique(label, return_inverse=True)
  share = np.bincount(inverse, weights=correct) / np.bincount(inverse)
  rest = correct - share[inverse]
  variance = float(rest @ rest)
  if variance == 0:
    return n
  reach = min(n - 1, math.ceil(2 * math.sqrt(n)))
  inflation = 1 + 2 * sum(
    (1 - k / (reach + 1)) * float(rest[k:] @ rest[:-k]) / variance for k in range(1, reach + 1)
  )
  return n / max(inflation, 1.0)


def wilson(share: float, count: float, *, z: float = 1.959964) -> Interval:
  """Wilson's score interval of a share; z = 1.96 is 95 %.

  Unlike the normal approximation it stays in [0, 1] and is right for shares
  near the ends (Wilson, JASA 1927).
  """
  z2 = z * z
  middle = (share + z2 / (2 * count)) / (1 + z2 / count)
  half = z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
  return Interval(low=max(0.0, middle - half), high=min(1.0, middle + half), count=count)
