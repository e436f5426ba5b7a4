"""How faces are found, followed and cropped."""

import dataclasses
import math
from typing import Literal

from painformer_jax.core.errors import InputError

Choice = Literal['largest', 'central', 'all']


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceConfig:
  """How faces are found and cropped; every value is reconstructed.

  Attributes:
    margin: added on each side of the box, as a share of its longer side.
    min_face: smallest face to detect, in pixels of the downscaled frame.
    detection_size: longer side, in pixels, to which larger frames are downscaled for
      detection; crops are made from the original frame.
    confidence: lowest confidence of a detection, in [0, 1].
    turned: also look for faces that lie on their side or stand on their head, in frames
      where no upright one is found.
    choose: the person who is taken, by the whole clip: 'largest', 'central' for the one
      nearest to the middle of the frame, or 'all'. See `people.ranked`.
    detect_every: faces are detected in every `detect_every`th frame only, to save time, and
      tracked in between; `max_gap` should be longer.
    max_gap: longest time between two detections of a face over which it is tracked, in
      seconds; also how long before the first and after the last one its box is held.
    smoothing: time constant, in seconds, of the exponential mean over boxes; 0 for none.
  """

  margin: float = 0.1
  min_face: int = 40
  detection_size: int = 640
  confidence: float = 0.95
  turned: bool = True
  choose: Choice = 'largest'
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
    if self.choose not in ('largest', 'central', 'all'):
      raise InputError(f"choose must be 'largest', 'central' or 'all', not {self.choose!r}")
    if self.detect_every < 1:
      raise InputError(f'detect_every must be at least 1, not {self.detect_every}')
    if not (0 <= self.max_gap < math.inf and 0 <= self.smoothing < math.inf):
      raise InputError(f'max_gap and smoothing must be at least 0 s: {self}')
