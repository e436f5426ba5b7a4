"""Filtering of ECG, EMG and skin conductance, by NeuroKit2.

How the paper's signals were cleaned is not public, so nothing is cleaned unless
asked for.
"""

import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.modalities.resampling import fill_gaps

# Modality -> function of neurokit2, what it does with its default method, and the
# rate in Hz that its filter needs.
METHODS = {
  'ecg': ('ecg_clean', 'high-pass 0.5 Hz, 50 Hz mains removed', 100.0),
  'emg': ('emg_clean', 'high-pass 100 Hz, straight line removed', 200.0),
  'gsr': ('eda_clean', 'low-pass 3 Hz', 7.0),
}


def clean(signal: np.ndarray, rate: float, *, modality: str) -> np.ndarray:
  """Cleans a whole recording; windows cut from it then have no filter edges.

  Args:
    signal: real [n]; gaps are bridged.
    rate: samples a second, Hz.
    modality: a key of `METHODS`.

  Returns:
    float64 [n].

  Raises:
    InputError: the package neurokit2 is not installed, the modality has no
      method, the rate is too low for it or the signal too short.
  """
  if modality not in METHODS:
    raise InputError(f'there is cleaning for {", ".join(METHODS)}, not for {modality}')
  name, what, least = METHODS[modality]
  # Whole rates are what neurokit2 knows; a hundredth of one bends no filter.
  whole = round(rate)
  if whole <= least:
    raise InputError(
      f'{modality} at {rate:g} Hz cannot be cleaned ({what}): that takes more than {least:g} Hz'
    )
  values = fill_gaps(signal)
  neurokit = import_extra('neurokit2', extra='signals')
  try:
    cleaned = getattr(neurokit, name)(values, sampling_rate=whole)
  except ValueError as error:  # scipy's, of signals shorter than the filter
    raise InputError(f'{len(values)} samples of {modality} cannot be cleaned: {error}') from error
  return np.asarray(cleaned, np.float64)
