"""Signals as images, and light as haemoglobin, against other libraries."""

import cv2
import matplotlib
import matplotlib.mlab
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import fnirs
from painformer_jax.modalities.colormap import viridis
from painformer_jax.modalities.resampling import fill_gaps, resample
from painformer_jax.modalities.spectrogram import (
  SPECTROGRAM_KINDS,
  SpectrogramConfig,
  spectrogram,
  spectrogram_image,
)
from painformer_jax.modalities.waveform import (
  WaveformConfig,
  stacked_waveform_image,
  waveform_image,
)

SMALL = WaveformConfig(height=101, width=80, margin=0.1)


def noise(length, seed=0):
  return np.random.default_rng(seed).normal(size=length)


def ink(image):
  """Darkness of each pixel, 0 to 1."""
  assert image.dtype == np.uint8 and image.shape[-1] == 3
  assert (image == image[..., :1]).all()
  return 1 - image[..., 0] / 255.0


def centres(image):
  """Mean row of the ink in each column."""
  dark = ink(image)
  return (dark * np.arange(len(dark))[:, None]).sum(0) / dark.sum(0)


class TestWaveform:
  def test_ramp_runs_from_corner_to_corner_of_the_margins(self):
    image = waveform_image(np.arange(50.0), SMALL)
    assert image.shape == (101, 80, 3)
    rows = centres(image)
    # Rows 90 and 10 are the margins of 0.1 in 101 rows.
    np.testing.assert_allclose(rows, np.linspace(90, 10, 80), atol=0.6)

  def test_line_is_black_on_white_and_antialiased(self):
    image = waveform_image(np.sin(np.linspace(0, 7, 400)), SMALL)[..., 0]
    assert image.min() < 50 and image.max() == 255
    assert ((image > 30) & (image < 225)).sum() > 50
    assert (image[:9] == 255).all() and (image[-9:] == 255).all()

  def test_first_and_last_sample_lie_in_the_outer_columns(self):
    impulse = np.zeros(1000)
    impulse[0] = 1
    impulse[-1] = -1
    dark = ink(waveform_image(impulse, SMALL))
    assert dark[10, 0] > 0.5 and dark[90, -1] > 0.5

  def test_thickness(self):
    def darkness(thickness):
      config = WaveformConfig(height=60, width=60, thickness=thickness)
      return ink(waveform_image(np.arange(5.0), config)).sum()

    assert darkness(3) > 1.8 * darkness(1)

  @pytest.mark.parametrize(
    'signal', [np.full(300, 7.5), [4], np.zeros(2), [np.nan, 3.0, np.inf], np.full(9, 1e308)]
  )
  def test_flat_is_a_line_at_half_height(self, signal):
    dark = ink(waveform_image(np.asarray(signal), SMALL))
    # The line's own pixels, less dark where it ends.
    assert dark[50].min() > 0.5 and dark[50].mean() > 0.75
    assert dark[:48].sum() == 0 and dark[53:].sum() == 0

  @settings(max_examples=30, deadline=None)
  @given(st.floats(1e-6, 1e6), st.floats(-100, 100))
  def test_units_and_offset_do_not_matter(self, gain, offset):
    signal = noise(60)
    expected = waveform_image(signal, SMALL).astype(int)
    found = waveform_image(gain * (signal + offset), SMALL)
    # Rounding may move the line by a sixteenth of a pixel.
    assert np.abs(found - expected).mean() < 0.5

  def test_integers_are_drawn_like_floats(self):
    signal = np.array([3, 60000, 5, 200], np.uint16)
    np.testing.assert_array_equal(
      waveform_image(signal, SMALL), waveform_image(signal.astype(float), SMALL)
    )

  def test_largest_floats_do_not_overflow(self):
    image = waveform_image(np.array([1.7e308, -1.7e308]), SMALL)
    np.testing.assert_array_equal(image, waveform_image(np.array([1.0, -1.0]), SMALL))

  def test_gaps_are_bridged(self):
    signal = np.array([np.nan, 1, np.nan, np.nan, 4, -np.inf])
    np.testing.assert_array_equal(fill_gaps(signal), [1, 1, 2, 3, 4, 4])
    np.testing.assert_array_equal(
      waveform_image(signal, SMALL), waveform_image(np.array([1, 1, 2, 3, 4, 4.0]), SMALL)
    )

  @pytest.mark.parametrize(
    'signal, words',
    [
      ([], '0 samples'),
      ([np.nan] * 3, '3 samples'),
      ([[1.0, 2.0]], r'\[1, 2\]'),
      ([1j, 2], 'complex'),
      (['a'], 'real'),
    ],
  )
  def test_no_signal(self, signal, words):
    with pytest.raises(InputError, match=words):
      waveform_image(np.array(signal))

  @pytest.mark.parametrize(
    'field',
    [
      {'height': 0},
      {'width': -1},
      {'thickness': 0},
      {'margin': 0.5},
      {'margin': -0.1},
      {'margin': float('nan')},
    ],
  )
  def test_bad_config(self, field):
    with pytest.raises(InputError):
      WaveformConfig(**field)

  def test_stacked_panels_are_the_single_images(self):
    signals = np.stack([noise(90, seed) for seed in range(3)])
    image = stacked_waveform_image(signals, SMALL)
    assert image.shape == (101, 80, 3)
    for signal, first, last in zip(signals, (0, 33, 67), (33, 67, 101)):
      config = WaveformConfig(height=last - first, width=80, margin=0.1)
      np.testing.assert_array_equal(image[first:last], waveform_image(signal, config))

  @pytest.mark.parametrize('count', [0, 102])
  def test_stack_that_does_not_fit(self, count):
    with pytest.raises(InputError, match=f'stack {count} signals'):
      stacked_waveform_image(np.zeros((count, 5)), SMALL)


class TestSpectrogram:
  @pytest.mark.parametrize('kind', SPECTROGRAM_KINDS)
  @pytest.mark.parametrize('detrend', ['none', 'constant', 'linear'])
  @pytest.mark.parametrize('segment, overlap', [(256, 128), (64, 50), (101, 0)])
  def test_numbers_are_matplotlibs(self, kind, detrend, segment, overlap):
    signal = noise(2816) + np.linspace(5, 20, 2816)
    config = SpectrogramConfig(segment=segment, overlap=overlap, detrend=detrend, centre=False)
    found = spectrogram(signal, 512, config, kind=kind)
    expected, _, _ = matplotlib.mlab.specgram(
      signal,
      NFFT=segment,
      noverlap=overlap,
      Fs=512,
      mode=kind,
      detrend=detrend,
      window=np.hanning(segment),
    )
    if kind == 'psd':
      expected = 10 * np.log10(expected)
    if kind == 'phase':
      # Where a step is within rounding of pi, unwrapping may go either way.
      found, expected = np.exp(1j * found), np.exp(1j * expected)
    assert found.shape == expected.shape
    if kind != 'psd' and detrend != 'none':
      # Without its mean, the phase of 0 Hz is that of rounding errors.
      found, expected = found[1:], expected[1:]
    if kind == 'angle':
      found, expected = np.exp(1j * found), np.exp(1j * expected)
    np.testing.assert_allclose(found, expected, atol=1e-6)

  def test_defaults_are_matplotlibs(self):
    signal = noise(1000)
    expected, _, _ = matplotlib.mlab.specgram(signal, mode='phase')
    found = spectrogram(signal, 2, SpectrogramConfig(centre=False), kind='phase')
    np.testing.assert_allclose(found, expected, atol=1e-9)

  def test_phase_is_unwrapped_and_angle_is_not(self):
    signal = noise(1000)
    angle = spectrogram(signal, 100, kind='angle')
    phase = spectrogram(signal, 100, kind='phase')
    assert np.abs(angle).max() <= np.pi and np.abs(phase).max() > 2 * np.pi
    np.testing.assert_allclose(np.exp(1j * angle), np.exp(1j * phase), atol=1e-9)

  def test_low_frequencies_are_at_the_bottom(self):
    time = np.arange(2816) / 512
    config = SpectrogramConfig(height=128, width=64)
    for hertz in (20, 100, 230):
      image = spectrogram_image(np.sin(2 * np.pi * hertz * time), 512, config)
      bright = image.astype(int).sum((1, 2)).argmax()
      assert abs(bright - 127 * (1 - hertz / 256)) < 2

  def test_time_runs_to_the_right(self):
    signal = np.r_[np.zeros(1400), noise(1416)]
    image = spectrogram_image(signal, 512).astype(int)
    darkest = viridis(np.zeros((1, 1), np.uint8))[0, 0]
    assert (image[:, :60] == darkest).mean() > 0.95
    assert (image[:, -60:] == darkest).mean() < 0.05

  @pytest.mark.parametrize('kind', SPECTROGRAM_KINDS)
  def test_values_span_the_colours(self, kind):
    image = spectrogram_image(noise(2816), 512, kind=kind)
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8
    table = viridis(np.arange(256, dtype=np.uint8)[:, None])[:, 0].astype(int)
    apart = np.abs(image.reshape(-1, 1, 3)[::7] - table).sum(-1)
    # Nothing but colours of the table, nearly all of it.
    assert apart.min(1).max() == 0
    levels = apart.argmin(1)
    assert levels.min() < 30 and levels.max() > 225

  def test_image_is_the_scaled_decibels(self):
    signal = noise(2816)
    config = SpectrogramConfig(height=129, width=21, dynamic_range=20.0)
    decibels = spectrogram(signal, 512, config)[::-1]
    level = np.clip((decibels - decibels.max() + 20) / 20, 0, 1)
    expected = viridis(np.rint(level * 255).astype(np.uint8))
    assert (level == 0).any()
    np.testing.assert_array_equal(spectrogram_image(signal, 512, config), expected)

  def test_offset_does_not_outshine_the_signal(self):
    signal = noise(2816)
    np.testing.assert_allclose(
      spectrogram_image(signal + 1000, 512).astype(int), spectrogram_image(signal, 512), atol=1
    )

  @pytest.mark.parametrize('kind', SPECTROGRAM_KINDS)
  @pytest.mark.parametrize('signal', [np.zeros(300), np.full(300, 32768.0)])
  def test_flat_signal_is_dark(self, kind, signal):
    image = spectrogram_image(signal, 100, kind=kind)
    assert (image == viridis(np.zeros((1, 1), np.uint8))[0, 0]).all()

  def test_gaps_are_bridged(self):
    signal = noise(400)
    signal[7] = np.nan
    np.testing.assert_array_equal(
      spectrogram_image(signal, 100), spectrogram_image(fill_gaps(signal), 100)
    )

  @pytest.mark.parametrize(
    'call, words',
    [
      (lambda: spectrogram(noise(255), 512), '0.5 s; the signal has 0.498'),
      (lambda: spectrogram(noise(400), 512, kind='magnitude'), 'magnitude'),
      (lambda: spectrogram(noise(400), 0), 'rate'),
      (lambda: spectrogram(noise(400), float('nan')), 'rate'),
      (lambda: spectrogram(np.full(400, np.nan), 512), 'finite'),
      (lambda: SpectrogramConfig(overlap=256), 'overlap'),
      (lambda: SpectrogramConfig(segment=1, overlap=0), 'segment'),
      (lambda: SpectrogramConfig(detrend='mean'), 'detrend'),
      (lambda: SpectrogramConfig(dynamic_range=0), 'dynamic_range'),
      (lambda: SpectrogramConfig(height=0), 'height'),
    ],
  )
  def test_bad_input(self, call, words):
    with pytest.raises(InputError, match=words):
      call()


def test_viridis_is_matplotlibs_within_one_level():
  levels = np.arange(256, dtype=np.uint8)
  expected = matplotlib.colormaps['viridis'](levels, bytes=True)[:, :3]
  found = viridis(levels.reshape(16, 16)).reshape(256, 3)
  assert np.abs(found - expected.astype(int)).max() <= 1


class TestResample:
  @pytest.mark.parametrize('rate, to', [(1000, 512), (2048, 512), (100, 512)])
  def test_a_tone_stays_a_tone(self, rate, to):
    seconds = 4
    tone = lambda r: 32768 + np.sin(2 * np.pi * 7 * np.arange(seconds * r) / r)
    found = resample(tone(rate), rate, to=to)
    assert len(found) == seconds * to
    np.testing.assert_allclose(found[50:-50], tone(to)[50:-50], atol=2e-3)

  def test_same_rate_changes_nothing(self):
    signal = noise(100)
    np.testing.assert_array_equal(resample(signal, 10.17, to=10.17), signal)

  def test_what_the_new_rate_cannot_hold_is_removed(self):
    tone = np.sin(2 * np.pi * 400 * np.arange(4000) / 1000)
    assert np.abs(resample(tone, 1000, to=512)[100:-100]).max() < 0.01

  def test_bad_rate(self):
    with pytest.raises(InputError, match='-1'):
      resample(noise(9), -1, to=512)


class TestFnirs:
  steps = np.arange(200.0)
  light = np.stack(
    [0.02 * np.exp(0.05 * np.sin(0.3 * steps)), 0.05 * np.exp(-0.03 * np.cos(0.2 * steps))], -1
  )[:, None]

  def test_numbers_are_mnes(self):
    # MNE-Python 1.13.2, optical_density and beer_lambert_law(ppf=(6, 6)),
    # optodes 3.5 cm apart, samples 0, 7 and 50.
    density = fnirs.optical_density(self.light)
    np.testing.assert_allclose(
      density[[0, 7, 50], 0],
      [
        [0.0022726439335925405, 0.029540699984563566],
        [-0.04088782439885111, 0.004639714271570718],
        [-0.030241748074263292, -0.025631445887730073],
      ],
      rtol=1e-12,
    )
    found = fnirs.haemoglobin(density, wavelengths=(760, 850), distance=[3.5])
    # MNE writes ln(10) as 2.303.
    np.testing.assert_allclose(
      found[[0, 7, 50], 0],
      [
        [0.7406367243846078, -0.2499300907682093],
        [0.5943984544309301, -0.7708996713203704],
        [-0.31494588762961007, -0.2846261203388431],
      ],
      rtol=3e-4,
    )

  def test_known_concentrations_come_back(self):
    wanted = np.random.default_rng(0).normal(size=(30, 4, 2))  # micromolar
    distance = np.array([3.0, 3.5, 0.8, 4.0])
    extinction = np.array([fnirs.EXTINCTION[w] for w in (690, 830)])
    density = np.stack(
      [np.log(10) * 1e-6 * distance * 5 * (wanted * row).sum(-1) for row in extinction], -1
    )
    found = fnirs.haemoglobin(
      density, wavelengths=(690, 830), distance=distance, pathlength_factor=5
    )
    np.testing.assert_allclose(found, wanted, atol=1e-9)

  def test_more_oxygen_darkens_the_longer_wavelength(self):
    density = np.array([[[0.0, 0.1]]])
    oxygenated, deoxygenated = fnirs.haemoglobin(density, wavelengths=(760, 850), distance=[3])[
      0, 0
    ]
    assert oxygenated > 0 > deoxygenated

  @pytest.mark.parametrize(
    'light',
    [np.zeros((5, 1, 2)), -np.ones((5, 1, 2)), np.full((5, 1, 2), np.nan), np.ones((0, 1, 2))],
  )
  def test_bad_light(self, light):
    with pytest.raises(InputError, match='positive'):
      fnirs.optical_density(light)

  @pytest.mark.parametrize(
    'arguments, words',
    [
      ({'wavelengths': (760, 851)}, '851'),
      ({'wavelengths': (760,)}, 'two'),
      ({'distance': [3, 3]}, r'2 channels.*\[200, 1, 2\]'),
      ({'distance': [0]}, 'distances'),
    ],
  )
  def test_bad_optodes(self, arguments, words):
    with pytest.raises(InputError, match=words):
      fnirs.haemoglobin(
        np.zeros((200, 1, 2)), **({'wavelengths': (760, 850), 'distance': [3]} | arguments)
      )

  def test_band_pass_keeps_its_band_in_place(self):
    time = np.arange(3000) / 10
    wave = lambda hertz: np.sin(2 * np.pi * hertz * time)
    mixed = wave(0.05) + wave(1.2) + 0.1 * time
    found = fnirs.band_pass(mixed, 10, low=0.01, high=0.2)
    np.testing.assert_allclose(found[1000:-1000], wave(0.05)[1000:-1000], atol=0.05)

  @pytest.mark.parametrize(
    'length, low, high, words',
    [(500, 0.1, 6, '0-5 Hz'), (500, 0, 1, 'band'), (500, 2, 1, 'band'), (20, 0.1, 1, '20 samples')],
  )
  def test_bad_band(self, length, low, high, words):
    with pytest.raises(InputError, match=words):
      fnirs.band_pass(noise(length), 10, low=low, high=high)

  def test_scalp_coupling_needs_a_shared_pulse(self):
    time = np.arange(600) / 10
    pulse = np.sin(2 * np.pi * 1.1 * time)
    density = np.stack(
      [
        np.stack([pulse, 0.5 * pulse], -1),
        np.stack([noise(600, 1), noise(600, 2)], -1),
        np.stack([pulse, -pulse], -1),
        np.zeros((600, 2)),
      ],
      1,
    )
    found = fnirs.scalp_coupling(density, 10)
    np.testing.assert_allclose(found[[0, 2, 3]], [1, -1, 0], atol=1e-6)
    assert abs(found[1]) < 0.5


def test_pictures_are_quick():
  signal = noise(2816)
  start = cv2.getTickCount()
  for _ in range(50):
    waveform_image(signal)
    spectrogram_image(signal, 512)
  milliseconds = (cv2.getTickCount() - start) / cv2.getTickFrequency() * 1000 / 50
  # About 2 ms on one core; matplotlib takes 14 for the waveform alone.
  assert milliseconds < 50
