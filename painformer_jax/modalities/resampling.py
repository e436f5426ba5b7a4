"""Signals without gaps, and at another sampling rate."""

from fractions import Fraction

import numpy as np
import scipy.signal

from painformer_jax.core.errors import InputError


def fill_gaps(signal: np.ndarray) -> np.ndarray:
  """A signal with its gaps bridged, as float64.

  NaN and infinite samples are interpolated linearly between the nearest finite
  ones; before the first and after the last finite sample its value is held.

  Args:
    signal: real [n].

  Returns:
    float64 [n], finite.

  Raises:
    InputError: not one-dimensional, or without a single finite sample.
  """
  values = np.asarray(signal)
  if values.ndim != 1 or values.dtype.kind not in 'fiub':
    raise InputError(
      f'a signal must be one-dimensional and real, not {values.dtype} {list(values.shape)}'
    )
  values = values.astype(np.float64)
  finite = np.isfinite(values)
  if not finite.any():
    raise InputError(f'a signal of {len(values)} samples has not one finite value')
  if finite.all():
    return values
  places = np.arange(len(values))
  return np.interp(places, places[finite], values[finite])


def resample(signal: np.ndarray, rate: float, *, to: float) -> np.ndarray:
  """Polyphase resampling of a signal from one rate to another, both in Hz.

  Images and aliases are 90 dB down but for the last tenth of the band; the
  filter reaches 32 samples of the slower rate to either side.

  Args:
    signal: real [n]; gaps are bridged first (`fill_gaps`).

  Returns:
    float64 [about n * to / rate].

  Raises:
    InputError: no finite sample, or rates that are not positive.
  """
  if not (rate > 0 and to > 0):
    raise InputError(f'sampling rates must be positive: {rate}, {to} Hz')
  values = fill_gaps(signal)
  ratio = Fraction(to / rate).limit_denominator(10_000)
  if ratio == 1:
    return values
  # scipy's own filter lets 0.07 % of an offset through as a tone, which in
  # slow signals on a large offset is more than the signal.
  factor = max(ratio.numerator, ratio.denominator)
  taps = scipy.signal.firwin(64 * factor + 1, 1 / factor, window=('kaiser', 9.0))
  return scipy.signal.resample_poly(
    values, ratio.numerator, ratio.denominator, window=taps, padtype='mean'
  )
