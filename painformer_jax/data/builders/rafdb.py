"""RAF-DB: real-world faces in 7 basic or 11 compound expressions.

    SOURCE/EmoLabel/list_patition_label.txt     lines such as `train_00001.jpg 5`
    SOURCE/Image/aligned/train_00001_aligned.jpg

The release spells the list's name so. Both parts of the dataset, basic/ and compound/,
have this layout; SOURCE is the part, or the folder that contains it. Labels
count from 1. Images whose names begin with test_ are the test split.
"""

from pathlib import Path
from typing import Literal

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.image_files import (
  ANY_SUFFIX,
  MAX_MISSING,
  FileIndex,
  ImageReader,
  Missing,
  Report,
  StoredAs,
  find_child,
  require_folder,
  unreadable,
)
from painformer_jax.data.task_source import Item, TaskSource

BASIC = ('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutral')
COMPOUND = (
  'happily surprised',
  'happily disgusted',
  'sadly fearful',
  'sadly angry',
  'sadly surprised',
  'sadly disgusted',
  'fearfully angry',
  'fearfully surprised',
  'angrily surprised',
  'angrily disgusted',
  'disgustedly surprised',
)
# In the order of the labels, from label 1 on.
CLASSES = {'basic': BASIC, 'compound': COMPOUND}
LICENCE = 'RAF-DB: non-commercial research, by agreement with its authors'
_LISTS = ('list_patition_label.txt', 'list_partition_label.txt')


def rafdb_task(
  source: str | Path,
  name: str,
  *,
  part: Literal['basic', 'compound'],
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  max_missing: float = MAX_MISSING,
  report: Report = print,
) -> TaskSource:
  """Lists the aligned faces of one part of RAF-DB.

  Args:
    source: the part's folder, or the one that has it.
    name: the task's name.
    part: which of the two.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    max_missing: share of the listed images that may be missing.
    report: takes a line for what is left out.

  Raises:
    InputError: the folder has another layout, cannot be read, holds the other
      part, a line of the list is malformed (names it), or too much is missing.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  source, classes = require_folder(source), CLASSES[part]
  try:
    splits = _read_part(source, part, classes, max_missing, report)
  except OSError as error:
    raise unreadable(source, error) from error
  except UnicodeDecodeError as error:
    raise InputError(f'{source}: its list of labels is no text ({error})') from error
  return TaskSource(
    name=name,
    classes=classes,
    modality='face',
    description=(
      f'Which of {len(classes)} {part} expressions, from aligned photographs '
      'of faces found on the web (RAF-DB), split as in the release. Images '
      f'are {stored}.'
    ),
    licence=LICENCE,
    splits=splits,
    read=ImageReader(root=str(source), stored=stored),
    checked=True,
    settings=str(stored),
  )


def _read_part(
  source: Path, part: str, classes: tuple[str, ...], max_missing: float, report: Report
) -> dict[str, list[Item]]:
  home = _home(source, part)
  listing = find_child(find_child(home, 'EmoLabel'), *_LISTS)
  images = find_child(find_child(home, 'Image') or home, 'aligned')
  if images is None:
    raise InputError(f'{home} has no folder Image/aligned')
  index = FileIndex(images, suffixes=ANY_SUFFIX)
  prefix = images.relative_to(source).as_posix()
  missing = Missing(what=listing.name, folder=images, limit=max_missing)
  splits = {'train': [], 'test': []}
  seen, labels, rows = {}, set(), 0
  for number, line in enumerate(listing.read_text(encoding='utf-8-sig').splitlines(), start=1):
    fields = line.split()
    if not fields:
      continue
    where = f'{listing}, line {number}'
    file, label = _parse(fields, where, part, classes)
    rows += 1
    labels.add(label)
    if file in seen:
      raise InputError(f'{where}: {file} is listed before, in line {seen[file]}')
    seen[file] = number
    split = file.partition('_')[0].lower()
    if split not in splits:
      raise InputError(f"{where}: {file} begins with neither 'train_' nor 'test_'")
    stem, _, suffix = file.rpartition('.')
    path = index.find(f'{stem}_aligned.{suffix}') or index.find(file)
    if path is None:
      missing.add(f'{stem}_aligned.{suffix}')
      continue
    splits[split].append(Item(key=f'{prefix}/{path}', label=label))
  if part == 'compound' and labels and max(labels) < len(BASIC):
    raise InputError(
      f'{listing} has no label above {len(BASIC)}: these are the basic '
      'expressions, prepare them with rafdb-basic'
    )
  missing.close(rows, report)
  for split, items in splits.items():
    if not items:
      raise InputError(f"{listing}: no image for '{split}'")
  return splits


def _home(source: Path, part: str) -> Path:
  """The folder that has EmoLabel/ with the list."""
  for folder in (source, find_child(source, part)):
    labels = folder and find_child(folder, 'EmoLabel')
    if folder and labels and find_child(labels, *_LISTS):
      return folder
  raise InputError(f'{source} has no EmoLabel/{_LISTS[0]}, nor has a folder {part}/ in it')


def _parse(fields: list[str], where: str, part: str, classes: tuple[str, ...]) -> tuple[str, int]:
  """File name and label from 0 of a line."""
  if len(fields) != 2 or '.' not in fields[0]:
    raise InputError(f'{where}: {" ".join(fields)!r} is not a file and a label')
  label = int(fields[1]) if fields[1].isdecimal() else 0
  if not 1 <= label <= len(classes):
    hint = (
      '; are these the compound expressions? prepare them with rafdb-compound'
      if part == 'basic' and label > len(BASIC)
      else ''
    )
    raise InputError(f'{where}: label {fields[1]!r} is not a number from 1 to {len(classes)}{hint}')
  return fields[0], label - 1
