"""Functional near-infrared spectroscopy: light intensity to haemoglobin.

The paper draws each channel of an fNIRS window as one waveform image: the
haemoglobin series that come out here go to `waveform.waveform_image`. How the
paper's recordings were converted and filtered is not public; the constants
below are the customary ones, as in MNE-Python and Homer3. `snirf` reads files.
"""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from painformer_jax.core.errors import InputError

# Molar extinction in 1/(cm M), decadic: nm -> (oxygenated, deoxygenated), as
# compiled by S. Prahl, https://omlc.org/spectra/hemoglobin/summary.html, the
# table that MNE-Python and Homer3 use.
EXTINCTION = {
  690: (276.0, 2051.96),
  730: (390.0, 1102.2),
  760: (586.0, 1548.52),
  780: (710.0, 1075.44),
  808: (856.0, 723.52),
  830: (974.0, 693.04),
  850: (1058.0, 691.32),
}


def optical_density(intensity: np.ndarray) -> np.ndarray:
  """Change of optical density against the mean of each series over time.

  Args:
    intensity: positive real [n, ...], time first.

  Returns:
    float64 [n, ...], natural logarithm.

  Raises:
    InputError: intensities that are not positive and finite.
  """
  values = np.asarray(intensity, np.float64)
  if values.size == 0 or not np.all(np.isfinite(values) & (values > 0)):
    raise InputError(
      'fNIRS intensities must be positive and finite; leave out saturated or unplugged channels'
    )
  return -np.log(values / values.mean(axis=0))


def haemoglobin(
  density: np.ndarray,
  *,
  wavelengths: Sequence[int],
  distance: np.ndarray,
  pathlength_factor: float = 6.0,
) -> np.ndarray:
  """Haemoglobin changes by the modified Beer-Lambert law.

  Solves density(wavelength) = ln(10) * distance * pathlength_factor *
  sum over both species of extinction * concentration.

  Args:
    density: float [n, channels, 2], change of optical density (natural
      logarithm) at the two wavelengths.
    wavelengths: the two, in nm, rows of `EXTINCTION`.
    distance: float [channels], between source and detector, in cm.
    pathlength_factor: how many times longer than `distance` the light's way
      is; 6 is MNE-Python's default.

  Returns:
    float64 [n, channels, 2]: oxygenated, then deoxygenated haemoglobin, in
    micromolar.

  Raises:
    InputError: unknown wavelengths, shapes that do not agree, distances that
      are not positive.
  """
  unknown = [w for w in wavelengths if w not in EXTINCTION]
  if len(wavelengths) != 2 or unknown:
    raise InputError(
      f'fNIRS wavelengths must be two of {", ".join(map(str, EXTINCTION))} nm, not {wavelengths}'
    )
  distance = np.asarray(distance, np.float64)
  if density.ndim != 3 or density.shape[1:] != (len(distance), 2):
    raise InputError(
      f'fNIRS densities must be [n, channels, 2] with '
      f'{len(distance)} channels, not {list(density.shape)}'
    )
  if not np.all(distance > 0):
    raise InputError('fNIRS source-detector distances must be positive')
  extinction = np.log(10) * np.array([EXTINCTION[w] for w in wavelengths])
  path = distance[:, None] * pathlength_factor
  return 1e6 * (density / path) @ np.linalg.inv(extinction).T


def band_pass(signal: np.ndarray, rate: float, *, low: float, high: float) -> np.ndarray:
  """Zero-phase Butterworth band-pass along the first axis.

  Third order, run forwards and backwards.

  Args:
    signal: float [n, ...].
    rate: in Hz.
    low, high: edges of the band in Hz, 0 < low < high < rate / 2.

  Raises:
    InputError: a band outside (0, rate / 2), or too few samples to filter.
  """
  if not 0 < low < high < rate / 2:
    raise InputError(f'the band {low}-{high} Hz does not fit into 0-{rate / 2:g} Hz')
  sections = scipy.signal.butter(3, (low, high), 'bandpass', fs=rate, output='sos')
  needed = 3 * (2 * len(sections) + 1)
  if len(signal) <= needed:
    raise InputError(
      f'{len(signal)} samples are too few to filter; at least {needed + 1} are needed'
    )
  return scipy.signal.sosfiltfilt(sections, signal, axis=0)


def scalp_coupling(density: np.ndarray, rate: float) -> np.ndarray:
  """How well each channel's optodes touch the scalp, in [-1, 1].

  The scalp coupling index of Pollonini et al. 2014: the correlation of the two
  wavelengths in the band of the heartbeat (0.7-1.5 Hz, as in MNE-Python). Good
  channels are near 1; below 0.75 or so they are usually left out. 0 where a
  wavelength is flat.

  Args:
    density: float [n, channels, 2].
    rate: in Hz, above 3.

  Returns:
    float64 [channels].
  """
  beat = band_pass(density, rate, low=0.7, high=1.5)
  beat = beat - beat.mean(axis=0)
  product = (beat[..., 0] * beat[..., 1]).sum(axis=0)
  norm = np.sqrt((beat**2).sum(axis=0).prod(axis=-1))
  return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)
