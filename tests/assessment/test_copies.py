"""Copies of signals and clips are found in whatever form, and what looks alike is none."""

import numpy as np
import pytest
from scipy import interpolate, signal

from painformer_jax.assessment.datasets.clip_matches import ClipMatches
from painformer_jax.assessment.datasets.signal_matches import SignalMatches

N, RATE = 2816, 512
T = np.arange(N) / RATE


def digits(values: np.ndarray, form: str) -> np.ndarray:
  return np.array([float(form % v) for v in values])


def ecg(seed: int, *, noise: float = 0.01) -> np.ndarray:
  """Beats of one form; the first of all recordings is at the same time."""
  rng = np.random.default_rng([seed, 0])
  values, beat = noise * rng.normal(size=N), 0.2
  while beat < 6:
    for delay, height, width in ((0, 1, 0.011), (0.03, -0.2, 0.01), (0.27, 0.3, 0.045)):
      values += height * np.exp(-0.5 * ((T - beat - delay) / width) ** 2)
    beat += 0.8 + 0.01 * rng.normal()
  return digits(values, '%.6g')


def gsr(seed: int, *, noise: float = 5e-4) -> np.ndarray:
  """A slow response on a falling tail."""
  rng = np.random.default_rng([seed, 1])
  rise = 1 / (1 + np.exp(-(T - rng.uniform(2, 3)) / 0.35))
  return digits(5 + rng.lognormal() * rise - T / 6 + noise * rng.normal(size=N), '%.6g')


def emg(seed: int) -> np.ndarray:
  return digits(3 * np.random.default_rng([seed, 2]).normal(size=N), '%.6g')


MAKERS = {'ecg': ecg, 'gsr': gsr, 'emg': emg}
CHANGES = {
  'unit': lambda v: digits(v * 1000, '%.6g'),
  'offset and sign': lambda v: 1 - 2 * v,
  'standardised': lambda v: (v - v.mean()) / v.std(),
  'detrended': lambda v: v - np.polyval(np.polyfit(T, v, 1), T),
  'four digits': lambda v: digits(v, '%.4g'),
  'three decimals': lambda v: np.round(v, 3),
  'noise': lambda v: v + 1e-3 * np.random.default_rng(777).normal(size=N),
  'reversed': lambda v: v[::-1],
  'half the rate': lambda v: np.repeat(v[::2], 2),
  'interpolated': lambda v: np.interp(T, T[::2], v[::2]),
  'another tenth': lambda v: np.concatenate([v[:282] * 1.1, v[282:]]),
  'cut': lambda v: v[:1500],
  'with gaps': lambda v: np.where((T > 1) & (T < 1.2), np.nan, v),
}


def pairs(signals: dict) -> set:
  matches = SignalMatches()
  for (kind, *name), values in signals.items():
    matches.add((kind, *name), values, kind=kind)
  return set(matches.pairs())


@pytest.mark.parametrize('change', CHANGES)
def test_changed_copies_are_found_and_nothing_else(change):
  signals = {(kind, n): make(n) for kind, make in MAKERS.items() for n in range(5)}
  copies = {(kind, 'copy'): CHANGES[change](signals[kind, 2]) for kind in MAKERS}
  assert pairs(signals | copies) == {((kind, 2), (kind, 'copy')) for kind in MAKERS}


def test_shifted_copies_and_those_in_another_column():
  signals = {(kind, n): MAKERS[kind](n) for kind in ('ecg', 'emg') for n in range(5)}
  later = {
    (k, 'later'): np.concatenate([MAKERS[k](9)[:500], signals[k, 1][:-500]])
    for k in MAKERS
    if k != 'gsr'
  }
  other = {('gsr', 'other'): signals['emg', 3] * 1e-3}
  assert pairs(signals | later | other) == {
    (('ecg', 1), ('ecg', 'later')),
    (('emg', 1), ('emg', 'later')),
    (('emg', 3), ('gsr', 'other')),
  }


def test_what_looks_alike_is_no_copy():
  """Beats of one form, responses of one form, ramps, the mains, values held for long."""
  mains = np.sin(2 * np.pi * 50 * T)
  signals = {}
  for n in range(40):
    rng = np.random.default_rng(n)
    ramp = 5 + rng.uniform(0.05, 0.3) * T
    signals |= {
      ('ecg', n): ecg(n, noise=0.002),
      ('ecg', n, 'mains'): ecg(n + 100) + 0.2 * mains,
      ('gsr', n): gsr(n, noise=1e-5),
      ('gsr', n, 'ramp'): np.round(ramp, 3),
      ('gsr', n, 'coarse'): np.round(ramp + 0.05 * rng.normal() * T**2, 2),
      ('gsr', n, 'slow'): np.repeat(np.round(5 + rng.normal(size=22).cumsum() / 50, 3), 128),
      ('spo2', n): np.repeat(rng.integers(96, 99, 10), 281).astype(float),
    }
  assert pairs(signals) == set()


@pytest.mark.parametrize(
  'fill_up',
  [
    lambda v: signal.resample(v, N),
    lambda v: signal.resample_poly(v, N, len(v)),
    lambda v: interpolate.CubicSpline(np.arange(len(v)), v)(np.linspace(0, len(v) - 1, N)),
    lambda v: np.interp(np.linspace(0, len(v) - 1, N), np.arange(len(v)), v),
  ],
  ids=['fourier', 'filter', 'cubic', 'linear'],
)
@pytest.mark.parametrize('noise', [0, 0.002])
def test_what_filters_leave_in_signals_of_a_lower_rate_is_no_copy(fill_up, noise):
  """Skin conductance of 32 Hz, filled up to 512: its fast bands hold edges alone."""
  signals = {}
  for n in range(40):
    rng = np.random.default_rng(n)
    # Each falls in its own way: of one slope, even the rounding would be the same.
    values = gsr(n, noise=0)[::16] + rng.uniform(-0.1, 0.1) * T[::16]
    values = values + noise * rng.normal(size=len(values))
    signals['gsr', n] = fill_up(np.round(values, 4))
  assert pairs(signals) == set()


def test_coarse_signals_match_by_their_steps():
  rng = np.random.default_rng(0)
  coarse = [
    np.round(5 + np.interp(T, np.linspace(0, 6, 8), rng.normal(size=8) / 15), 2) for _ in range(6)
  ]
  signals = {('gsr', n): values for n, values in enumerate(coarse)}
  assert pairs(signals) == set()
  signals |= {('gsr', 'copy'): coarse[2].copy(), ('gsr', 'unit'): coarse[4] * 1000 - 3}
  assert pairs(signals) == {(('gsr', 2), ('gsr', 'copy')), (('gsr', 4), ('gsr', 'unit'))}


def face(seed: int, frames: int = 60) -> np.ndarray:
  """Thumbnails of a still background with something that moves a little before it."""
  rng = np.random.default_rng(seed)
  still = np.random.default_rng(99).uniform(40, 200, 64)
  return still + 2 * rng.normal(size=(frames, 4)).cumsum(axis=0) / 4 @ np.eye(64)[20:24]


def test_clips_match_by_what_moves():
  clips = {n: face(n) for n in range(12)}
  clips['anew'] = clips[3] + 0.2 * np.random.default_rng(0).normal(size=clips[3].shape)
  clips['short'] = clips[5][:40]
  clips['brighter'] = clips[7] * 0.9 + 5
  clips['still'] = np.tile(clips[0][:1], (60, 1))
  clips['as still'] = clips['still'] + 0.3
  matches = ClipMatches()
  for name, thumbnails in clips.items():
    matches.add(name, thumbnails)
  assert set(matches.pairs()) == {(3, 'anew'), (5, 'short'), (7, 'brighter')}
