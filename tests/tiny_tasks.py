"""Small prepared tasks for tests: images that can be told apart and learned."""

import cv2
import numpy as np

from painformer_jax.data.builders.base import store
from painformer_jax.data.example import Example, TaskSource


def encode(rgb: np.ndarray, suffix: str = '.png') -> bytes:
  """[height, width, 3] uint8 RGB or [height, width] grey to a file's bytes."""
  bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
  return cv2.imencode(suffix, bgr)[1].tobytes()


def tiny_image(
    name: str, number: int, *, label: int, classes: int, image_size: int,
) -> np.ndarray:
  """Noise of its own for each number, brighter for each higher label."""
  seed = [*name.encode(), number]
  noise = np.random.default_rng(seed).integers(
      0, 64, (image_size, image_size, 3))
  return (noise + 190 * label // max(1, classes - 1)).astype(np.uint8)


def tiny_task(
    name: str = 'tiny',
    *,
    train: int = 12,
    test: int = 5,
    classes: int = 3,
    image_size: int = 16,
    suffix: str = '.png',
    modality: str = 'noise',
) -> TaskSource:
  """A task of `train` + `test` examples whose labels go round the classes.

  Example i of the training split has key 'i', those of the test split go on
  from there; its label is i modulo `classes`.
  """
  def examples(start, stop):
    for i in range(start, stop):
      image = tiny_image(
          name, i, label=i % classes, classes=classes, image_size=image_size)
      yield Example(
          key=str(i), image=encode(image, suffix), label=i % classes,
          source=f'{name}, image {i}')

  splits = {'train': lambda: examples(0, train)}
  if test:
    splits['test'] = lambda: examples(train, train + test)
  return TaskSource(
      name=name, classes=tuple(f'class {i}' for i in range(classes)),
      modality=modality, description=f'Noise in {classes} levels of brightness.',
      licence='CC0', splits=splits)


def store_tiny(data_dir, name: str = 'tiny', **options):
  """Stores `tiny_task(name, **options)`; returns the prepared task."""
  return store(tiny_task(name, **options), data_dir, progress=lambda line: None)
