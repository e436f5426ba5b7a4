"""Videos, one frame at a time."""

import dataclasses
import os
from collections.abc import Container, Iterator

import av
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import video_pixels
from painformer_jax.modalities.video_file import VideoFile

SUFFIXES = frozenset(
  f'.{name}'
  for name in (
    '3g2 3gp amv asf avi dif divx dv f4v flv h264 h265 hevc insv ivf lrv m1v m2t m2ts m2v m4v '
    'mjpeg mjpg mkv mod mov mp4 mp4v mpe mpeg mpg mpv mts mxf nut ogm ogv qt rm rmvb tod ts vob '
    'webm wmv y4m'
  ).split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A decoded frame.

  Attributes:
    number: counted from 0 over all frames that the file shows, damaged ones too.
    time: seconds since the first frame, nan where the file does not say.
    image: [height, width, 3] uint8 RGB, turned upright, deinterlaced; or [height, width]
      uint8, uint16 or float32 where brightness alone was asked for.
  """

  number: int
  time: float
  image: np.ndarray


def frames(
  path: str | os.PathLike,
  *,
  every: int = 1,
  numbers: Container[int] | None = None,
  grey: bool = False,
  square_pixels: bool = False,
) -> Iterator[Frame]:
  """Decodes a video frame by frame; memory does not grow with its length.

  Args:
    path: of a format that FFmpeg decodes.
    every: yields frames 0, every, 2 * every, …
    numbers: of the frames to yield, in place of `every`.
    grey: whether to yield the brightness alone, in all the levels that the file stores.
    square_pixels: whether to enlarge frames whose pixels are not square to the shape in
      which they are shown.

  Raises:
    InputError: no frame can be decoded; or, after the frames there are, some could not be
      decoded or the file ends well before its stated length.
  """
  some = {'every': every, 'numbers': numbers, 'grey': grey, 'square_pixels': square_pixels}
  for strict in (True, False):
    with VideoFile(path, strict=strict) as file:
      yield from _images(file, **some)
      shown, lost, faults = file.shown, file.lost, file.faults()
      repeat = not shown and file.may_be_lenient
    if not repeat:
      break
  if not shown:
    why = f'; {lost} are damaged, or depend on one that is' if lost else ''
    raise InputError(f'{path} holds no frame that can be decoded{why}')
  if faults:
    raise InputError(f'{path} is damaged: {"; ".join(faults)}')


def _images(
  file: VideoFile, *, every: int, numbers: Container[int] | None, grey: bool, square_pixels: bool
) -> Iterator[Frame]:
  make = video_pixels.grey if grey else video_pixels.rgb
  aspect = file.pixel_aspect if square_pixels else 1.0
  for each in file.decoded():
    if each.number % every if numbers is None else each.number not in numbers:
      continue
    try:
      image = make(each.frame, pixel_aspect=aspect)
    except (av.error.FFmpegError, ValueError):  # Of a size or format that nothing converts.
      file.lose()
      continue
    yield Frame(number=each.number, time=each.time, image=image)


def is_video(path: str | os.PathLike) -> bool:
  """Whether a file is a video by its content."""
  try:
    with VideoFile(path):
      return True
  except InputError:
    return False


def is_deep_grey(path: str | os.PathLike) -> bool:
  """Whether a video has one channel of more than 8 bits, as thermal cameras write."""
  try:
    with VideoFile(path) as file:
      return file.deep_grey
  except InputError:
    return False


def stated_frames(path: str | os.PathLike) -> int:
  """The number of frames that the file states; 0 if it states none or is no video.

  For .mkv and .webm the number is the length times a rate, which may vary.
  """
  try:
    with VideoFile(path) as file:
      return file.stated
  except InputError:
    return 0


def count_frames(path: str | os.PathLike) -> int:
  """The number of frames that the file states; 0 if it is no video.

  Of files that state none, such as .webm from a browser, the packets are counted, which
  reads the whole file without decoding it.
  """
  try:
    with VideoFile(path) as file:
      return file.stated or file.count_packets()
  except InputError:
    return 0


def frame_times(path: str | os.PathLike) -> np.ndarray:
  """When each frame is shown, as `Frame.time`; decodes the whole file.

  Returns:
    float64 [frames], in seconds, by `Frame.number`; a frame that cannot be decoded has the
    time of the one before it.

  Raises:
    InputError: no frame can be decoded.
  """
  with VideoFile(path) as file:
    found = {each.number: each.time for each in file.decoded()}
  if not found:
    raise InputError(f'{path} holds no frame that can be decoded')
  times = [found.get(0, 0.0)]
  for number in range(1, max(found) + 1):
    times.append(found.get(number, times[-1]))
  return np.array(times)


def glimpses(path: str | os.PathLike, *, count: int = 8) -> list[np.ndarray]:
  """Some frames from all over a video, quickly; for what is decided once for the file.

  Returns:
    uint8 [height, width, 3] RGB; none where nothing can be decoded.
  """
  try:
    with VideoFile(path) as file:
      return [video_pixels.rgb(frame) for frame in file.glimpses(count)]
  except InputError:
    return []
