"""A folder of images, one sub-folder a class, as a task."""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from painformer_jax.data.batch import decode_strictly
from painformer_jax.data.example import Example, TaskSource
from painformer_jax.errors import InputError
from painformer_jax.modalities.images import squash

SUFFIXES = ('.jpg', '.jpeg', '.png')
JPEG_QUALITY = 95
# Unreadable files are skipped up to this share of a split (and one at least).
MAX_UNREADABLE = 0.01
# Files in flight: enough to keep every core busy, few enough to hold.
CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
  path: Path
  key: str
  label: int


def folder_task(
    source: str | Path,
    name: str,
    *,
    image_size: int,
    encoding: str = 'jpeg',
    test_fraction: float = 0.2,
    split_seed: int = 0,
    modality: str = 'image',
    licence: str = 'not stated',
    report: Callable[[str], None] = print,
) -> TaskSource:
  """Reads SOURCE/{train,test}/<class>/... or SOURCE/<class>/... as a task.

  Files ending in .jpg, .jpeg or .png count, at any depth below the class.
  Without train/ and test/ folders a share of each class is held out, chosen by
  a hash of the seed and the file's path.

  Args:
    source: the folder.
    name: the task's name.
    image_size: images are squashed to this square, pixels, and stored so.
    encoding: 'jpeg' (quality 95) or 'png' (exact, larger).
    test_fraction: share of each class held out, above 0 and below 1; unused
      where there are train/ and test/ folders.
    split_seed: of the hold-out.
    modality: kind of input, kept with the task.
    licence: terms of the images, kept with the task.
    report: takes a line for each unreadable file.

  Raises:
    InputError: the folder is not laid out so, it cannot be read, a name in it
      is not UTF-8; while the examples are read, more than 1 % of a split's
      files are unreadable.
  """
  source = Path(source)
  if encoding not in _ENCODERS:
    raise InputError(
        f"no encoding '{encoding}', only {' and '.join(_ENCODERS)}")
  if not 0 < test_fraction < 1:
    raise InputError(f'the test fraction {test_fraction} is not between 0 and 1')
  try:
    classes, files, how = _read_layout(
        source, test_fraction=test_fraction, split_seed=split_seed)
  except OSError as error:
    raise InputError(
        f'{error.filename or source} cannot be read: {error.strerror}') from error
  stored = f'JPEG of quality {JPEG_QUALITY}' if encoding == 'jpeg' else 'PNG'
  return TaskSource(
      name=name,
      classes=tuple(classes),
      modality=modality,
      description=(
          f'A folder of images in {len(classes)} classes: '
          f"{len(files['train'])} files for training, {len(files['test'])} for "
          f'testing, {how}. Squashed to {image_size} x {image_size} pixels, '
          f'stored as {stored}.'),
      licence=licence,
      splits={
          split: lambda of=of: _examples(
              of, image_size=image_size, encode=_ENCODERS[encoding],
              report=report)
          for split, of in files.items()})


def _read_layout(
    source: Path, *, test_fraction: float, split_seed: int,
) -> tuple[list[str], dict[str, list[_File]], str]:
  """Class names, each split's files, and how the splits were made."""
  if not source.is_dir():
    raise InputError(f'there is no folder {source}')
  if (source / 'train').is_dir() or (source / 'test').is_dir():
    return *_split_folders(source), 'split as by its train and test folders'
  classes = _folders(source)
  if len(classes) < 2:
    raise InputError(
        f'{source} has {len(classes)} folders, needs one for each of 2 or more '
        'classes, or train/ and test/ with these inside')
  files = _hold_out(
      _list_images(source, classes), fraction=test_fraction, seed=split_seed)
  how = (f'{test_fraction:g} of the images of each class held out, by seed '
         f'{split_seed}; images of one recording or person may be on both '
         'sides')
  return classes, files, how


def _split_folders(source: Path) -> tuple[list[str], dict[str, list[_File]]]:
  classes = {}
  for split in ('train', 'test'):
    if not (source / split).is_dir():
      raise InputError(
          f'{source} has no folder {split}/ beside its other one; add it, or '
          'name the other one as the source to have a part of it held out')
    classes[split] = _folders(source / split)
  unseen = sorted(set(classes['test']) - set(classes['train']))
  if unseen:
    raise InputError(
        f"{source}/test has classes that train/ has not: {', '.join(unseen[:5])}"
        f"{', ...' if len(unseen) > 5 else ''}; to train on train/ alone, name "
        'it as the source to have a part of it held out')
  if len(classes['train']) < 2:
    raise InputError(
        f"{source}/train has {len(classes['train'])} folders, needs one for "
        'each of 2 or more classes')
  return classes['train'], {
      split: _list_images(
          source / split, classes['train'], present=classes[split],
          prefix=f'{split}/')
      for split in ('train', 'test')}


def _folders(folder: Path) -> list[str]:
  return sorted(
      p.name for p in folder.iterdir()
      if p.is_dir() and not p.name.startswith('.'))


def _list_images(
    folder: Path, classes: Sequence[str], *,
    present: Sequence[str] | None = None, prefix: str = '',
) -> list[_File]:
  """Images of the class folders in a fixed order; the key is the path."""
  labels = {name: i for i, name in enumerate(classes)}
  files = []
  for name in classes if present is None else present:
    found = sorted(
        Path(root, file)
        for root, _, names in os.walk(folder / name, onerror=_raise)
        for file in names
        if file.lower().endswith(SUFFIXES) and not file.startswith('.'))
    if not found:
      raise InputError(
          f'{folder / name} has no image (looked for {", ".join(SUFFIXES)})')
    for path in found:
      _check_name(path)
    files += [
        _File(path=p, key=prefix + p.relative_to(folder).as_posix(),
              label=labels[name])
        for p in found]
  return files


def _raise(error: OSError):
  raise error


def _check_name(path: Path) -> None:
  """Refuses names that a record, whose text is UTF-8, could not give back."""
  try:
    str(path).encode()
  except UnicodeEncodeError as error:
    # Python holds bytes that are not UTF-8 as lone surrogates.
    raise InputError(
        f'the name {os.fsencode(path)!r} is not UTF-8; rename it') from error


def _hold_out(
    files: Sequence[_File], *, fraction: float, seed: int,
) -> dict[str, list[_File]]:
  """Takes `fraction` of each class, at least one image where it has two."""
  by_class = {}
  for file in files:
    by_class.setdefault(file.label, []).append(file)
  held = set()
  for members in by_class.values():
    members = sorted(members, key=lambda f: hashlib.blake2b(
        f'{seed}/{f.key}'.encode(), digest_size=8).digest())
    count = min(max(1, round(fraction * len(members))), len(members) - 1)
    held.update(f.key for f in members[:count])
  return {
      'train': [f for f in files if f.key not in held],
      'test': [f for f in files if f.key in held]}


def _examples(
    files: Sequence[_File],
    *,
    image_size: int,
    encode: Callable[[np.ndarray], bytes],
    report: Callable[[str], None],
) -> Iterator[Example]:
  def read(file: _File) -> bytes | Exception:
    try:
      return encode(squash(decode_strictly(file.path.read_bytes()), image_size))
    except (OSError, ValueError) as error:
      return error

  unreadable = 0
  pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
  try:
    for start in range(0, len(files), CHUNK):
      chunk = files[start:start + CHUNK]
      for file, image in zip(chunk, pool.map(read, chunk)):
        if not isinstance(image, Exception):
          yield Example(
              key=file.key, image=image, label=file.label, source=str(file.path))
          continue
        unreadable += 1
        report(f'skipped {file.path}: {image}')
        if unreadable > max(1, MAX_UNREADABLE * len(files)):
          raise InputError(
              f'more than {MAX_UNREADABLE:.0%} of the {len(files)} files are '
              f'unreadable, the last: {file.path}: {image}')
  finally:
    # Whoever wants only the first example does not wait for the whole chunk.
    pool.shutdown(cancel_futures=True)


def _encode_jpeg(rgb: np.ndarray) -> bytes:
  return cv2.imencode(
      '.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
      [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _encode_png(rgb: np.ndarray) -> bytes:
  return cv2.imencode(
      '.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


_ENCODERS = {'jpeg': _encode_jpeg, 'png': _encode_png}
