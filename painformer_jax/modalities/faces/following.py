"""The faces in each frame of a clip, each one person's.

A clip is read twice. The first pass finds all boxes, of which the person is chosen by the
whole clip; the second gives the frames. So memory holds the boxes of a clip of any length, but
its frames only where all of them are few and small. A look-ahead instead would choose by the
clip's beginning. Decoding twice costs little: finding faces takes ten times as long.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.config import FaceConfig
from painformer_jax.modalities.faces.people import Place, State, places, ranked
from painformer_jax.modalities.faces.scenes import Scenes, alike
from painformer_jax.modalities.faces.tracks import Look, may_go_on, tracks
from painformer_jax.modalities.video import Frame

# Raised where the same clip and settings give other faces than before; caches keep it.
VERSION = 3

# Frames without a time are assumed to be 1/25 s apart.
_RATE = 25.0
# A clip whose frames take at most so many bytes is decoded once: images, above all.
_KEPT = 64 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
  """A frame and one face in it.

  Attributes:
    frame: as it was decoded.
    state: 'detected' in this frame; 'tracked' between two detections; 'held' near one, where
      the person is not found before or after; 'other' where only other faces are found, or
      one of them is where the person's would be; 'none'.
    box: None where the state is 'other' or 'none'.
    person: number from 1, the largest face first; 1 if only one person is taken; 0 where
      there is no box.
  """

  frame: Frame
  state: State
  box: FaceBox | None
  person: int = 0


def follow(
  open_frames: Callable[[], Iterable[Frame]],
  config: FaceConfig,
  *,
  detect: Callable[[np.ndarray], list[FaceBox]],
) -> Iterator[Face]:
  """Finds the person of a clip, or all people, and gives the face in each frame.

  Args:
    open_frames: gives the frames from the beginning, in order of time, at any rate, each with
      a number of its own; called once or twice.
    config: see `FaceConfig`. With `choose='all'` a frame comes once for each face in it.
    detect: uint8 [height, width, 3] RGB -> boxes; called with one frame after the other. For
      a clip, a new `ClipDetector`.

  Yields:
    At least one `Face` a frame, in order of frames, then of people.
  """
  looks, kept = _look(open_frames(), config, detect)
  people = ranked(tracks(looks, config), looks, config.choose)
  if config.choose != 'all':
    people = people[:1]
  # Number of the frame -> (number of the person, where the face is).
  found: dict[int, list[tuple[int, Place]]] = {}
  others = {look.frame for look in looks if look.boxes}
  for person, track in enumerate(people, 1):
    for number, place in places(track, looks, config).items():
      found.setdefault(looks[number].frame, []).append((person, place))
  for frame in open_frames() if kept is None else kept:
    for person, place in found.get(frame.number, ()):
      yield Face(frame=frame, state=place.state, box=place.box, person=person)
    if frame.number not in found:
      yield Face(frame=frame, state='other' if frame.number in others else 'none', box=None)


def _look(
  frames: Iterable[Frame], config: FaceConfig, detect
) -> tuple[list[Look], list[Frame] | None]:
  """The first pass: what is seen in each frame, and the frames if they are few."""
  looks: list[Look] = []
  kept: list[Frame] | None = []
  size, time, scene_of = 0, -math.inf, Scenes()
  # The last frame that was searched.
  last: Look | None = None
  before: Frame | None = None
  for frame in frames:
    time = max(time, frame.time if math.isfinite(frame.time) else frame.number / _RATE)
    searched = len(looks) % config.detect_every == 0
    look = Look(
      frame=frame.number,
      time=time,
      scene=scene_of(frame.image),
      height=frame.image.shape[0],
      width=frame.image.shape[1],
      boxes=tuple(detect(frame.image)) if searched else None,
    )
    if last and before:
      look = dataclasses.replace(look, goes_on=_going_on(last, before, look, frame))
    looks.append(look)
    if searched:
      last, before = look, frame
    if kept is not None:
      size += frame.image.nbytes
      kept.append(frame)
      kept = kept if size <= _KEPT else None
  return looks, kept


def _going_on(last: Look, before: Frame, look: Look, frame: Frame) -> frozenset[tuple[int, int]]:
  """See `Look.goes_on`."""
  return frozenset(
    (one, other)
    for one, box in enumerate(last.boxes or ())
    for other, here in enumerate(look.boxes or ())
    if may_go_on(last, look, box, here) and alike(before.image, box, frame.image, here)
  )
