"""Contact sheets: prepared images beside what augmentation makes of them, to look at."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from painformer_jax.checkpoints.atomic import check_file_target, write_atomically
from painformer_jax.data import augment as augmentation
from painformer_jax.data.batch import decode_rgb
from painformer_jax.data.prepared import open_task
from painformer_jax.errors import InputError

SUFFIXES = ('.png', '.jpg', '.jpeg')

# Layout, pixels.
_MARGIN, _GAP, _AFTER_ORIGINAL = 16, 4, 16
_HEADER, _HEADINGS, _CAPTION, _AFTER_TASK = 36, 22, 22, 12

_PAPER, _INK, _FAINT, _LINE = (250, 250, 248), (30, 30, 34), (120, 120, 128), (205, 205, 208)


def contact_sheet(
    data_dir: str | Path,
    tasks: Sequence[str],
    *,
    augment: str | Mapping[str, str],
    images: int = 3,
    versions: int = 7,
    seed: int = 0,
    split: str = 'train',
    image_size: int = 224,
    tile: int = 128,
) -> np.ndarray:
  """Draws rows of images: each as it is stored, then augmented over and over.

  Args:
    data_dir: where the prepared tasks are.
    tasks: their names, from top to bottom.
    augment: a policy of `data.augment`, for all tasks or by task.
    images: how many of each task, drawn from the split; all where it has fewer.
    versions: augmented forms of each.
    seed: of the choice of images and of the augmentation, 0 or above.
    split: which to draw from.
    image_size: side at which images are augmented, as in training, pixels.
    tile: side at which they are shown, pixels.

  Returns:
    [height, width, 3] uint8 RGB.

  Raises:
    InputError: no task, a task or split that is not there, a policy that is not one or
      not for the task's modality, a number out of range, a damaged record.
  """
  least = {'images': (images, 1), 'versions': (versions, 1), 'seed': (seed, 0),
           'image_size': (image_size, 8), 'tile': (tile, 48)}
  for name, (value, smallest) in least.items():
    if value < smallest:
      raise InputError(f'{name} is {value}, below {smallest}')
  if not tasks:
    raise InputError('a contact sheet needs at least one task')
  if not isinstance(augment, str) and set(tasks) - set(augment):
    raise InputError(f'no augmentation given for task {sorted(set(tasks) - set(augment))[0]}')
  width = 2 * _MARGIN + tile + _AFTER_ORIGINAL + versions * (tile + _GAP) - _GAP
  parts = []
  for name in tasks:
    task = open_task(data_dir, name)
    spec = augment if isinstance(augment, str) else augment[name]
    change = augmentation.policy(spec, modality=task.modality)
    records = task.records(split)
    own = [seed, zlib.crc32(name.encode())]
    chosen = np.random.default_rng(own).choice(
        len(records), min(images, len(records)), replace=False)
    parts.append(_header(
        name, f'{task.modality}, {len(task.classes):,} classes, {len(records):,} images '
        f'in {split}', f'policy: {_described(spec, change)}', width))
    parts.append(_headings(versions, tile, width))
    for index in chosen.tolist():
      record = records[index]
      try:
        image = decode_rgb(record['image'], image_size=image_size)
      except ValueError as error:
        raise InputError(
            f"task '{name}', split '{split}', example '{record['key']}': {error}; delete "
            "the task's folder and prepare it again") from error
      changed = [change(image, np.random.default_rng([*own, index, number]))
                 for number in range(versions)]
      parts.append(_row([image, *changed], tile, width,
                        title=task.classes[record['label']], key=record['key']))
    parts.append(_blank(_AFTER_TASK, width))
  return np.concatenate(parts)


def write_contact_sheet(
    path: str | Path, data_dir: str | Path, tasks: Sequence[str], **options) -> None:
  """Writes a contact sheet as .png or .jpg; the options are those of `contact_sheet`.

  Raises:
    InputError: as `contact_sheet` says; the path has another suffix or cannot be
      written to.
  """
  suffix = Path(path).suffix.lower()
  if suffix not in SUFFIXES:
    raise InputError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
  check_file_target(path)
  sheet = contact_sheet(data_dir, tasks, **options)
  # JPEG files are at most 65535 pixels high.
  if suffix != '.png' and max(sheet.shape) > 65_535:
    raise InputError(
        f'{path}: the sheet is {sheet.shape[0]} pixels high, too many for JPEG: take '
        '.png, fewer images or smaller tiles')
  encoded = cv2.imencode(suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()
  write_atomically(path, lambda file: file.write(encoded))


def _described(spec, policy):
  """A named recipe with what it does."""
  text = getattr(policy, 'text', spec)
  return spec if text == spec else f'{spec} = {text}'


def _header(name, about, policy, width):
  part = _blank(_HEADER + _CAPTION, width)
  cv2.line(part, (_MARGIN, 6), (width - _MARGIN, 6), _LINE, 1)
  end = _write(part, name, (_MARGIN, 28), width, size=0.62, font=cv2.FONT_HERSHEY_DUPLEX)
  _write(part, about, (end + 14, 28), width, size=0.42, colour=_FAINT)
  _write(part, policy, (_MARGIN, _HEADER + 14), width, size=0.4, colour=_FAINT)
  return part


def _headings(versions, tile, width):
  part = _blank(_HEADINGS, width)
  texts = ['as stored', *(str(number + 1) for number in range(versions))]
  for text, left in zip(texts, _columns(versions, tile)):
    _write(part, text, (left, 14), width, size=0.38, colour=_FAINT)
  return part


def _row(images, tile, width, *, title, key):
  part = _blank(tile + 2 + _CAPTION + _GAP, width)
  for image, left in zip(images, _columns(len(images) - 1, tile)):
    shrink = image.shape[0] > tile
    shown = cv2.resize(image, (tile, tile), interpolation=(
        cv2.INTER_AREA if shrink else cv2.INTER_NEAREST))
    cv2.rectangle(part, (left - 1, 0), (left + tile, tile + 1), _LINE, 1)
    part[1:tile + 1, left:left + tile] = shown
  end = _write(part, title, (_MARGIN, tile + 17), width, size=0.42)
  _write(part, key, (end + 14, tile + 17), width, size=0.4, colour=_FAINT)
  return part


def _columns(versions, tile):
  """Left ends of the original and of each version."""
  first = _MARGIN + tile + _AFTER_ORIGINAL
  return [_MARGIN, *(first + number * (tile + _GAP) for number in range(versions))]


def _blank(height, width):
  return np.full((height, width, 3), _PAPER, np.uint8)


def _write(part, text, place, width, *, size, colour=_INK, font=cv2.FONT_HERSHEY_SIMPLEX):
  """Writes one line, cut off at the margin; returns where it ends."""
  # OpenCV's fonts have ASCII alone.
  text, room = text.encode('ascii', 'replace').decode(), width - _MARGIN - place[0]

  def extent(text):
    return cv2.getTextSize(text, font, size, 1)[0][0]

  if extent(text) > room:
    while text and extent(text + '...') > room:
      text = text[:-1]
    text = text and text + '...'
  cv2.putText(part, text, place, font, size, colour, 1, cv2.LINE_AA)
  return place[0] + extent(text)
