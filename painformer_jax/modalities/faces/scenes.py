"""Scenes: where a clip is cut to another picture, and where it returns to one."""

import dataclasses

import cv2
import numpy as np

from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.cropping import crop

# Frames are compared as thumbnails of so many pixels a side.
_SIDE = 32
# A pixel has changed if it differs by more than so many levels of 255, on average over colours.
_CHANGED = 25
# A frame begins a scene if at least this share of the pixels has changed,
_SHARE = 0.5
# and the pattern of light and dark correlates with the last frame's by less than this. A lamp
# that is switched on changes all pixels and leaves the pattern (0.98). A person who moves, or a
# hand before the face, changes less than a third of the pixels, even in frames a second apart.
_ALIKE = 0.8


# So many shots are remembered.
_SHOTS = 100
# Of a face that stays, as where the camera is moved or only the rest of the picture changes,
# less than this share of the pixels has changed: at most 0.25 from one frame to the next in three
# clips, mostly less than 0.26 a second later, and at least 0.40 between 13 different people.
_ALIKE_FACES = 0.3
# A picture without so much contrast, as a standard deviation in levels of 255, says nothing.
_CONTRAST = 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
  """The frames between two cuts.

  Attributes:
    number: rises by 1 with each cut.
    shot: the same number for scenes that look alike, as where a clip returns from a title, or
      the light comes back.
  """

  number: int
  shot: int


class Scenes:
  """Told one frame after the other, says which scene it belongs to."""

  def __init__(self) -> None:
    self._scene = Scene(number=0, shot=0)
    # Number of the shot -> thumbnails of its first and its last frame; the one that is shown
    # comes last.
    self._shots: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._new = 1

  def __call__(self, image: np.ndarray) -> Scene:
    """The frame's scene.

    Args:
      image: uint8 [height, width, 3].
    """
    here = _thumbnail(image)
    shot = self._scene.shot
    if shot in self._shots and _differ(self._shots[shot][1], here):
      known = reversed(self._shots.items())
      shot = next((n for n, ends in known if not all(_differ(e, here) for e in ends)), self._new)
      self._new = max(self._new, shot + 1)
      self._scene = Scene(number=self._scene.number + 1, shot=shot)
    first, _ = self._shots.pop(shot, (here, here))
    self._shots[shot] = first, here
    if len(self._shots) > _SHOTS:
      del self._shots[next(iter(self._shots))]
    return self._scene


def alike(one: np.ndarray, box: FaceBox, other: np.ndarray, other_box: FaceBox) -> bool:
  """Whether boxes in two successive looks show the same face, as after a jerk of the camera.

  Args:
    one, other: uint8 [height, width, 3].
    box, other_box: one in each, in pixels.
  """
  faces = [
    _thumbnail(crop(image, box, margin=0.0)) for image, box in ((one, box), (other, other_box))
  ]
  return min(face.std() for face in faces) > _CONTRAST and _changed(*faces) < _ALIKE_FACES


def _thumbnail(image: np.ndarray) -> np.ndarray:
  """float32 [side, side, 3]."""
  # Means over all pixels of a large frame would take as long as decoding it.
  step = max(1, min(image.shape[:2]) // (4 * _SIDE))
  image = np.ascontiguousarray(image[::step, ::step])
  return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _changed(one: np.ndarray, other: np.ndarray) -> float:
  """Share of the pixels that differ."""
  return float((np.abs(one - other).mean(-1) > _CHANGED).mean())


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
  if _changed(one, other) < _SHARE:
    return False
  light = [thumbnail.mean(-1) for thumbnail in (one, other)]
  one, other = (each - each.mean() for each in light)
  scale = np.sqrt(np.square(one).sum() * np.square(other).sum())
  # One that is all of one colour has no pattern.
  return scale == 0 or (one * other).sum() / scale < _ALIKE
