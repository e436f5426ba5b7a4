"""What a dataset's reader hands to the builder that stores it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """One labelled image.

  Attributes:
    key: unique within the task and stable between runs.
    image: an encoded PNG or JPEG, RGB or grey.
    label: index into the task's classes.
    source: where it came from, for people: a file, or a recording and a span
      of seconds.
  """

  key: str
  image: bytes
  label: int
  source: str


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
    splits: split name -> a function that yields the split's examples anew at
      each call. 'train' and 'test' share no recording and no span of time
      unless the description says so.
  """

  name: str
  classes: tuple[str, ...]
  modality: str
  description: str
  licence: str
  splits: Mapping[str, Callable[[], Iterable[Example]]]
