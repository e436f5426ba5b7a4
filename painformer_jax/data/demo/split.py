"""Spans of recordings, and the proof that splits share none."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence

from painformer_jax.core.errors import InputError
from painformer_jax.data.example import TaskSource

_TEXT = re.compile(
  r'(?P<recording>[^,]+)'
  r'(, (?P<channel>[^,]+), (?P<start>[\d.]+)-(?P<stop>[\d.]+) s)?'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
  """What an example was made of; its text is the example's `source`.

  Attributes:
    recording: a file or a set of simultaneous channels; without a comma.
    channel: within the recording; '' for a still image.
    start, stop: in seconds from the recording's start; 0 for a still image.
  """

  recording: str
  channel: str = ''
  start: float = 0.0
  stop: float = 0.0

  def __str__(self) -> str:
    if not self.channel:
      return self.recording
    return f'{self.recording}, {self.channel}, {self.start:.3f}-{self.stop:.3f} s'

  @classmethod
  def parse(cls, text: str) -> 'Span':
    """Reads a span's text back.

    Raises:
      InputError: not the text of a span.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
      raise InputError(f'{text!r} names no recording and span')
    if match['channel'] is None:
      return cls(recording=match['recording'])
    return cls(
      recording=match['recording'],
      channel=match['channel'],
      start=float(match['start']),
      stop=float(match['stop']),
    )


def check_disjoint(tasks: Sequence[TaskSource], *, gap: float = 0.0):
  """Proves that nothing tested on was trained on, in any of the tasks.

  Every example is made: the check is on what is delivered. Train and test
  spans are compared across all tasks together, whatever their channels, as
  the tasks train one model.

  Args:
    gap: least distance between train and test spans of one recording, in
      seconds.

  Raises:
    InputError: a train and a test example of one recording overlap or are
      closer than `gap`, are the same still or the same image.
  """
  spans = {'train': defaultdict(list), 'test': defaultdict(list)}
  images = {'train': {}, 'test': {}}
  for task in tasks:
    for split in spans:
      for item in task.splits[split]:
        where = f'{task.name}/{split}: {item.source}'
        span = Span.parse(item.source)
        spans[split][span.recording].append((span, where))
        images[split][task.read(item)] = where
  for recording, tested in spans['test'].items():
    for test, test_where in tested:
      for train, train_where in spans['train'].get(recording, ()):
        still = not (test.channel and train.channel)
        if still or (train.start - gap < test.stop and test.start < train.stop + gap):
          raise InputError(f'{test_where} is not apart from {train_where}')
  for image in images['test'].keys() & images['train'].keys():
    raise InputError(f'{images["test"][image]} is the same image as {images["train"][image]}')
