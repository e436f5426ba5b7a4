"""Small prepared tasks for tests: images that can be told apart and learned."""

import dataclasses
import functools

import cv2
import numpy as np

from painformer_jax.data.builders.base import store
from painformer_jax.data.task_source import Item, TaskSource


def encode(rgb: np.ndarray, suffix: str = '.png') -> bytes:
  """[height, width, 3] uint8 RGB or [height, width] grey to a file's bytes."""
  bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
  return cv2.imencode(suffix, bgr)[1].tobytes()


def tiny_image(name: str, number: int, *, label: int, classes: int, image_size: int) -> np.ndarray:
  """Noise of its own for each number, brighter for each higher label."""
  seed = [*name.encode(), number]
  noise = np.random.default_rng(seed).integers(0, 64, (image_size, image_size, 3))
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

  def items(start, stop):
    return [
      Item(key=str(i), label=i % classes, source=f'{name}, image {i}', detail=i)
      for i in range(start, stop)
    ]

  splits = {'train': items(0, train)}
  if test:
    splits['test'] = items(train, train + test)
  return TaskSource(
    name=name,
    classes=tuple(f'class {i}' for i in range(classes)),
    modality=modality,
    description=f'Noise in {classes} levels of brightness.',
    licence='CC0',
    splits=splits,
    settings=f'{image_size} pixels, {suffix}',
    read=functools.partial(_read_tiny, name, classes, image_size, suffix),
  )


def _read_tiny(name, classes, image_size, suffix, item: Item) -> bytes:
  return encode(
    tiny_image(name, item.detail, label=item.label, classes=classes, image_size=image_size), suffix
  )


@dataclasses.dataclass(frozen=True)
class Example:
  """An item with its image."""

  key: str
  image: bytes
  label: int
  source: str
  identity: str = ''


def examples_of(task: TaskSource, split: str = 'train') -> list[Example]:
  return [
    Example(key=i.key, image=task.read(i), label=i.label, source=i.source, identity=i.identity)
    for i in task.splits[split]
  ]


def with_examples(task: TaskSource, **splits) -> TaskSource:
  """The task with these examples in its splits."""
  return dataclasses.replace(
    task,
    read=lambda item: item.detail,
    splits={
      name: [
        Item(key=e.key, label=e.label, source=e.source, identity=e.identity, detail=e.image)
        for e in examples
      ]
      for name, examples in splits.items()
    },
  )


def store_tiny(data_dir, name: str = 'tiny', **options):
  """Stores `tiny_task(name, **options)`; returns the prepared task."""
  return store(tiny_task(name, **options), data_dir, progress=lambda line: None)
