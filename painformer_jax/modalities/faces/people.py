"""Which person of a clip is taken, and where the face is in each frame."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.config import Choice, FaceConfig
from painformer_jax.modalities.faces.tracks import Look, Track

State = Literal['detected', 'tracked', 'held', 'other', 'none']

# Who is detected in fewer frames than this share of those of the person seen most comes after
# all others: somebody who passes by close to the camera, or what is no face.
_OFTEN = 0.5
# A box in which no face was detected is not the person's if a detected face, which is another's,
# covers it, or is covered by it, by this share.
_HIDDEN = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
  """Where a person's face is in a frame.

  Attributes:
    state: 'detected' in this frame; 'tracked' between two detections; 'held' where the box
      stands still before the first or after the last detection.
    box: in pixels of the frame.
  """

  state: State
  box: FaceBox


def ranked(people: Sequence[Track], looks: Sequence[Look], choose: Choice) -> list[Track]:
  """The people of a clip, first the one to take, by the whole clip and not by one frame.

  Whoever is detected in less than half as many frames as the person seen most comes after
  those who are seen more. Among the others the first is the one with the largest face, or the
  one nearest to the middle of the frame, by the median over the detections.

  Args:
    people: from `tracks`.
    looks: of all frames.
    choose: as in `FaceConfig`; 'all' ranks as 'largest'.
  """
  most = max(map(len, people), default=0)

  def key(person: Track) -> tuple[bool, float]:
    if choose == 'central':
      measure = float(np.median([_off_centre(box, looks[n]) for n, box in person.items()]))
    else:
      measure = -float(np.median([box.area for box in person.values()]))
    return len(person) < _OFTEN * most, measure

  return sorted(people, key=key)


def places(person: Track, looks: Sequence[Look], config: FaceConfig) -> dict[int, Place]:
  """Where the person's face is: number of the frame -> place; other frames show none.

  In frames between two detections that are at most `max_gap` apart, in one scene, the box
  moves in a straight line. In other frames of a detection's scene, at most `max_gap` after or
  before it, the box is held where it was. Where another's face was detected at that place, the
  person is hidden, and the frame shows none.

  Args:
    person: from `tracks`.
    looks: of all frames.
    config: its `max_gap` and `smoothing`.
  """
  found: dict[int, Place] = {}
  runs = _runs(list(person), looks, config.max_gap)
  done = -1  # The last frame of the run before.
  for run, following in itertools.zip_longest(runs, runs[1:]):
    first, last = run[0], run[-1]
    stop = following[0] if following else len(looks)
    boxes = dict(_between(person, run, looks))
    boxes |= _held(person, last, range(last + 1, stop), looks, config.max_gap)
    boxes |= _held(person, first, range(first - 1, done, -1), looks, config.max_gap)
    steady = _Steady(config.smoothing)
    for number in sorted(boxes):
      if _hidden(number, boxes, person, looks):
        continue
      inside = 'tracked' if first < number < last else 'held'
      found[number] = Place(
        state='detected' if number in person else inside,
        box=steady(looks[number].time, boxes[number]),
      )
    done = max(boxes)
  return found


def _hidden(number: int, boxes: Track, person: Track, looks: Sequence[Look]) -> bool:
  """Whether another's face is where the person's, which was not detected, would be.

  A frame that was not searched is judged by the searched ones beside it.
  """
  for step in (-1, 1):
    near = number
    while 0 <= near < len(looks) and looks[near].boxes is None:
      near += step
    if near in boxes and near not in person:
      if any(boxes[near].covers(other) > _HIDDEN for other in looks[near].boxes or ()):
        return True
  return False


def _runs(numbers: Sequence[int], looks: Sequence[Look], max_gap: float) -> list[list[int]]:
  """Detections, divided at cuts and at gaps longer than `max_gap`."""
  runs: list[list[int]] = []
  for number in numbers:
    here = looks[number]
    before = looks[runs[-1][-1]] if runs else None
    if before and before.scene == here.scene and here.time - before.time <= max_gap:
      runs[-1].append(number)
    else:
      runs.append([number])
  return runs


def _between(
  person: Track, run: Sequence[int], looks: Sequence[Look]
) -> Iterator[tuple[int, FaceBox]]:
  """The box in each frame from the first to the last detection of a run."""
  for last, following in itertools.pairwise(run):
    yield last, person[last]
    start, stop = looks[last].time, looks[following].time
    for number in range(last + 1, following):
      share = (looks[number].time - start) / ((stop - start) or 1)
      yield number, person[last].blend(person[following], share)
  yield run[-1], person[run[-1]]


def _held(
  person: Track, detection: int, numbers: Sequence[int], looks: Sequence[Look], max_gap: float
) -> Track:
  """The box of a detection in the frames beside it, as far as they are near and of its scene."""
  here = looks[detection]

  def near(number: int) -> bool:
    there = looks[number]
    return there.scene == here.scene and abs(there.time - here.time) <= max_gap

  return dict.fromkeys(itertools.takewhile(near, numbers), person[detection])


class _Steady:
  """Exponential mean of a box over time."""

  def __init__(self, constant: float):
    self._constant = constant
    self._last: tuple[float, FaceBox] | None = None

  def __call__(self, time: float, box: FaceBox) -> FaceBox:
    if self._constant and self._last:
      before, mean = self._last
      box = mean.blend(box, 1 - math.exp(-(time - before) / self._constant))
    self._last = time, box
    return box


def _off_centre(box: FaceBox, look: Look) -> float:
  """Distance from the middle of the frame, over its diagonal."""
  middle = (look.width / 2, look.height / 2)
  return math.dist(box.centre, middle) / math.hypot(look.width, look.height)
