"""AffectNet: faces from the web in eight expressions, in either of its layouts.

    (a) SOURCE/Manually_Annotated_file_lists/{training,validation}.csv
        SOURCE/Manually_Annotated_Images/<directory>/<file>.jpg, or the same
        below SOURCE/Manually_Annotated/ or SOURCE/Manually_Annotated_compressed/
    (b) SOURCE/{train_set,val_set}/images/<id>.jpg
        SOURCE/{train_set,val_set}/annotations/<id>_exp.npy, or images/ and
        annotations/ in SOURCE itself

Layout (a) has boxes of the faces; images are cropped to them. Expressions 8 (none), 9
(uncertain) and 10 (no face) are left out. The dataset's validation images are
the task's test split; the labels of its own test set were not released.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from painformer_jax.core.delimited import TableRow, read_rows
from painformer_jax.core.errors import InputError, counted
from painformer_jax.data.builders.image_files import (
  ANY_SUFFIX,
  MAX_MISSING,
  CropBox,
  FileIndex,
  ImageReader,
  Missing,
  Report,
  StoredAs,
  check_fraction,
  find_child,
  key_of,
  require_folder,
  split_by,
  unreadable,
)
from painformer_jax.data.builders.people import in_number_order
from painformer_jax.data.task_source import Item, TaskSource

CLASSES = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
# None, uncertain, no face.
LEFT_OUT = (8, 9, 10)
LICENCE = 'AffectNet: research only, by agreement with its authors'
_LISTS = {'train': 'training.csv', 'test': 'validation.csv'}
_COLUMNS = (
  'subDirectory_filePath',
  'face_x',
  'face_y',
  'face_width',
  'face_height',
  'facial_landmarks',
  'expression',
  'valence',
  'arousal',
)
_PARTS = {'train': ('train_set', 'train'), 'test': ('val_set', 'validation', 'val', 'test')}


def affectnet_task(
  source: str | Path,
  name: str = 'affectnet',
  *,
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  test_fraction: float = 0.02,
  split_seed: int = 0,
  max_missing: float = MAX_MISSING,
  report: Report = print,
) -> TaskSource:
  """Lists AffectNet's images with one of the eight expressions.

  Args:
    source: the folder of either layout.
    name: the task's name.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    test_fraction: share of each expression held out where the dataset's own
      validation part is not there.
    split_seed: of that choice.
    max_missing: share of the listed images that may be missing.
    report: takes a line for each kind of thing that is left out.

  Raises:
    InputError: the folder has neither layout or cannot be read, a list is malformed
      (names the row), or too much is missing.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  check_fraction(test_fraction)
  source = require_folder(source)
  found = _Found(source=source, report=report, max_missing=max_missing)
  try:
    lists = _find_lists(source)
    if lists:
      splits = _read_lists(source, lists, found)
    else:
      splits = _read_annotations(source, found)
  except OSError as error:
    raise unreadable(source, error) from error
  found.close()
  if 'test' in splits and 'train' in splits:
    how = "the dataset's validation images for testing"
  else:
    splits = split_by(
      [item for of in splits.values() for item in of],
      key_of,
      fraction=test_fraction,
      seed=split_seed,
    )
    how = (
      f'{test_fraction:g} of the images of each expression held out, by seed '
      f'{split_seed} (reconstructed)'
    )
  return TaskSource(
    name=name,
    classes=CLASSES,
    modality='face',
    description=(
      'Which of 8 expressions, from photographs of faces found on the web '
      f'(AffectNet, annotated by hand), {how}; people may be on both sides. '
      f'{"Cut to the annotated face; images" if lists else "Images"} are '
      f'{stored}.'
    ),
    licence=LICENCE,
    splits=splits,
    read=ImageReader(root=str(source), stored=stored),
    checked=True,
    settings=str(stored),
  )


@dataclasses.dataclass(kw_only=True)
class _Found:
  """Collects items and counts what is left out."""

  source: Path
  report: Report
  max_missing: float
  rows: int = 0
  other: int = 0
  repeated: int = 0
  boxless: int = 0
  missing: Missing = dataclasses.field(init=False)
  _seen: set[str] = dataclasses.field(default_factory=set)

  def __post_init__(self):
    self.missing = Missing(what='AffectNet', folder=self.source, limit=self.max_missing)

  def label(self, text: str, where: str) -> int | None:
    """The label of an expression, None where it is one that is left out."""
    self.rows += 1
    try:
      expression = float(text)
    except ValueError:
      expression = -1
    if expression in LEFT_OUT:
      self.other += 1
      return None
    if expression not in range(len(CLASSES)):
      raise InputError(f'{where}: expression {text!r} is not a number from 0 to 10')
    return int(expression)

  def add(self, items: list[Item], item: Item) -> None:
    """Appends an item whose image is not in any of the lists yet."""
    if item.key in self._seen:
      self.repeated += 1
      return
    self._seen.add(item.key)
    items.append(item)

  def close(self) -> None:
    for count, what in (
      (self.other, 'left out: {} without one of the 8 expressions'),
      (self.repeated, 'left out: {} listed before'),
      (self.boxless, 'kept whole: {} without a valid face box'),
    ):
      if count:
        self.report(what.format(counted(count, 'image')))
    self.missing.close(self.rows, self.report)
    if not self._seen:
      raise InputError(f'{self.source}: no image with one of the 8 expressions')


def _find_lists(source: Path) -> dict[str, Path]:
  """Split -> CSV list of layout (a); empty where there is none."""
  folder = find_child(source, 'Manually_Annotated_file_lists') or source
  return {split: path for split, file in _LISTS.items() if (path := find_child(folder, file))}


def _read_lists(source: Path, lists: dict[str, Path], found: _Found) -> dict[str, list[Item]]:
  folder = (
    find_child(
      source, 'Manually_Annotated_Images', 'Manually_Annotated', 'Manually_Annotated_compressed'
    )
    or source
  )
  folder = find_child(folder, 'Manually_Annotated_Images') or folder
  found.missing.folder = folder
  index = FileIndex(folder, suffixes=ANY_SUFFIX)
  prefix = '' if folder == source else f'{folder.relative_to(source).as_posix()}/'
  splits = {}
  # The test split first: an image in both lists is then not trained on.
  for split in sorted(lists):
    items = splits.setdefault(split, [])
    for row in read_rows(
      lists[split], required=('subDirectory_filePath', 'expression'), header=_COLUMNS
    ):
      label = found.label(row['expression'], row.where)
      if label is None:
        continue
      named = row.required('subDirectory_filePath')
      path = index.find(named)
      if path is None:
        found.missing.add(named)
        continue
      box = _box(row)
      found.boxless += box is None
      found.add(items, Item(key=prefix + path, label=label, detail=box))
  return {split: splits[split] for split in _LISTS if split in splits}


def _box(row: TableRow) -> CropBox | None:
  """The row's face, None where it has no sensible one."""
  try:
    x, y, width, height = (float(row[f'face_{n}']) for n in ('x', 'y', 'width', 'height'))
  except ValueError:
    return None
  if not all(map(math.isfinite, (x, y, width, height))) or width < 1 or height < 1:
    return None
  return CropBox(x=x, y=y, width=width, height=height)


def _read_annotations(source: Path, found: _Found) -> dict[str, list[Item]]:
  parts = {
    split: folder for split, names in _PARTS.items() if (folder := find_child(source, *names))
  }
  if not parts and find_child(source, 'images'):
    parts = {'train': source}
  if not parts:
    raise InputError(
      f'{source} has no known layout of AffectNet: it needs '
      'Manually_Annotated_file_lists/training.csv, or train_set/ and val_set/ '
      'with images/ and annotations/'
    )
  splits = {}
  for split in sorted(parts):
    folder = parts[split]
    images, annotations = (find_child(folder, n) for n in ('images', 'annotations'))
    if images is None or annotations is None:
      raise InputError(f'{folder} has no folder images/ or no annotations/')
    splits[split] = []
    labelled = FileIndex(annotations, suffixes=('_exp.npy',))
    prefix = images.relative_to(source).as_posix()
    for path in sorted(FileIndex(images), key=in_number_order):
      annotation = labelled.find(f'{path.rpartition(".")[0]}_exp.npy')
      text = annotation and _read_expression(annotations / annotation)
      if not text:
        found.rows += 1
        found.missing.add(f'{prefix}/{path} (its expression)')
        continue
      label = found.label(text, str(annotations / annotation))
      if label is not None:
        found.add(splits[split], Item(key=f'{prefix}/{path}', label=label))
  return {split: splits[split] for split in _PARTS if split in splits}


def _read_expression(path: Path) -> str:
  """The one value of an annotation as text, '' where there is none."""
  try:
    return str(np.load(path, allow_pickle=False).item()).strip()
  # A damaged file; an array of objects, or of several values.
  except (ValueError, EOFError):
    return ''
