"""Contact sheets: prepared images beside augmented versions of them."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.data import augment as augmentation
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.prepared import open_task
from painformer_jax.modalities import canvas

# Layout, pixels.
_MARGIN, _GAP, _AFTER_ORIGINAL = 16, 4, 16
_HEADER, _HEADINGS, _CAPTION, _AFTER_TASK = 36, 22, 22, 12


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
  """Renders rows of images: each as it is stored, then several augmented versions of it.

  Args:
    data_dir: where the prepared tasks are.
    tasks: their names, from top to bottom.
    augment: a policy of `data.augment`, for all tasks or by task.
    images: how many of each task, sampled from the split; all where it has fewer.
    versions: augmented versions of each.
    seed: of the choice of images and of the augmentation, 0 or above.
    split: which to sample from.
    image_size: side at which images are augmented, as in training, pixels.
    tile: side at which they are shown, pixels.

  Returns:
    [height, width, 3] uint8 RGB.

  Raises:
    InputError: no task, a task or split that is not there, a policy that is not one or
      not for the task's modality, a number out of range, a damaged record.
  """
  least = {
    'images': (images, 1),
    'versions': (versions, 1),
    'seed': (seed, 0),
    'image_size': (image_size, 8),
    'tile': (tile, 48),
  }
  for name, (value, smallest) in least.items():
    if value < smallest:
      raise InputError(f'{name} is {value}, below {smallest}')
  if not tasks:
    raise InputError('a contact sheet needs at least one task')
  if not isinstance(augment, str) and set(tasks) - set(augment):
    raise InputError(f'no augmentation given for task {sorted(set(tasks) - set(augment))[0]}')
  width = 2 * _MARGIN + tile + _AFTER_ORIGINAL + versions * (tile + _GAP) - _GAP
  strips = []
  for name in tasks:
    task = open_task(data_dir, name)
    spec = augment if isinstance(augment, str) else augment[name]
    change = augmentation.policy(spec, modality=task.modality)
    records = task.records(split)
    own = [seed, zlib.crc32(name.encode())]
    chosen = np.random.default_rng(own).choice(
      len(records), min(images, len(records)), replace=False
    )
    strips.append(
      _header(
        name,
        f'{task.modality}, {len(task.classes):,} classes, {len(records):,} images in {split}',
        f'policy: {_described(spec, change)}',
        width,
      )
    )
    strips.append(_headings(versions, tile, width))
    for index in chosen.tolist():
      record = records[index]
      try:
        image = decode_rgb(record['image'], image_size=image_size)
      except ValueError as error:
        raise InputError(
          f"task '{name}', split '{split}', example '{record['key']}': {error}; delete "
          "the task's folder and prepare it again"
        ) from error
      changed = [
        change(image, np.random.default_rng([*own, index, number])) for number in range(versions)
      ]
      strips.append(
        _row([image, *changed], tile, width, title=task.classes[record['label']], key=record['key'])
      )
    strips.append(canvas.blank(_AFTER_TASK, width))
  return np.concatenate(strips)


def write_contact_sheet(
  path: str | Path, data_dir: str | Path, tasks: Sequence[str], **options
) -> None:
  """Writes a contact sheet as .png or .jpg; the options are those of `contact_sheet`.

  Raises:
    InputError: as `contact_sheet` and `canvas.save` say.
  """
  canvas.check_path(path)
  canvas.save(path, contact_sheet(data_dir, tasks, **options))


def _described(spec, policy):
  """The policy's name, and its recipe where it has one."""
  text = getattr(policy, 'text', spec)
  return spec if text == spec else f'{spec} = {text}'


def _header(name, about, policy, width):
  part = canvas.blank(_HEADER + _CAPTION, width)
  cv2.line(part, (_MARGIN, 6), (width - _MARGIN, 6), canvas.LINE, 1)
  end = _write(part, name, _MARGIN, 28, size=0.62, font=canvas.HEAVY)
  _write(part, about, end + 14, 28, size=0.42, colour=canvas.FAINT)
  _write(part, policy, _MARGIN, _HEADER + 14, size=0.4, colour=canvas.FAINT)
  return part


def _headings(versions, tile, width):
  part = canvas.blank(_HEADINGS, width)
  texts = ['as stored', *(str(number + 1) for number in range(versions))]
  for text, left in zip(texts, _columns(versions, tile)):
    _write(part, text, left, 14, size=0.38, colour=canvas.FAINT)
  return part


def _row(images, tile, width, *, title, key):
  part = canvas.blank(tile + 2 + _CAPTION + _GAP, width)
  for image, left in zip(images, _columns(len(images) - 1, tile)):
    canvas.draw_tile(part, image, left=left, top=1, side=tile)
  end = _write(part, title, _MARGIN, tile + 17, size=0.42)
  _write(part, key, end + 14, tile + 17, size=0.4, colour=canvas.FAINT)
  return part


def _columns(versions, tile):
  """Left ends of the original and of each version."""
  first = _MARGIN + tile + _AFTER_ORIGINAL
  return [_MARGIN, *(first + number * (tile + _GAP) for number in range(versions))]


def _write(part, text, left, base, **style):
  """Writes a line of text, cut off at the margin; returns where it ends."""
  return canvas.write(part, text, (left, base), room=part.shape[1] - _MARGIN - left, **style)
