"""Synthetic skin conductance, ECG and EMG of one sample of a planted study.

Skin conductance shows the sample's hidden number a: a response of height
exp(SLOPE (a - effect / 2)) rises upon the falling tail of an earlier response of height 1,
both times the subject's own gain. So the form of the curve tells a, whatever its units
and offset. ECG and EMG have realistic shapes and do not depend on a.
"""

import math

import numpy as np

from painformer_jax.assessment.datasets.biovid import RATE, ROWS, SIGNALS

# Steep enough to stand out of noise, mild enough that images of subjects with a large
# shift still differ.
SLOPE = 0.3
# Seconds: when the response begins, and by how much that varies to either side; how fast
# skin conductance rises and falls; how long before the window the earlier response began.
ONSET, JITTER = 1.8, 0.1
RISE, FALL = 0.7, 2.2
TAIL_BEFORE = 1.2
# Standard deviation of the noise, in units of the tail's height.
_FLOOR = 0.004

TIME = np.arange(ROWS) / RATE


def signals(
  amplitude: float,
  rng: np.random.Generator,
  *,
  gain: float = 1.0,
  heart_rate: float = 70.0,
  effect: float = 2.0,
) -> dict[str, np.ndarray]:
  """The signals of one sample.

  Args:
    amplitude: the hidden number a.
    rng: source of all randomness.
    gain: of the subject's skin conductance, microsiemens.
    heart_rate: beats per minute.
    effect: of the plan; it centres the heights, see the module.

  Returns:
    Names of `biovid.SIGNALS` -> float64 [2816]: microsiemens, then millivolts of
    ECG, microvolts of EMG.
  """
  height = math.exp(SLOPE * (amplitude - effect / 2))
  onset = ONSET + rng.uniform(-JITTER, JITTER)
  conductance = response(TIME + TAIL_BEFORE) + height * response(TIME - onset)
  conductance = conductance + _FLOOR * _smooth_noise(rng)
  return {
    'gsr': 2 + gain * (conductance + 1),
    'ecg': _ecg(rng, heart_rate),
    **{name: _emg(rng, level) for name, level in zip(SIGNALS[2:], (6.0, 3.0, 2.5))},
  }


def response(seconds: np.ndarray) -> np.ndarray:
  """A skin conductance response of height 1 that begins at 0 s.

  The difference of two exponentials (Bateman's curve): it rises in a second or two and
  falls slowly, as in Alexander et al. 2005.

  Args:
    seconds: float [n], times.

  Returns:
    float64 [n], 0 before 0 s.
  """
  t = np.maximum(seconds, 0)
  peak = math.log(FALL / RISE) * RISE * FALL / (FALL - RISE)
  return (np.exp(-t / FALL) - np.exp(-t / RISE)) / (math.exp(-peak / FALL) - math.exp(-peak / RISE))


def _smooth_noise(rng: np.random.Generator) -> np.ndarray:
  """Noise below 2 Hz with a standard deviation of about 1, as in filtered conductance."""
  knots = rng.normal(size=14)
  return np.interp(TIME, np.linspace(0, TIME[-1], len(knots)), knots)


def _ecg(rng: np.random.Generator, heart_rate: float) -> np.ndarray:
  """P, Q, R, S and T waves as Gaussian bells at slightly uneven intervals; millivolts."""
  signal = 0.01 * rng.normal(size=ROWS)
  beat = -rng.uniform(0, 60 / heart_rate)
  while beat < TIME[-1] + 1:
    for delay, height, width in (
      (-0.17, 0.12, 0.022),
      (-0.026, -0.1, 0.008),
      (0, 1, 0.011),
      (0.028, -0.22, 0.01),
      (0.27, 0.28, 0.045),
    ):
      signal += height * np.exp(-0.5 * ((TIME - beat - delay) / width) ** 2)
    beat += 60 / heart_rate * (1 + 0.04 * rng.normal())
  return signal + 0.03 * np.sin(2 * np.pi * (0.25 * TIME + rng.uniform()))


def _emg(rng: np.random.Generator, level: float) -> np.ndarray:
  """Noise whose strength swells in a few bursts; microvolts."""
  strength = np.ones(ROWS)
  for _ in range(rng.poisson(1.5)):
    middle, width = rng.uniform(0, TIME[-1]), rng.uniform(0.1, 0.5)
    strength += rng.uniform(1, 5) * np.exp(-0.5 * ((TIME - middle) / width) ** 2)
  return level * strength * rng.normal(size=ROWS)
