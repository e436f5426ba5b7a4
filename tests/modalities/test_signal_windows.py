"""Signals: what is wrong with them, cleaning, the four images, settings."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import environment

from painformer_jax.core.config_fields import read_settings
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.pictures import PictureConfig
from painformer_jax.modalities import cleaning, spectrogram, waveform
from painformer_jax.modalities.biosignal import REPRESENTATIONS, BiosignalConfig, biosignal_images
from painformer_jax.modalities.quality import QualityRules, Tally, examine, trim
from painformer_jax.modalities.spectrogram import SpectrogramConfig
from painformer_jax.modalities.waveform import WaveformConfig
from painformer_jax.modalities.windows import SignalConfig, SignalDrawer, windows

neurokit = pytest.mark.skipif(
  importlib.util.find_spec('neurokit2') is None, reason='neurokit2 is not installed'
)


def beats(rate=512, seconds=5.5, seed=0):
  """A spike 1.2 times a second, and noise; a sample of it repeats by chance alone."""
  time = np.arange(round(rate * seconds)) / rate
  return np.sin(2 * np.pi * 1.2 * time) ** 31 + 0.05 * np.random.default_rng(seed).normal(
    size=len(time)
  )


# --- quality -----------------------------------------------------------------


def test_a_sound_signal():
  quality = examine(beats(), wanted=2816)
  assert (quality.samples, quality.missing, quality.clipped) == (2816, 0, 0)
  assert quality.usable and quality.troubles == ()


@pytest.mark.parametrize('signal', [np.zeros(50), np.full(50, 7.0), [np.nan, 3, 3, np.nan], [5.0]])
def test_flat_is_left_out(signal):
  quality = examine(signal)
  assert quality.flat and 'flat' in quality.fatal


@pytest.mark.parametrize(
  'signal',
  [
    5 + 0.001 * np.random.default_rng(0).integers(0, 2, 2816),  # The last bit flickers.
    5 + 0.001 * np.random.default_rng(0).integers(0, 3, 2816),
    np.concatenate([np.full(2815, 3.0), [9.0]]),
    np.concatenate([5 + 0.001 * np.random.default_rng(0).integers(0, 2, 2815), [99.0]]),
    5 + 1e-9 * np.random.default_rng(0).normal(size=2816),
  ],
)
def test_an_electrode_that_is_off_is_flat(signal):
  assert 'flat' in examine(signal).fatal


@pytest.mark.parametrize(
  'signal',
  [
    np.repeat([1.0, 2.0, 3.0], 900),  # Slow, in few steps.
    np.round(np.sin(np.arange(2816) / 200)),
    np.random.default_rng(0).integers(0, 12, 2816).astype(float),
    np.concatenate([np.zeros(2000), np.arange(100.0)]),
    np.sin(np.linspace(0, 3, 2816)).round(1),
  ],
)
def test_few_values_alone_are_not_flat(signal):
  assert not examine(signal).flat


NOISE = np.random.default_rng(3).normal(size=2816)
SECONDS = np.arange(2816) / 512


@pytest.mark.parametrize(
  'signal, troubles, fatal',
  [
    (np.where(SECONDS < 0.5, NOISE, NOISE[256]), ('held',), True),
    (np.where(SECONDS < 2.7, NOISE, 0.0), ('held',), True),
    (np.where((SECONDS > 1) & (SECONDS < 1.5), 0.0, NOISE), ('held',), False),
    (np.where(np.arange(2816) == 1000, 1e6, NOISE), ('spike',), True),
    (np.where(np.arange(2816) == 1000, -9999.0, 50 * NOISE), ('spike',), True),
    (np.where((SECONDS > 1) & (SECONDS < 3), -9999.0, NOISE), ('spike',), True),
    (np.clip(3 * NOISE, -2.5, 2.5), ('clipped',), False),
    (np.round(NOISE * 0.4), (), False),  # An EMG at the last bit.
    (np.round((3.1 + 0.004 * np.sin(0.7 * SECONDS) + 0.001 * NOISE) / 0.0061) * 0.0061, (), False),
    (np.round(5 + 0.3 * np.maximum(SECONDS - 5, 0), 2), (), False),  # A slow one that waits.
    (np.where(SECONDS % 1 < 0.03, 20.0, 1.0) * NOISE, (), False),  # Bursts.
  ],
)
def test_held_values_spikes_and_limits(signal, troubles, fatal):
  quality = examine(signal)
  assert quality.troubles == troubles and bool(quality.fatal) == fatal


def test_a_flat_saturation_is_kept_and_a_sensor_that_fell_off_is_not():
  rules = QualityRules(flat_between=(50.0, 100.0))
  for value, kept in ((97.0, True), (50.0, True), (100.0, True), (0.0, False), (127.0, False)):
    quality = examine(np.full(50, value), rules=rules)
    assert quality.flat and 'flat' in quality.troubles and quality.usable == kept
  for limits in ((50.0,), (100.0, 50.0)):
    with pytest.raises(InputError, match='flat_between is'):
      QualityRules(flat_between=limits)


@pytest.mark.parametrize('signal', [[], [np.nan] * 9, [np.inf, -np.inf]])
def test_nothing_is_left_out_as_empty(signal):
  quality = examine(signal)
  assert quality.fatal[0] == 'empty' and 'flat' not in quality.troubles


@given(st.integers(1, 99))
def test_gaps_are_kept_up_to_their_limit(count):
  signal = beats(100, 1)
  signal[np.random.default_rng(count).choice(100, count, replace=False)] = np.nan
  quality = examine(signal, rules=QualityRules(max_missing=0.25))
  assert quality.missing == pytest.approx(count / 100)
  assert 'gaps' in quality.troubles
  assert ('gaps' in quality.fatal) == (count > 25)


def test_short_is_kept_down_to_its_limit():
  signal = beats(100, 1)
  assert examine(signal, wanted=100).troubles == ()
  assert examine(signal[:99], wanted=100).troubles == ('short',)
  assert examine(signal[:50], wanted=100).fatal == ()
  assert examine(signal[:49], wanted=100).fatal == ('short',)


@pytest.mark.parametrize('limit', [0.8, 0.2])
@pytest.mark.parametrize('sign', [1, -1])
def test_clipped_share_is_that_of_the_cut_peaks(limit, sign):
  tone = np.sin(np.arange(2000) / 20)
  quality = examine(sign * np.minimum(tone, limit))
  assert quality.clipped == pytest.approx((tone >= limit).mean(), abs=0.005)
  assert quality.troubles == ('clipped',) and quality.usable


def test_clipping_at_both_ends_counts_twice_and_may_be_too_much():
  tone = np.sin(np.arange(2000) / 20)
  both = examine(np.clip(tone, -0.5, 0.5))
  assert both.clipped == pytest.approx((np.abs(tone) >= 0.5).mean(), abs=0.005)
  assert both.fatal == ('clipped',) and not both.usable


def test_a_slow_digitised_peak_is_not_clipped():
  # Stays at its peak for long, but arrives there in its smallest steps.
  slow = np.round(20 * np.sin(np.arange(4000) / 300))
  assert examine(slow).clipped == 0


def test_quality_survives_gaps_at_the_peaks():
  tone = np.minimum(np.sin(np.arange(2000) / 20), 0.5)
  tone[::7] = np.nan
  assert 0 < examine(tone).missing < 0.2
  assert examine(np.array([np.nan, 1, 2, np.nan, 2, 2, 2, 2, 2, 2, np.nan])).clipped >= 0


def test_padding_is_cut_off():
  kept, cut = trim(np.array([np.nan, np.nan, 1, np.nan, 2, np.inf]))
  np.testing.assert_array_equal(kept, [1, np.nan, 2])
  assert cut == 2
  assert len(trim(np.full(5, np.nan))[0]) == 0


def test_the_tally_says_what_was_left_out_and_what_was_drawn_all_the_same():
  tally = Tally()
  assert str(tally) == ''
  for signal in (beats(), np.zeros(9), np.minimum(np.sin(np.arange(999) / 20), 0.8)):
    tally.add(examine(signal))
  assert (tally.windows, tally.kept) == (3, 2)
  assert str(tally) == ('1 of 3 windows left out (1 flat); drawn in spite of troubles: 1 clipped')


@pytest.mark.parametrize(
  'field', [{'max_missing': 1.5}, {'max_clipped': -1}, {'min_length': 0}, {'clipped_run': 1}]
)
def test_bad_rules(field):
  with pytest.raises(InputError, match=next(iter(field))):
    QualityRules(**field)


# --- images ------------------------------------------------------------------


def test_the_four_images_are_the_single_ones():
  config = BiosignalConfig(
    waveform=WaveformConfig(height=50, width=60, thickness=2),
    spectrogram=SpectrogramConfig(height=40, width=30, segment=128, overlap=100),
  )
  images = biosignal_images(beats(), 512, config)
  assert tuple(images) == REPRESENTATIONS == ('waveform', 'angle', 'phase', 'psd')
  np.testing.assert_array_equal(
    images['waveform'], waveform.waveform_image(beats(), config.waveform)
  )
  for kind in ('angle', 'phase', 'psd'):
    assert images[kind].shape == (40, 30, 3)
    np.testing.assert_array_equal(
      images[kind], spectrogram.spectrogram_image(beats(), 512, config.spectrogram, kind=kind)
    )


@pytest.mark.parametrize('samples', [2815, 2790])
def test_a_window_that_lacks_a_few_samples_is_drawn_as_a_whole_one(samples):
  """With as many columns, and the time axis in its place."""
  config = SignalConfig(window=5.5)
  found = {}
  for count in (2816, samples):
    drawer = SignalDrawer(
      beats()[:count], 512.0, config, modality='ecg', cleaned_as='ecg', image_size=64
    )
    (window,) = windows(count, 512.0, config)
    quality, images = drawer.draw(window)
    assert ('short' in quality.troubles) == (count < 2816) and quality.usable
    found[count] = np.stack(list(images.values())).astype(int)
  # But for the last column of each image.
  assert np.abs(found[samples] - found[2816])[:, :, :-3].mean() < 0.1


def test_only_what_is_asked_for_is_drawn():
  # Far too short for a spectrogram.
  assert list(biosignal_images(beats()[:9], 512, representations=('waveform',))) == ['waveform']
  with pytest.raises(InputError, match='magnitude'):
    biosignal_images(beats(), 512, representations=('magnitude',))


@pytest.fixture
def axes():
  figure = plt.figure(figsize=(2.24, 2.24), dpi=100)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.axis('off')
  yield axes
  plt.close(figure)


@pytest.mark.parametrize('kind', ['angle', 'phase', 'psd'])
@pytest.mark.parametrize('segment, overlap, rate', [(256, 128, 512), (128, 100, 1000)])
def test_pictures_are_matplotlib_s_specgram(axes, kind, segment, overlap, rate):
  signal = beats(rate)
  _, _, _, picture = axes.specgram(
    signal, NFFT=segment, Fs=rate, noverlap=overlap, mode=kind, cmap='viridis'
  )
  # Its cells before they are stretched to the screen.
  wanted = picture.to_rgba(picture.get_array(), bytes=True)[..., :3].astype(int)
  found = spectrogram.spectrogram_image(
    signal,
    rate,
    SpectrogramConfig(
      height=wanted.shape[0],
      width=wanted.shape[1],
      segment=segment,
      overlap=overlap,
      centre=False,
      dynamic_range=1e9,
    ),
    kind=kind,
  )
  # A level of the palette, up to 3 in a channel, and OpenCV's rounding of it.
  apart = np.abs(found - wanted)
  assert apart.max() <= 4 and apart.mean() < 0.7


def test_the_rendered_picture_is_nearly_matplotlib_s(axes):
  axes.specgram(beats(), NFFT=256, Fs=512, noverlap=128, cmap='viridis')
  axes.figure.canvas.draw()
  wanted = np.asarray(axes.figure.canvas.buffer_rgba())[..., :3].astype(int)
  found = spectrogram.spectrogram_image(
    beats(), 512, SpectrogramConfig(centre=False, dynamic_range=1e9)
  )
  # Both stretch 129 x 21 cells to 224 x 224, by filters of their own.
  assert wanted.shape == found.shape and np.abs(found - wanted).mean() < 4


# --- cleaning ----------------------------------------------------------------


def power(signal, rate, hertz):
  """Share of the variance within 0.5 Hz of a frequency."""
  spectrum = np.abs(np.fft.rfft(signal - signal.mean())) ** 2
  near = np.abs(np.fft.rfftfreq(len(signal), 1 / rate) - hertz) < 0.5
  return spectrum[near].sum() / spectrum.sum()


@neurokit
@pytest.mark.parametrize(
  'modality, kept, removed', [('ecg', 10, 50), ('emg', 150, 20), ('gsr', 0.5, 20)]
)
def test_cleaning_keeps_the_signal_and_removes_the_rest(modality, kept, removed):
  time = np.arange(10_000) / 1000
  mixed = np.sin(2 * np.pi * kept * time) + 2 * np.sin(2 * np.pi * removed * time)
  cleaned = cleaning.clean(mixed, 1000.0, modality=modality)
  assert cleaned.shape == mixed.shape and cleaned.dtype == np.float64
  assert power(mixed, 1000, removed) > 0.7
  assert power(cleaned, 1000, kept) > 0.8 and power(cleaned, 1000, removed) < 0.15


@neurokit
def test_gaps_are_bridged_before_cleaning():
  signal = beats(512, 10)
  signal[100:150] = np.nan
  assert np.isfinite(cleaning.clean(signal, 512, modality='ecg')).all()


@pytest.mark.parametrize(
  'modality, rate, words',
  [
    ('emg', 100, 'emg at 100 Hz'),
    ('ecg', 60, '0.5 Hz'),
    ('gsr', 4, 'more than 7 Hz'),
    ('fnirs', 100, 'ecg, emg, gsr, not for fnirs'),
  ],
)
def test_what_cannot_be_cleaned(modality, rate, words):
  with pytest.raises(InputError, match=words):
    cleaning.clean(beats(), rate, modality=modality)


@neurokit
def test_too_short_to_clean():
  with pytest.raises(InputError, match='4 samples of ecg'):
    cleaning.clean(beats()[:4], 512, modality='ecg')


def test_without_the_package_its_extra_is_named():
  code = (
    'import sys; sys.modules["neurokit2"] = None\n'
    'from painformer_jax.modalities import cleaning\n'
    'try: cleaning.clean([1.0] * 999, 512, modality="ecg")\n'
    'except Exception as error: print(type(error).__name__, error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert done.stdout.startswith('InputError this needs the package neurokit2'), done.stderr
  assert "'.[signals]'" in done.stdout


# --- settings ----------------------------------------------------------------


def test_settings_reach_every_field(tmp_path):
  for config in (
    SignalConfig(
      window=5.5,
      step=1.0,
      representations=('psd',),
      clean=True,
      images=BiosignalConfig(
        waveform=WaveformConfig(margin=0.2), spectrogram=SpectrogramConfig(segment=64, overlap=8)
      ),
      quality=QualityRules(max_missing=0.5),
      pathlength_factor=5.0,
    ),
    PictureConfig(every=3),
  ):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dataclasses.asdict(config)))
    assert read_settings(type(config), path) == config


@pytest.mark.parametrize(
  'content, words',
  [
    ('{', 'is not JSON'),
    ('[]', 'not a table of fields'),
    ('{"windows": 1}', "no field 'windows'; did you mean window"),
    ('{"window": "5"}', r"settings.window is '5', not of type float"),
    ('{"clean": 1}', 'clean is 1, not of type bool'),
    ('{"window": true}', 'window is True, not of type float'),
    (
      '{"images": {"waveform": {"thickness": 1.5}}}',
      'images.waveform.thickness is 1.5, not of type int',
    ),
    ('{"images": {"spectrogram": {"detrend": "no"}}}', 'known: none, constant, linear'),
    ('{"representations": "psd"}', "is 'psd', not a list"),
    ('{"representations": ["x"]}', "not 'x'"),
    ('{"window": -1}', 'at least 0 s'),
    ('{"step": 1}', 'step needs a window'),
    ('{"pathlength_factor": 0}', 'positive'),
  ],
)
def test_bad_settings(tmp_path, content, words):
  path = tmp_path / 'a.json'
  path.write_text(content)
  with pytest.raises(InputError, match=words):
    read_settings(SignalConfig, path)
  with pytest.raises(InputError, match='cannot be read'):
    read_settings(SignalConfig, tmp_path / 'absent.json')
