"""What a dataset's reader hands to the builder that stores it."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
  """One labelled image that a reader has found, not yet read.

  Attributes:
    key: unique within the task and stable between runs, such as a file's path
      below the dataset's folder.
    label: index into the task's classes.
    source: where it comes from, for people: a file, or a recording and a span
      of seconds; '' where the key says it.
    identity: the person (or animal, or recording) it shows, where that is known
      and is not the class: no identity may be in two splits. '' otherwise.
    detail: whatever else the task's `read` needs; can be pickled.
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
    description: one paragraph: what is told from what, and how the split was
      made.
    licence: terms of the recordings.
    splits: split name -> the split's items, in the order they are stored.
      'train' and 'test' share no recording and no span of time unless the
      description says so.
    read: reads one item: an encoded PNG or JPEG, RGB or grey. Raises ValueError
      or OSError where the item cannot be read, which is then skipped and counted.
      Called from several threads at once; can be pickled where a task is
      prepared on several machines.
    checked: whether `read` decodes and encodes what it returns; where it hands on
      bytes as they are, each image is decoded once before it is stored.
    settings: what decides the images beside the items, such as their size: a
      stored task of other settings is another task.
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
  """Hex SHA-256 of which images a list names, in which order, drawn how."""
  digest = hashlib.sha256(f'{settings}\n'.encode())
  for item in items:
    detail = item.detail
    detail = detail.tobytes() if hasattr(detail, 'tobytes') else repr(detail).encode()
    digest.update(f'{len(item.key)}:{item.key}:{item.label}:{item.identity}:'.encode() + detail)
  return digest.hexdigest()
