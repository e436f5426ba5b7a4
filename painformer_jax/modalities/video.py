"""Videos, one frame at a time."""

import dataclasses
import math
import os
from collections.abc import Container, Iterator

import cv2
import numpy as np

from painformer_jax.core.errors import InputError

SUFFIXES = frozenset({'.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv'})

# Containers round their frame counts and lengths. A file is damaged if fewer frames than
# this share of both can be decoded.
_WHOLE = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A decoded frame.

  Attributes:
    number: counted from 0 over all frames of the file.
    time: seconds from the start, nan where the file does not say.
    image: [height, width, 3] uint8 RGB, turned upright.
  """

  number: int
  time: float
  image: np.ndarray


def frames(
  path: str | os.PathLike, *, every: int = 1, numbers: Container[int] | None = None
) -> Iterator[Frame]:
  """Decodes a video frame by frame; memory does not grow with its length.

  Args:
    path: of a format that OpenCV's FFmpeg decodes.
    every: yields frames 0, every, 2 * every, …
    numbers: of the frames to yield, in place of `every`.

  Raises:
    InputError: no frame can be decoded, or decoding ends well before the
      length that the file states (after the frames there are).
  """
  capture = _open(path)
  try:
    rate = capture.get(cv2.CAP_PROP_FPS)
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    number, time = 0, 0.0
    while capture.grab():
      time = _time(capture, number, rate)
      if number % every == 0 if numbers is None else number in numbers:
        decoded, image = capture.retrieve()
        if not decoded:
          break
        yield Frame(number=number, time=time, image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
      number += 1
  finally:
    capture.release()
  if number == 0:
    raise InputError(f'{path} holds no frame that can be decoded')
  # A container that counts no frames states its length times a guessed rate, which is
  # above the true one where rates vary: a file that lasts as long as stated is whole.
  lasts = rate > 0 and time >= _WHOLE * (stated - 1) / rate - 1 / rate
  if math.isfinite(stated) and number < _WHOLE * stated - 1 and not lasts:
    raise InputError(f'{path} is damaged: it ends after {number} of {stated:.0f} frames')


def count_frames(path: str | os.PathLike) -> int:
  """The number of frames that the file states; 0 if it is no video.

  Files that state none, such as .webm from a browser, are decoded and counted. For .mkv and
  .webm the number is the length times a rate, which may vary.
  """
  try:
    capture = _open(path)
  except InputError:
    return 0
  stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
  try:
    if math.isfinite(stated) and stated > 0:
      return int(stated)
    number = 0
    while capture.grab():
      number += 1
    return number
  finally:
    capture.release()


def frame_times(path: str | os.PathLike) -> np.ndarray:
  """When each frame is shown, as `Frame.time`; decodes the whole file.

  Returns:
    float64 [frames], in seconds, of all that can be decoded.

  Raises:
    InputError: no frame can be decoded.
  """
  capture = _open(path)
  try:
    rate, times = capture.get(cv2.CAP_PROP_FPS), []
    while capture.grab():
      times.append(_time(capture, len(times), rate))
  finally:
    capture.release()
  if not times:
    raise InputError(f'{path} holds no frame that can be decoded')
  return np.array(times)


def _time(capture, number: int, rate: float) -> float:
  """Seconds; the container's own time stamp, else from the frame rate."""
  stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
  if math.isfinite(stamp) and (stamp > 0 or number == 0):
    return stamp
  return number / rate if rate > 0 and math.isfinite(rate) else math.nan


def _open(path: str | os.PathLike) -> cv2.VideoCapture:
  # FFmpeg and OpenCV would write lines of their own to standard error.
  os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
  if not os.path.isfile(path):
    raise InputError(f'{path} is not a file')
  logging = cv2.utils.logging
  level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # Returns the previous one.
  try:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
  finally:
    logging.setLogLevel(level)
  if not capture.isOpened():
    capture.release()
    raise InputError(f'{path} is not a readable video')
  return capture
