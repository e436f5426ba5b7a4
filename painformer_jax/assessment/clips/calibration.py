"""Temperature scaling (Guo et al. 2017): probabilities that are as right as they say."""

import numpy as np
import scipy.optimize
import scipy.special

# Smallest and largest temperature.
_BOUNDS = 0.05, 20.0


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
  """Softmax of logits divided by the temperature; float [..., classes] both."""
  return scipy.special.softmax(logits / temperature, axis=-1)


def logits_of(probability: np.ndarray) -> np.ndarray:
  """Logits whose softmax is `probability`, float [..., classes]; finite also for zeros."""
  return np.log(np.maximum(probability, 1e-12))


def fit_temperature(label: np.ndarray, probability: np.ndarray) -> float:
  """The temperature with the least log loss on samples that were not trained on.

  Args:
    label: int [n].
    probability: float [n, classes], not calibrated.

  Returns:
    Between 0.05 and 20; above 1 where the probabilities were overconfident.
  """
  logits = logits_of(probability)

  def loss(log_temperature: float) -> float:
    scaled = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return -scaled[np.arange(len(label)), label].mean()

  found = scipy.optimize.minimize_scalar(loss, bounds=np.log(_BOUNDS), method='bounded')
  return float(np.exp(found.x))
