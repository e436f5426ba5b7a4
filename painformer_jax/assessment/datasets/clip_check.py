"""Describes what is wrong with a video: nothing to see, a single frame, another frame rate."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.recordings import Finding, Locator
from painformer_jax.modalities import video

# Frames by whose times a frame rate is judged, and the share by which it may differ.
_TIMED, _RATE_TOLERANCE = 5, 0.1
# A frame shows nothing if all but one in a hundred of its pixels, of 0 to 255, are darker
# than this, or are equal but for the noise of compression.
_DARK, _EVEN = 24, 6
# Every so many pixels are looked at, each way.
_STRIDE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipState:
  """What the first frames of a video show.

  Attributes:
    frames: that were decoded; all there are if fewer than five or none shows anything.
    rate: frames per second by their times, 0 where these do not say.
    blank: whether no frame shows anything.
  """

  frames: int
  rate: float
  blank: bool


def read_state(path: Path) -> ClipState:
  """Decodes a video until something is seen, at least its first frames.

  Raises:
    InputError: no frame can be decoded.
  """
  times, count, blank = [], 0, True
  for frame in video.frames(path):
    count += 1
    if count <= _TIMED:
      times.append(frame.time)
    blank = blank and is_blank(frame.image)
    if count >= _TIMED and not blank:
      break
  span = times[-1] - times[0] if len(times) > 1 else 0.0
  return ClipState(frames=count, rate=(len(times) - 1) / span if span > 0 else 0.0, blank=blank)


def is_blank(image: np.ndarray) -> bool:
  """Whether an image shows nothing: all of it is black, or of one colour.

  Args:
    image: uint8 [height, width, 3].
  """
  pixels = image[::_STRIDE, ::_STRIDE].reshape(-1, image.shape[-1])
  low, high = np.percentile(pixels, (1, 99), axis=0)
  return bool(high.max() < _DARK or (high - low).max() <= _EVEN)


def clip_faults(place: Locator, state: ClipState) -> Iterator[Finding]:
  """Why a video cannot be used although it can be read; nothing if it can be.

  Args:
    place: of the video, with the frame rate that it should have.
    state: from `read_state`.
  """
  where = str(place.path)
  if state.blank:
    frames = 'its only frame shows' if state.frames == 1 else f'all {state.frames} frames show'
    yield Finding(where=where, what=f'{frames} nothing', kind='flat', unusable=True)
  if state.frames == 1:
    yield Finding(where=where, what='1 frame, no video', kind='length', unusable=True)
  if place.rate and other_rate(state.rate, place.rate):
    what = f'{state.rate:.4g} frames a second, not {place.rate:g}'
    yield Finding(where=where, what=what, kind='time', unusable=True)


def other_rate(rate: float, due: float) -> bool:
  """Whether a frame rate in Hz is another than is due; 0 for unknown is none."""
  return rate > 0 and abs(rate / due - 1) > _RATE_TOLERANCE
