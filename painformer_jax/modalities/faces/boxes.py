"""Boxes of faces, and how alike two of them are."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
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

  @property
  def area(self) -> float:
    """In square pixels."""
    return self.width * self.height

  def overlap(self, other: 'FaceBox') -> float:
    """Area of the intersection over that of the union (IoU), in [0, 1]."""
    both = self._shared(other)
    union = self.area + other.area - both
    return both / union if union > 0 else 0.0

  def covers(self, other: 'FaceBox') -> float:
    """Area of the intersection over that of the smaller box, in [0, 1]."""
    smaller = min(self.area, other.area)
    return self._shared(other) / smaller if smaller > 0 else 0.0

  def _shared(self, other: 'FaceBox') -> float:
    wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
    high = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
    return max(wide, 0.0) * max(high, 0.0)

  def distance(self, other: 'FaceBox') -> float:
    """Between the centres, in pixels."""
    return math.dist(self.centre, other.centre)

  def ratio(self, other: 'FaceBox') -> float:
    """The larger side over the smaller one, at least 1."""
    small, large = sorted((self.side, other.side))
    return large / small if small > 0 else math.inf

  def scaled(self, x: float, y: float) -> 'FaceBox':
    """This box in an image so many times as wide and as high."""
    return FaceBox(
      left=x * self.left, top=y * self.top, width=x * self.width, height=y * self.height
    )

  def blend(self, other: 'FaceBox', share: float) -> 'FaceBox':
    """This box moved the given share of the way to another."""
    return FaceBox(
      **{
        f.name: (1 - share) * getattr(self, f.name) + share * getattr(other, f.name)
        for f in dataclasses.fields(self)
      }
    )
