"""Decoded frames as arrays, as a screen shows them: whole lines, upright, square pixels."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np

# Pixels wider or higher than this are damage in a header, not a format.
_WIDEST = 4.0


def rgb(frame: av.VideoFrame, *, pixel_aspect: float = 1.0) -> np.ndarray:
  """A frame in colour.

  Args:
    frame: from the decoder.
    pixel_aspect: width of a pixel over its height. Where it is not 1, the shorter side is
      enlarged, so that pixels are square.

  Returns:
    uint8 [height, width, 3] RGB, upright.
  """
  width, height = _square(frame.width, frame.height, pixel_aspect)
  plain = frame.reformat(width=width, height=height, format='rgb24', interpolation='BILINEAR')
  return _upright(frame, plain.to_ndarray())


def grey(frame: av.VideoFrame, *, pixel_aspect: float = 1.0) -> np.ndarray:
  """The brightness of a frame, in all the levels that the file stores.

  Args:
    frame: from the decoder.
    pixel_aspect: as for `rgb`.

  Returns:
    [height, width], upright: uint8, uint16 where the file has more than 8 bits, or float32.
    A file of 10 bits may keep them in the lower or in the upper bits.
  """
  width, height = _square(frame.width, frame.height, pixel_aspect)
  values = _first_plane(frame)
  if values is None:
    deep = max((c.bits for c in frame.format.components), default=8) > 8
    if deep:
      values = frame.reformat(format='gray16le').to_ndarray()
    else:  # FFmpeg's own conversion would squeeze 256 levels into 220.
      values = cv2.cvtColor(frame.reformat(format='rgb24').to_ndarray(), cv2.COLOR_RGB2GRAY)
  if (width, height) != (frame.width, frame.height):
    # By the nearest pixel: values between two measurements would be none.
    rows = np.arange(height) * frame.height // height
    values = values[rows[:, None], np.arange(width) * frame.width // width]
  return _upright(frame, values)


def _first_plane(frame: av.VideoFrame) -> np.ndarray | None:
  """The brightness as it is stored; None where it does not have a plane of its own."""
  form, plane = frame.format, frame.planes[0]
  own = [c for c in form.components if c.plane == 0]
  if len(own) != 1 or not own[0].is_luma or form.has_palette or form.is_bit_stream:
    return None
  bits = own[0].bits
  if form.name.startswith('grayf32'):
    kind = 'f4'
  elif form.name.startswith('grayf') or bits > 16:
    return None
  else:
    kind = 'u1' if bits <= 8 else 'u2'
  dtype = np.dtype(('>' if form.is_big_endian else '<') + kind)
  stride = plane.line_size
  if stride < frame.width * dtype.itemsize or stride % dtype.itemsize:
    return None
  values = np.frombuffer(plane, dtype, count=frame.height * stride // dtype.itemsize)
  values = values.reshape(frame.height, -1)[:, : frame.width]
  # A copy: the decoder uses its buffer again.
  return values.astype(dtype.newbyteorder('='), copy=True)


def _square(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
  if not 1 / _WIDEST <= pixel_aspect <= _WIDEST:
    return width, height
  if pixel_aspect >= 1:
    return round(width * pixel_aspect), height
  return width, round(height / pixel_aspect)


def _upright(frame: av.VideoFrame, image: np.ndarray) -> np.ndarray:
  """Turns and mirrors an image as the file's display matrix says, by right angles."""
  try:
    data = bytes(frame.side_data['DISPLAYMATRIX'])
  except KeyError:
    return image
  # Rows of 3; the first two columns of the first two say where right and down are shown.
  a, b, _, c, d, *_ = struct.unpack('=9i', data[:36])
  if abs(a) + abs(d) >= abs(b) + abs(c):
    rows, columns = (-1 if d < 0 else 1), (-1 if a < 0 else 1)
  else:
    image = image.swapaxes(0, 1)
    rows, columns = (-1 if b < 0 else 1), (-1 if c < 0 else 1)
  return np.ascontiguousarray(image[::rows, ::columns])


# A frame's number and its time in seconds.
Place = tuple[int, float]


class Deinterlacer:
  """Makes whole frames of those that hold two moments, line by line; others pass as they are.

  The filter is FFmpeg's bwdif, one frame out for one in. It needs the next frame, so what
  is given comes out later. It starts with the first interlaced frame: most files have none.

  Args:
    time_base: of the frames.
  """

  def __init__(self, time_base: Fraction):
    self._time_base = time_base
    self._graph: av.filter.Graph | None = None
    self._form: tuple[int, int, str] | None = None
    self._waiting: deque[Place] = deque()  # Of the frames inside.

  def push(self, frame: av.VideoFrame, place: Place) -> Iterator[tuple[av.VideoFrame, Place]]:
    """Takes a frame; gives those that are ready, each with its own place."""
    form = (frame.width, frame.height, frame.format.name)
    if self._graph is not None and form != self._form:
      yield from self.flush()
    if self._graph is None:
      if not frame.interlaced_frame:
        yield frame, place
        return
      self._graph, self._form = self._build(frame), form
    self._waiting.append(place)
    self._graph.vpush(frame)
    yield from self._ready(self._graph)

  def flush(self) -> Iterator[tuple[av.VideoFrame, Place]]:
    """Gives the last frames."""
    if self._graph is not None:
      self._graph.vpush(None)
      yield from self._ready(self._graph)
      self._graph = None
      self._waiting.clear()

  def _ready(self, graph: av.filter.Graph) -> Iterator[tuple[av.VideoFrame, Place]]:
    while self._waiting:
      try:
        frame = graph.vpull()
      except (av.error.BlockingIOError, av.error.EOFError):
        return
      yield frame, self._waiting.popleft()

  def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
      width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
    )
    whole = graph.add('bwdif', 'mode=send_frame:deint=interlaced')
    graph.link_nodes(source, whole, graph.add('buffersink')).configure()
    return graph
