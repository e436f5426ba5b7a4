"""Proves that no test example of the demo corpus is made of what a training example is."""

import re
from collections import defaultdict
from collections.abc import Sequence

from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.data.task_source import TaskSource

_TEXT = re.compile(
  r'(?P<recording>[^,]+)'
  r'(, (?P<channel>[^,]+), (?P<start>[\d.]+)-(?P<stop>[\d.]+) s)?'
)


def parse_span(text: str) -> RecordingSpan:
  """Reads a span's text back; AssertionError where it is none."""
  match = _TEXT.fullmatch(text)
  assert match, f'{text!r} names no recording and span'
  if match['channel'] is None:
    return RecordingSpan(recording=match['recording'])
  return RecordingSpan(
    recording=match['recording'],
    channel=match['channel'],
    start=float(match['start']),
    stop=float(match['stop']),
  )


def check_disjoint(tasks: Sequence[TaskSource], *, gap: float = 0.0) -> None:
  """Checks that nothing that is tested on is trained on, in any of the tasks.

  Every example is made: the check is on what is stored. Train and test
  spans are compared across all tasks together, whatever their channels, as
  the tasks train one model.

  Args:
    gap: least distance between train and test spans of one recording, in
      seconds.

  Raises:
    AssertionError: a train and a test example of one recording overlap or are
      closer than `gap`, are the same still or the same image.
  """
  spans = {'train': defaultdict(list), 'test': defaultdict(list)}
  images = {'train': {}, 'test': {}}
  for task in tasks:
    for split in spans:
      for item in task.splits[split]:
        where = f'{task.name}/{split}: {item.source}'
        span = parse_span(item.source)
        spans[split][span.recording].append((span, where))
        images[split][task.read(item)] = where
  for recording, tested in spans['test'].items():
    for test, test_where in tested:
      for train, train_where in spans['train'].get(recording, ()):
        still = not (test.channel and train.channel)
        if still or (train.start - gap < test.stop and test.start < train.stop + gap):
          raise AssertionError(f'{test_where} is not apart from {train_where}')
  for image in images['test'].keys() & images['train'].keys():
    raise AssertionError(f'{images["test"][image]} is the same image as {images["train"][image]}')
