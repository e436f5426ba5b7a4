"""Videos, one frame at a time."""

import dataclasses
import math
import os
from collections.abc import Iterator

import cv2
import numpy as np

from painformer_jax.errors import InputError

SUFFIXES = frozenset(
    {'.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv'})

# Containers round their frame counts; fewer frames than this share of the
# count mean a damaged file.
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


def frames(path: str | os.PathLike, *, every: int = 1) -> Iterator[Frame]:
  """Decodes a video frame by frame; memory does not grow with its length.

  Args:
    path: of a format that OpenCV's FFmpeg decodes.
    every: yields frames 0, every, 2 * every, …

  Raises:
    InputError: no frame can be decoded, or decoding ends well before the
      length that the file states (after the frames there are).
  """
  capture = _open(path)
  try:
    rate = capture.get(cv2.CAP_PROP_FPS)
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    number = 0
    while capture.grab():
      if number % every == 0:
        decoded, image = capture.retrieve()
        if not decoded:
          break
        yield Frame(number=number, time=_time(capture, number, rate),
                    image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
      number += 1
  finally:
    capture.release()
  if number == 0:
    raise InputError(f'{path} holds no frame that can be decoded')
  if math.isfinite(stated) and number < _WHOLE * stated - 1:
    raise InputError(f'{path} is damaged: it ends after {number} of {stated:.0f} frames')


def count_frames(path: str | os.PathLike) -> int:
  """How many frames the file says it has; 0 where it does not, or is no video."""
  try:
    capture = _open(path)
  except InputError:
    return 0
  stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
  capture.release()
  return int(stated) if math.isfinite(stated) and stated > 0 else 0


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
  level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # returns the former one
  try:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
  finally:
    logging.setLogLevel(level)
  if not capture.isOpened():
    capture.release()
    raise InputError(f'{path} is not a readable video')
  return capture
