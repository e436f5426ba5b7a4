"""Describes what is wrong with a video: nothing to see, a frozen picture, another rate."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from painformer_jax.assessment.datasets.recordings import Finding, Locator
from painformer_jax.core.errors import InputError
from painformer_jax.core.file_cache import FileCache
from painformer_jax.modalities import video

# Frames by whose times a frame rate is judged, and the share by which it may differ.
_TIMED, _RATE_TOLERANCE = 5, 0.1
# A frame shows nothing if all but one in a hundred of its pixels, of 0 to 255, are darker
# than this, or are equal but for the noise of compression.
_DARK, _EVEN = 24, 6
# Every so many pixels are looked at, each way.
_STRIDE = 4
# Shares of a clip above which it is not used: of frames that show nothing, as of missing
# values of a signal; of a stretch without any change, by more levels than these.
_MOST_BLANK, _MOST_FROZEN, _ROUNDING = 0.25, 0.5, 2
# Thumbnails: of every so many frames, so many at most, of so many fields each way.
_EVERY, _THUMBNAILS, _FIELDS = 2, 72, 8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClipState:
  """What a video shows.

  Attributes:
    frames: that were decoded.
    rate: frames per second by their times, 0 where these do not say.
    blank: share of the frames that show nothing.
    frozen: share of the longest stretch in which the picture does not change at all.
    thumbnails: float16 [n, 64], brightness 0 to 255 of every second frame in 8 x 8
      fields, of the first 144 frames.
  """

  frames: int
  rate: float
  blank: float
  frozen: float
  thumbnails: np.ndarray


def _read_state(path: str) -> ClipState:
  times, count, blank = [], 0, 0
  thumbnails, still, longest, shown = [], 0, 0, None
  for frame in video.frames(path):
    if count < _TIMED:
      times.append(frame.time)
    if count % _EVERY == 0 and len(thumbnails) < _THUMBNAILS:
      thumbnails.append(_thumbnail(frame.image))
    count += 1
    blank += is_blank(frame.image)
    pixels = frame.image[::_STRIDE, ::_STRIDE].astype(np.int16)
    still += 1
    if shown is None or not _is_same(pixels, shown):
      still, shown = 1, pixels
    longest = max(longest, still)
  span = times[-1] - times[0] if len(times) > 1 else 0.0
  return ClipState(
    frames=count,
    rate=(len(times) - 1) / span if span > 0 else 0.0,
    blank=blank / count,
    frozen=longest / count,
    thumbnails=np.array(thumbnails, np.float16),
  )


_states = FileCache(_read_state, kept=100_000)


def read_state(path: Path) -> ClipState:
  """Decodes a video; once, as long as it does not change.

  Raises:
    InputError: no frame can be decoded, or the file is damaged.
  """
  return _states(path)


def read_states(paths: Sequence[Path]) -> Iterator[ClipState | InputError]:
  """The state of each video, or why it has none, in order; several are decoded at a time."""

  def state(path: Path) -> ClipState | InputError:
    try:
      return read_state(path)
    except InputError as error:
      return error

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    yield from pool.map(state, paths)


def _thumbnail(image: np.ndarray) -> np.ndarray:
  """float32 [64], the mean of the green of 8 x 8 fields."""
  green = image[:, :, 1]
  step = max(min(green.shape) // 256, 1)
  green = green[::step, ::step]
  if min(green.shape) < _FIELDS:
    green = np.repeat(np.repeat(green, _FIELDS, axis=0), _FIELDS, axis=1)
  height, width = (size // _FIELDS for size in green.shape)
  fields = green[: height * _FIELDS, : width * _FIELDS].reshape(_FIELDS, height, _FIELDS, width)
  return fields.mean(axis=(1, 3), dtype=np.float32).ravel()


def _is_same(ours: np.ndarray, theirs: np.ndarray) -> bool:
  """Whether all but one in a thousand values of two frames are equal but for rounding."""
  if ours.shape != theirs.shape:
    return False
  return bool(np.count_nonzero(np.abs(ours - theirs) > _ROUNDING) <= ours.size // 1000)


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
    frames = f'{round(state.blank * state.frames)} of its {state.frames} frames show'
    if state.blank == 1:
      frames = 'its only frame shows' if state.frames == 1 else f'all {state.frames} frames show'
    unusable = state.blank > _MOST_BLANK
    yield Finding(where=where, what=f'{frames} nothing', kind='flat', unusable=unusable)
  elif state.frames > 1 and state.frozen > _MOST_FROZEN:
    what = f'the picture is frozen for {state.frozen:.0%} of its frames'
    yield Finding(where=where, what=what, kind='flat', unusable=True)
  if state.frames == 1:
    yield Finding(where=where, what='1 frame, no video', kind='length', unusable=True)
  if place.rate and other_rate(state.rate, place.rate):
    what = f'{state.rate:.4g} frames a second, not {place.rate:g}'
    yield Finding(where=where, what=what, kind='time', unusable=True)


def other_rate(rate: float, due: float) -> bool:
  """Whether a frame rate in Hz is another than is due; 0 for unknown is none."""
  return rate > 0 and abs(rate / due - 1) > _RATE_TOLERANCE
