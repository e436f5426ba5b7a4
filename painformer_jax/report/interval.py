"""How far an accuracy can be trusted: 95 % intervals by the effective sample size."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccuracyInterval:
  """A 95 % interval of an accuracy.

  Attributes:
    low, high: its ends, in [0, 1].
    n_eff: effective sample size, at most the number of images.
  """

  low: float
  high: float
  n_eff: float


def accuracy_interval(correct: np.ndarray, label: np.ndarray) -> AccuracyInterval:
  """Wilson's interval, by the effective sample size.

  Args:
    correct: [n] bool, in the order the images are stored.
    label: [n] int.
  """
  return wilson(float(correct.mean()), effective_sample_size(correct, label))


def effective_sample_size(correct: np.ndarray, label: np.ndarray) -> float:
  """How many independent images tell as much as these n neighbouring ones, at most n.

  Windows of one recording, or channels of one moment, are right or wrong
  together; twenty of them say little more than one. The variance of the mean is
  estimated from the correlation of neighbours, with Bartlett's weights up to a
  distance of 2 sqrt(n) (Newey and West, Econometrica 1987), after each class's
  own accuracy is subtracted: the sizes of the classes are chosen, not random.

  Args:
    correct: [n] bool, in the order the images are stored.
    label: [n] int.
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


Z = 1.959964  # Of a 95 % interval.


def wilson(share: float, n_eff: float) -> AccuracyInterval:
  """Wilson's score interval of a share, at 95 %.

  Unlike the normal approximation it stays in [0, 1] and is right for shares
  near the ends (Wilson, JASA 1927).
  """
  z2 = Z * Z
  middle = (share + z2 / (2 * n_eff)) / (1 + z2 / n_eff)
  half = Z / (1 + z2 / n_eff) * math.sqrt(share * (1 - share) / n_eff + z2 / (4 * n_eff * n_eff))
  return AccuracyInterval(low=max(0.0, middle - half), high=min(1.0, middle + half), n_eff=n_eff)
