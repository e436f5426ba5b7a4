"""The frames of one image or video file, in colour, as often as they are asked for."""

import dataclasses
import itertools
import pathlib
from collections.abc import Container, Iterable, Iterator

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import to_rgb
from painformer_jax.modalities import images, maps, video

# Pages of a stack that are looked at before it is decided whether it is grey.
_GLIMPSES = 8
# Below this contrast, in levels of 255, nothing is seen of a frame.
_CONTRAST = 16
# Suffixes of most images, whose number of pages need not be looked up to tell the progress.
_ONE_PAGE = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.pgm', '.ppm'})


class PictureFrames:
  """The frames of a file.

  Args:
    name: of the file.
    measured: 'thermal' or 'depth' where the file's own frames are that: grey ones are then
      coloured. '' for frames that are taken as they are.
    every: takes every `every`th frame.
    square_pixels: see `video.frames`.

  Attributes:
    kind: of the file, see `maps.kind_of`; None until frames were read, or where nothing is
      measured.
    blank: how many frames of the last reading held no measurement and were left out.
    flat: how many frames of the last reading have more than 8 bits, of which the 8 that are
      taken show next to nothing.
  """

  def __init__(self, name: str, *, measured: str, every: int, square_pixels: bool):
    self._name, self._measured = name, measured
    self._every, self._square = every, square_pixels
    self._is_video = is_video(name)
    self.kind: maps.Kind | None = None
    self.blank = self.flat = 0

  def read(
    self, *, numbers: Container[int] | None = None, most: int | None = None
  ) -> Iterator[video.Frame]:
    """The frames in order, uint8 RGB; a single image has number -1 and time nan.

    Args:
      numbers: of the frames to take, in place of every `every`th.
      most: frames to read.

    Raises:
      InputError: see `video.frames` and `images.pages`; or no frame holds a measurement.
    """
    some = {'every': self._every, 'numbers': numbers}
    if not self._measured:
      frames = self._seen(self._open(some))
    elif self._is_video or images.count_pages(self._name) > 1:
      self.kind = self.kind or maps.kind_of(self._glimpses())
      frames = self._drawn(self._open(some))
    else:
      frames = list(self._open(some))
      self.kind = maps.kind_of(frame.image for frame in frames)
      frames = self._drawn(frames)
    return itertools.islice(frames, most)

  def _open(self, some: dict) -> Iterator[video.Frame]:
    """Frames as the file has them; of a grey one that is measured, with all its levels."""
    if self._is_video:
      grey = self.kind == 'grey'
      return video.frames(self._name, grey=grey, square_pixels=self._square, **some)
    use = maps.values if self._measured else _rgb
    return (
      video.Frame(number=page.number, time=page.time, image=page.content)
      for page in images.pages(self._name, use, **some)
    )

  def _seen(self, frames: Iterator[video.Frame]) -> Iterator[video.Frame]:
    """The frames as they are; those of many bits that show nothing are counted."""
    deep, self.flat = None, 0
    for frame in frames:
      sample = frame.image[::4, ::4]
      if np.ptp(np.percentile(sample, (1, 99))) < _CONTRAST:
        deep = self._is_deep() if deep is None else deep
        self.flat += deep
      yield frame

  def _is_deep(self) -> bool:
    """Whether the file has one channel of more than 8 bits."""
    if self._is_video:
      return video.is_deep_grey(self._name)
    return images.read(self._name, lambda image: image.mode.startswith('I;16'))

  def _glimpses(self) -> list[np.ndarray]:
    if self._is_video:
      return video.glimpses(self._name)
    count, found = images.count_pages(self._name), []
    try:
      for page in images.pages(
        self._name, maps.values, numbers=range(0, count, -(-count // _GLIMPSES))
      ):
        found.append(page.content)
    except InputError:  # Said when all pages are read.
      pass
    return found

  def _drawn(self, frames: Iterable[video.Frame]) -> Iterator[video.Frame]:
    self.blank, drawn, reason = 0, 0, None
    for frame in frames:
      try:
        image = maps.draw(frame.image, self.kind, modality=self._measured)
      except InputError as error:
        self.blank, reason = self.blank + 1, error
        continue
      drawn += 1
      yield dataclasses.replace(frame, image=image)
    if self.blank and not drawn:
      raise InputError(f'{self._name}: {reason}')


def is_video(name: str) -> bool:
  """By its content; what is neither image nor video by its suffix."""
  suffix, image = pathlib.Path(name).suffix.lower(), images.is_image(name)
  if suffix in images.SUFFIXES:
    return not image and video.is_video(name)
  # A video of JPEG images begins as an image does.
  return not image or suffix in video.SUFFIXES and video.is_video(name)


def count_quickly(name: str) -> int:
  """About how many frames a file has, from its header; 1 where that does not say."""
  if is_video(name):
    return max(1, video.stated_frames(name))
  suffix = pathlib.Path(name).suffix.lower()
  return 1 if suffix in _ONE_PAGE else max(1, images.count_pages(name))


def _rgb(image) -> np.ndarray:
  return np.asarray(to_rgb(image))
