"""fNIRS: SNIRF files read by MNE, and our haemoglobin against MNE's."""

import importlib.util
import subprocess
import sys

import h5py
import numpy as np
import pytest
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import fnirs, snirf

needs_mne = pytest.mark.skipif(
  importlib.util.find_spec('mne') is None, reason='mne is not installed'
)

RATE = 10.0
WAVELENGTHS = (760.0, 850.0)
DISTANCES = (3.0, 3.5)  # cm


def light(samples=200):
  """Positive intensities [samples, channels, wavelengths]."""
  time = np.arange(samples) / RATE
  waves = [[np.sin(time), np.cos(0.7 * time)], [np.sin(1.3 * time), np.sin(0.4 * time)]]
  return np.exp(0.05 * np.moveaxis(np.array(waves), -1, 0)) * [[0.02, 0.05], [0.03, 0.04]]


def write_snirf(path, values=None, *, kind=1, labels=None, times=None, distances=DISTANCES):
  """Two channels at two wavelengths, as the SNIRF specification (1.1) lays it out."""
  values = light() if values is None else values
  with h5py.File(path, 'w') as file:
    text = lambda value: np.bytes_(value)
    file['formatVersion'] = text('1.1')
    nirs = file.create_group('nirs')
    tags = {
      'SubjectID': 'x',
      'MeasurementDate': '2020-01-01',
      'MeasurementTime': '00:00:00Z',
      'LengthUnit': 'm',
      'TimeUnit': 's',
      'FrequencyUnit': 'Hz',
    }
    for name, value in tags.items():
      nirs[f'metaDataTags/{name}'] = text(value)
    nirs['data1/dataTimeSeries'] = values.reshape(len(values), -1)
    nirs['data1/time'] = np.arange(len(values)) / RATE if times is None else times
    for number in range(values[0].size):
      channel, wavelength = divmod(number, 2)
      entry = nirs.create_group(f'data1/measurementList{number + 1}')
      entry['sourceIndex'] = np.int32(channel + 1)
      entry['detectorIndex'] = np.int32(channel + 1)
      entry['wavelengthIndex'] = np.int32(wavelength + 1)
      entry['dataType'] = np.int32(kind)
      entry['dataTypeIndex'] = np.int32(1)
      if labels:
        entry['dataTypeLabel'] = text(labels[wavelength])
    nirs['probe/wavelengths'] = np.array(WAVELENGTHS)
    nirs['probe/sourcePos3D'] = np.array([[0, 0.1 * c, 0] for c in range(2)])
    nirs['probe/detectorPos3D'] = np.array([[d / 100, 0.1 * c, 0] for c, d in enumerate(distances)])
    nirs['probe/sourceLabels'] = np.array([text('S1'), text('S2')])
    nirs['probe/detectorLabels'] = np.array([text('D1'), text('D2')])
  return path


@needs_mne
def test_light_becomes_haemoglobin_as_ours_does(tmp_path):
  recording = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf'))
  assert recording.channels == ('S1_D1 hbo', 'S1_D1 hbr', 'S2_D2 hbo', 'S2_D2 hbr')
  assert recording.rate == pytest.approx(RATE) and recording.signals.shape == (4, 200)
  ours = fnirs.haemoglobin(
    fnirs.optical_density(light()), wavelengths=(760, 850), distance=np.array(DISTANCES)
  )
  # MNE writes ln(10) as 2.303.
  np.testing.assert_allclose(
    recording.signals, np.moveaxis(ours, 0, -1).reshape(4, -1), rtol=5e-4, atol=1e-9
  )


@needs_mne
def test_the_pathlength_factor_is_passed_on(tmp_path):
  path = write_snirf(tmp_path / 'a.snirf')
  longer = snirf.read_snirf(path, pathlength_factor=12.0).signals
  np.testing.assert_allclose(2 * longer, snirf.read_snirf(path).signals, rtol=1e-9)


def tone(times):
  """Light of two channels that beat together, at given times: [samples, 2, 2]."""
  beat = 0.01 * np.sin(2 * np.pi * 1.1 * times) + 0.05 * np.sin(0.5 * times)
  return np.exp(beat[:, None, None] * [[1.0, 1.2], [0.8, 1.0]]) * [[0.02, 0.05], [0.03, 0.04]]


@needs_mne
def test_a_sound_recording_has_no_remarks(tmp_path):
  recording = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', tone(np.arange(600) / RATE)))
  assert recording.remarks == () and recording.rate == pytest.approx(RATE)


@needs_mne
def test_a_start_and_a_step_are_times_too(tmp_path):
  values = tone(np.arange(600) / RATE)
  recording = snirf.read_snirf(
    write_snirf(tmp_path / 'a.snirf', values, times=np.array([0.0, 0.1]))
  )
  assert recording.rate == pytest.approx(RATE) and recording.signals.shape == (4, 600)


@needs_mne
def test_uneven_times_are_resampled(tmp_path):
  """Sixty seconds stay sixty, and every value stays where it was."""
  steps = np.where(np.arange(599) % 20 < 3, 0.35, 0.0625)
  times = np.concatenate([[0.0], np.cumsum(steps)]) * 60 / steps.sum()
  even = snirf.read_snirf(write_snirf(tmp_path / 'b.snirf', tone(np.arange(600) / RATE)))
  found = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', tone(times), times=times))
  assert found.signals.shape[1] / found.rate == pytest.approx(60, abs=0.3)
  assert 'times are uneven' in found.remarks[0] and 'with 90 gaps' in found.remarks[0]
  at = np.arange(found.signals.shape[1]) / found.rate
  wanted = np.interp(at, np.arange(600) / RATE, even.signals[0])
  there = np.isfinite(found.signals[0])
  assert 0.3 < there.mean() < 0.8
  assert np.corrcoef(wanted[there], found.signals[0][there])[0, 1] > 0.99


@needs_mne
def test_times_that_run_backwards_are_refused(tmp_path):
  times = np.arange(600) / RATE
  times[300:] -= 5
  with pytest.raises(InputError, match='sample 301: time runs backwards'):
    snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', tone(np.arange(600) / RATE), times=times))


@needs_mne
@pytest.mark.parametrize(
  'times, words',
  [
    (np.arange(599) / RATE, '599 times for 600 samples'),
    (np.arange(601) / RATE, '601 times for 600 samples'),
    (np.arange(600) * 100.0, 'times of 60000 s for 600 samples give a rate of 0.01 Hz; .*TimeUnit'),
    (np.array([0.0, 100.0]), 'give a rate of 0.01 Hz'),
    (np.arange(600)[::-1] / RATE, 'time runs backwards, from 59.9 to 0'),
  ],
)
def test_times_that_do_not_fit_the_samples_are_refused(tmp_path, times, words):
  path = write_snirf(tmp_path / 'a.snirf', tone(np.arange(600) / RATE), times=times)
  with pytest.raises(InputError, match=words):
    snirf.read_snirf(path)
  if times[-1] > times[0]:
    found = snirf.read_snirf(path, rate=RATE)
    assert found.rate == RATE and found.signals.shape == (4, 600)


@needs_mne
def test_light_that_is_not_positive_is_missing_and_counted(tmp_path):
  values = tone(np.arange(600) / RATE)
  sound = snirf.read_snirf(write_snirf(tmp_path / 'b.snirf', values))
  values[100:104, 0, 0] = -0.01
  values[200, 0, 1] = np.nan
  found = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', values))
  assert '5 samples of light in 1 channel not positive' in found.remarks[0]
  missing = np.flatnonzero(~np.isfinite(found.signals[0]))
  assert missing.tolist() == [100, 101, 102, 103, 200]
  assert np.isfinite(found.signals[2:]).all()
  there = np.isfinite(found.signals)
  np.testing.assert_allclose(found.signals[there], sound.signals[there], atol=0.02)


@needs_mne
def test_what_mne_warns_of_is_passed_on(tmp_path):
  values = tone(np.arange(600) / RATE)
  far = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', values, distances=(30.0, 3.5)))
  assert any('greater than 10 cm' in remark for remark in far.remarks)
  none = snirf.read_snirf(write_snirf(tmp_path / 'b.snirf', values, distances=(0.0, 3.5)))
  assert any('zero or NaN' in remark for remark in none.remarks)


@needs_mne
def test_a_channel_without_a_heartbeat_is_a_remark(tmp_path):
  values = tone(np.arange(600) / RATE)
  values[:, 1] *= np.exp(0.05 * np.random.default_rng(0).normal(size=(600, 2)))
  found = snirf.read_snirf(write_snirf(tmp_path / 'a.snirf', values))
  (remark,) = found.remarks
  assert remark.startswith('1 of 2 channels with a scalp coupling index below 0.75: S2_D2 ')


@needs_mne
def test_haemoglobin_is_taken_as_it_is(tmp_path):
  values = 1e-6 * np.random.default_rng(0).normal(size=(60, 2, 2))
  path = write_snirf(tmp_path / 'a.snirf', values, kind=99999, labels=('HbO', 'HbR'))
  recording = snirf.read_snirf(path)
  assert recording.channels == ('S1_D1 hbo', 'S1_D1 hbr', 'S2_D2 hbo', 'S2_D2 hbr')
  np.testing.assert_allclose(recording.signals, 1e6 * values.reshape(60, 4).T, rtol=1e-6)


@needs_mne
@pytest.mark.skipif(
  importlib.util.find_spec('mne_nirs') is None, reason='mne-nirs is not installed'
)
def test_what_mne_nirs_writes_is_read(tmp_path):
  import mne
  from mne_nirs.io import write_raw_snirf

  raw = mne.io.read_raw_snirf(write_snirf(tmp_path / 'a.snirf'), verbose='ERROR')
  write_raw_snirf(raw, tmp_path / 'b.snirf')
  first, second = (snirf.read_snirf(tmp_path / f'{n}.snirf') for n in 'ab')
  assert first.channels == second.channels
  np.testing.assert_allclose(first.signals, second.signals, rtol=1e-6, atol=1e-9)


@needs_mne
@pytest.mark.parametrize('kind', ['text', 'empty', 'cut', 'absent', 'other HDF5', 'dark'])
def test_unreadable_files_are_named(tmp_path, kind, capfd):
  path = tmp_path / 'a.snirf'
  if kind == 'cut':
    write_snirf(path)
    path.write_bytes(path.read_bytes()[:3000])
  elif kind == 'other HDF5':
    with h5py.File(path, 'w') as file:
      file['x'] = 1
  elif kind == 'dark':
    write_snirf(path, np.full((50, 2, 2), np.nan))
  elif kind != 'absent':
    path.write_text('no HDF5' if kind == 'text' else '')
  if kind == 'dark':
    assert not np.isfinite(snirf.read_snirf(path).signals).any()
  else:
    with pytest.raises(InputError, match='a.snirf is not a') as caught:
      snirf.read_snirf(path)
    assert '\n' not in str(caught.value)
  assert capfd.readouterr() == ('', '')


def test_without_the_package_its_extra_is_named(tmp_path):
  code = (
    'import sys; sys.modules["mne"] = None\n'
    'from painformer_jax.modalities import snirf\n'
    'try: snirf.read_snirf("a.snirf")\n'
    'except Exception as error: print(type(error).__name__, error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert done.stdout.startswith('InputError this needs the package mne'), done.stderr
  assert "'.[fnirs]'" in done.stdout
