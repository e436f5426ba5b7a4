"""Builds tasks of recognising people from folders with images of each."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from painformer_jax.core.errors import counted
from painformer_jax.data.builders.image_files import ImageReader, Report, StoredAs, key_of, split_by
from painformer_jax.data.task_source import Item, TaskSource


def people_task(
  images: Mapping[str, Sequence[str]],
  *,
  source: Path,
  name: str,
  released: int,
  order: Callable[[str], object],
  stored: StoredAs,
  test_fraction: float,
  split_seed: int,
  what: str,
  remarks: str = '',
  licence: str,
  report: Report,
) -> TaskSource:
  """A closed-set task with a class for each person; a share of each one's images is held out.

  Args:
    images: person -> paths of the images below `source`.
    source: the dataset's folder.
    name: the task's name.
    released: number of people in the release; another number is reported.
    order: sort key of people, and of the images of one.
    stored: size and encoding of the images.
    test_fraction: share of each person's images held out, one at least.
    split_seed: of the choice.
    what: ends the description's 'Which of N'.
    remarks: ends the sentence on what is held out.
    licence: terms of the images.
    report: takes a line where people are missing.
  """
  classes = tuple(sorted(images, key=order))
  if len(classes) != released:
    report(f'{name}: {counted(len(classes), "identity")} found; the release has {released:,}')
  items = [
    Item(key=key, label=label)
    for label, person in enumerate(classes)
    for key in sorted(images[person], key=order)
  ]
  return TaskSource(
    name=name,
    classes=classes,
    modality='face',
    description=(
      f'Which of {len(classes)} {what}. Closed set: the same people in both splits; '
      f'{test_fraction:g} of the images of each, one at least, held out, by seed '
      f'{split_seed} (reconstructed){remarks}. Images are {stored}.'
    ),
    licence=licence,
    splits=split_by(items, key_of, fraction=test_fraction, seed=split_seed),
    read=ImageReader(root=str(source), stored=stored),
    checked=True,
    settings=str(stored),
  )


def in_number_order(path: str) -> tuple:
  """Sorts '9' before '10', '9.png' before '10.png', and numbers before words."""
  stem = os.path.splitext(os.path.basename(path))[0]
  return (0, int(stem), path) if stem.isdecimal() else (1, 0, path)
