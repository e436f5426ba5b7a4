"""A dataset as its reader lists it: what `builders.base.store` turns into a prepared task."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
  """One labelled image that a reader has listed but not read.

  Attributes:
    key: unique within the task and the same in every run, such as a file's path
      relative to the dataset's folder.
    label: index into the task's classes.
    source: where it comes from, in words: a file, or a recording and a span of
      seconds; '' where the key says it.
    identity: the person (or animal, or recording) that it shows, where that is known
      and is not the class: no identity may be in two splits. '' otherwise.
    detail: whatever else the task's `read` needs; must be picklable.
  """

  key: str
  label: int
  source: str = ''
  identity: str = ''
  detail: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSource:
  """One classification task before it is stored.

  Attributes:
    name: lower_snake_case, the name of the stored dataset and of the head.
    classes: class names, in the order of the labels.
    modality: kind of input, such as 'face', 'waveform', 'spectrogram'.
    description: one paragraph: what the classes are and how the split was made.
    licence: terms of the recordings.
    splits: split name -> the split's items, in the order they are stored.
      'train' and 'test' share no recording and no span of time unless the
      description says so.
    read: reads one item: an encoded PNG or JPEG, RGB or grey. Raises ValueError
      or OSError where the item cannot be read, which is then skipped and counted.
      Called from several threads at once; must be picklable where a task is
      prepared on several machines.
    checked: whether `read` decodes and encodes what it returns. Where it returns
      the bytes of a file as they are, each image is decoded once before it is stored.
    settings: what decides the images besides the items, such as their size: a
      stored task with other settings is another task.
  """

  name: str
  classes: tuple[str, ...]
  modality: str
  description: str
  licence: str
  splits: Mapping[str, Sequence[Item]]
  read: Callable[[Item], bytes]
  checked: bool = False
  settings: str = ''


def listing_sha256(items: Sequence[Item], *, settings: str) -> str:
  """Hex SHA-256 of which images are listed, in which order, and of the settings."""
  digest = hashlib.sha256(f'{settings}\n'.encode())
  for item in items:
    detail = item.detail
    detail = detail.tobytes() if hasattr(detail, 'tobytes') else repr(detail).encode()
    digest.update(f'{len(item.key)}:{item.key}:{item.label}:{item.identity}:'.encode() + detail)
  return digest.hexdigest()
