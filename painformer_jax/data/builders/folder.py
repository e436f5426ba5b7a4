"""Reads a folder of images, with a sub-folder for each class, as a task."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.folders import left_out_line
from painformer_jax.data.builders.image_files import (
  SUFFIXES,
  ImageReader,
  Report,
  StoredAs,
  check_fraction,
  find_child,
  key_of,
  list_files,
  list_folders,
  named,
  require_folder,
  split_by,
  unreadable,
)
from painformer_jax.data.task_source import Item, TaskSource
from painformer_jax.modalities import images

# Suffixes of images that may have several pages.
_PAGED = frozenset({'.apng', '.avif', '.avifs', '.gif', '.tif', '.tiff', '.webp'})

# Names of folders that are splits rather than classes, in any case; the first that is there
# is used.
_SPLITS = {
  'train': ('train', 'training'),
  'test': ('test', 'testing', 'val', 'valid', 'validation'),
}


def folder_task(
  source: str | Path,
  name: str,
  *,
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  test_fraction: float = 0.2,
  split_seed: int = 0,
  modality: str = 'image',
  licence: str = 'not stated',
  report: Report = print,
) -> TaskSource:
  """Reads SOURCE/{train,test}/<class>/... or SOURCE/<class>/... as a task.

  Images of all kinds that `painformer embed` reads count, at any depth below the class. Of
  one with several pages the first is taken; `report` says what is not taken. Names
  of the two folders count in any case; without test/, val/ takes its place.
  Without train/ and test/ folders a share of each class is held out, chosen by
  a hash of the seed and the file's path.

  Args:
    source: the folder.
    name: the task's name.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    test_fraction: share of each class held out, above 0 and below 1; unused
      where there are train/ and test/ folders.
    split_seed: of the hold-out.
    modality: kind of input, kept with the task.
    licence: terms of the images, kept with the task.
    report: takes a line for what is left out.

  Raises:
    InputError: the folder has another layout, cannot be read, or has a name that is
      not UTF-8.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  check_fraction(test_fraction)
  source = require_folder(source)
  try:
    classes, splits, how = _read_layout(
      source, test_fraction=test_fraction, split_seed=split_seed, report=report
    )
  except OSError as error:
    raise unreadable(source, error) from error
  return TaskSource(
    name=name,
    classes=tuple(classes),
    modality=modality,
    description=(
      f'A folder of images in {len(classes)} classes: '
      f'{len(splits["train"])} files for training, {len(splits["test"])} for '
      f'testing, {how}. Images are {stored}.'
    ),
    licence=licence,
    splits=splits,
    read=ImageReader(root=str(source), stored=stored),
    checked=True,
    settings=str(stored),
  )


def _read_layout(
  source: Path, *, test_fraction: float, split_seed: int, report: Report
) -> tuple[list[str], dict[str, list[Item]], str]:
  """Class names, each split's items, and how the splits were made."""
  parts = {
    split: [p for name in names if (p := find_child(source, name)) and p.is_dir()]
    for split, names in _SPLITS.items()
  }
  if any(parts.values()):
    classes, splits = _split_folders(source, parts, report)
    return classes, splits, 'split as its folders are'
  classes = list_folders(source)
  if len(classes) < 2:
    raise InputError(
      f'{source} has {len(classes)} folders, needs one for each of 2 or more '
      'classes, or train/ and test/ with these inside'
    )
  splits = split_by(
    _list_images(source, '', classes, classes, report),
    key_of,
    fraction=test_fraction,
    seed=split_seed,
  )
  if not splits['test']:
    raise InputError(
      f'each class of {source} has a single image, so that none can be held '
      'out; add images, or train/ and test/ folders'
    )
  how = (
    f'{test_fraction:g} of the images of each class held out, by seed '
    f'{split_seed}; images of one recording or person may be on both '
    'sides'
  )
  return classes, splits, how


def _split_folders(
  source: Path, parts: Mapping[str, Sequence[Path]], report: Report
) -> tuple[list[str], dict[str, list[Item]]]:
  classes, folders = {}, {}
  for split, found in parts.items():
    if not found:
      raise InputError(
        f'{source} has no folder {split}/ beside its other one; add it, or '
        'name the other one as the source to have a part of it held out'
      )
    folders[split] = found[0]
    classes[split] = list_folders(found[0])
    for other in found[1:]:
      report(f'left out: {other.name}/, since {found[0].name}/ is the {split} split')
  train, test = folders['train'], folders['test']
  unseen = sorted(set(classes['test']) - set(classes['train']))
  if unseen:
    raise InputError(
      f'{test} has classes that {train.name}/ has not: {", ".join(unseen[:5])}'
      f'{", ..." if len(unseen) > 5 else ""}; to train on {train.name}/ alone, name '
      'it as the source to have a part of it held out'
    )
  if len(classes['train']) < 2:
    raise InputError(
      f'{train} has {len(classes["train"])} folders, needs one for each of 2 or more classes'
    )
  return classes['train'], {
    split: _list_images(source, f'{folders[split].name}/', classes['train'], classes[split], report)
    for split in ('train', 'test')
  }


def _list_images(
  source: Path, prefix: str, classes: Sequence[str], present: Sequence[str], report: Report
) -> list[Item]:
  """Images of the class folders that are there, in a fixed order; the key is the path."""
  loose = [
    name
    for name in sorted(os.listdir(source / prefix))
    if name.lower().endswith(SUFFIXES) and not name.startswith('.')
  ]
  if loose:
    report(
      f'left out: {counted(len(loose), "image")} of {source / prefix} outside a '
      f'class: {named(loose)}'
    )
  labels = {name: i for i, name in enumerate(classes)}
  items, left_out, several = [], Counter(), 0
  missing = images.suffixes_without_package()
  for name in present:
    folder = source / f'{prefix}{name}'
    found = list_files(folder, left_out=left_out)
    for path in (readable := [p for p in found if Path(p).suffix.lower() not in missing]):
      several += Path(path).suffix.lower() in _PAGED and images.count_pages(folder / path) > 1
    left_out.update({'.heic (pip install pillow-heif)': len(found) - len(readable)})
    if not readable:
      seen = left_out_line(+left_out)
      raise InputError(f'{folder} has no image' + (f', only {seen}' if seen else ''))
    items += [Item(key=f'{prefix}{name}/{path}', label=labels[name]) for path in readable]
  if left_out := +left_out:
    report(f'left out of {source / prefix}: {left_out_line(left_out)}')
  if several:
    report(f'the first page alone is taken of {counted(several, "image")} with several pages')
  return items
