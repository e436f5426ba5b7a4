"""An opened video: its stated length, and its frames in the order in which they are shown."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator

import av
import av.container

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.video_pixels import Deinterlacer

# What FFmpeg also opens: pictures, which Pillow reads, and texts.
_NO_VIDEOS = frozenset(
  {'image2', 'gif', 'apng', 'webp_anim', 'jpegxl_anim', 'ico', 'fits', 'tty', 'bin', 'xbin', 'adf',
   'idf', 'alias_pix', 'brender_pix', 'hls', 'concat', 'lavfi', 'sdp', 'rtsp', 'rtp', 'vobsub'}
)  # fmt: skip

# Containers round their frame counts and lengths. A file is cut if it holds fewer frames than
# this share of both.
_WHOLE = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
  """A frame from the decoder: its number, counted from 0 with those lost, and seconds."""

  number: int
  time: float
  frame: av.VideoFrame


class VideoFile:
  """A video file; a context manager.

  Args:
    path: of any name; nothing in it is taken for a protocol.
    strict: whether frames of Motion JPEG with any fault are lost, rather than shown with it.

  Attributes:
    pixel_aspect: width of a pixel over its height.
    stated: number of frames by the file's index or header, those outside its edit list left
      out; by its length and its rate where it does not count frames; 0 where unknown.
    seconds: its length as stated; nan where unknown.

  Raises:
    InputError: it is no video.
  """

  def __init__(self, path: str | os.PathLike, *, strict: bool = True):
    if not os.path.isfile(path):
      raise InputError(f'{path} is not a file')
    self._path = path
    try:
      # With the protocol's name, a colon in the file's name is part of it.
      self._file = av.open(f'file:{os.fspath(path)}', options={'protocol_whitelist': 'file'})
    # Damaged headers raise errors of many kinds.
    except Exception as error:
      raise InputError(f'{path} is not a readable video ({_reason(error)})') from error
    try:
      self._stream = _choose(self._file, path)
    except InputError:
      self._file.close()
      raise
    if strict and self._stream.codec_context.name == 'mjpeg':
      # Otherwise a damaged frame is half grey, and nothing says so.
      self._stream.codec_context.options = {'err_detect': 'explode'}
    self.pixel_aspect = _number(self._stream.sample_aspect_ratio) or 1.0
    self._account = _Account(self._stream)
    # When the first packet's frame begins and the last one's ends, by the file's clock.
    self._begin, self._end = math.inf, -math.inf
    self._first = math.nan  # When the first frame is shown, likewise.
    self._read_length()

  def __enter__(self) -> VideoFile:
    return self

  def __exit__(self, *exc_info) -> None:
    self._file.close()

  def _read_length(self) -> None:
    stream, file = self._stream, self._file
    self._rate = _number(stream.average_rate) or _number(stream.guessed_rate)
    # The length of this stream, else of all: then all of them count for the end.
    self._own = stream.duration is not None
    if self._own:
      self.seconds = stream.duration * float(stream.time_base)
    else:
      self.seconds = file.duration / 1e6 if file.duration else math.nan
      start = (file.start_time or 0) / 1e6
      # A part of a recording that keeps its clock: Matroska counts from the clock's zero.
      if 'matroska' in file.format.name and 0 < start < self.seconds:
        self.seconds -= start
    self.stated = stream.frames
    if 'mov' in file.format.name and len(stream.index_entries):
      self.stated = sum(1 for entry in stream.index_entries if not entry.is_discard)
    if self.stated <= 0 and self._rate and self.seconds > 0:
      self.stated = int(self.seconds * self._rate + 0.5)

  @property
  def cut(self) -> bool:
    """Whether the file ended well before its stated length, once all of it was decoded."""
    if self.shown + self.lost >= _WHOLE * self.stated - 1 or not self.stated:
      return False
    if not math.isfinite(self.seconds):
      return True
    # A container without a count states its length times a guessed rate, which is above the
    # true one where rates vary: a file that lasts as long as stated is whole.
    apart = 1 / self._rate if self._rate else 0.0
    return not self._end - self._begin >= _WHOLE * self.seconds - apart

  def decoded(self) -> Iterator[Decoded]:
    """The frames, one by one; one that is damaged or missing is counted in `lost`."""
    self._account, whole = _Account(self._stream), Deinterlacer(self._stream.time_base)
    for packet in self._packets():
      try:
        found = self._stream.decode(packet)
      except (av.error.FFmpegError, ValueError):  # ValueError: no decoder.
        self._account.failed(packet)
        continue
      self._account.sent(packet)
      for frame in found:
        yield from self._placed(whole, frame)
    with contextlib.suppress(av.error.FFmpegError, ValueError):
      for frame in self._stream.decode(None):
        yield from self._placed(whole, frame)
    with contextlib.suppress(av.error.FFmpegError):
      for frame, (number, time) in whole.flush():
        yield Decoded(number=number, time=time, frame=frame)

  @property
  def shown(self) -> int:
    """How many frames were decoded so far."""
    return self._account.shown

  @property
  def lost(self) -> int:
    """How many frames could not be decoded so far."""
    return self._account.lost

  def lose(self) -> None:
    """Counts a frame that was decoded as one that could not be."""
    self._account.shown -= 1
    self._account.lost += 1

  def count_packets(self) -> int:
    """The number of frames by their packets, without decoding; reads the whole file."""
    return sum(1 for _ in self._packets())

  def glimpses(self, count: int) -> Iterator[av.VideoFrame]:
    """The first frames, then those at key frames all over the file; `count` of each at most."""
    begun = 0
    for each in self.decoded():
      yield each.frame
      begun += 1
      if begun == count:
        break
    if begun < count or not self.seconds > 0:
      return
    start, base = self._stream.start_time or 0, float(self._stream.time_base)
    for part in range(1, count):
      try:
        self._file.seek(start + int(self.seconds * part / count / base), stream=self._stream)
        yield next(each.frame for each in self.decoded())
      except (av.error.FFmpegError, StopIteration, OverflowError):
        continue

  def _packets(self) -> Iterator[av.Packet]:
    others = () if self._own else self._file.streams.audio
    packets = self._file.demux(self._stream, *others)
    while True:
      try:
        packet = next(packets)
      except (StopIteration, av.error.FFmpegError):  # What can be read of the file is over.
        return
      if packet.pts is not None and not packet.is_discard:
        tick = float(packet.time_base)
        self._begin = min(self._begin, packet.pts * tick)
        self._end = max(self._end, (packet.pts + (packet.duration or 0)) * tick)
      # An empty packet repeats a frame; to the decoder it would be the end.
      if packet.stream_index == self._stream.index and packet.size:
        yield packet

  def _placed(self, whole: Deinterlacer, frame: av.VideoFrame) -> Iterator[Decoded]:
    """The frames that are ready, with their numbers and times."""
    if frame.is_corrupt:
      self._account.damaged(frame)
      return
    number = self._account.number(frame)
    try:
      ready = list(whole.push(frame, (number, self._time(frame, number))))
    except av.error.FFmpegError:  # Of a size or format that nothing deinterlaces.
      self.lose()
      return
    for made, (its_number, time) in ready:
      yield Decoded(number=its_number, time=time, frame=made)

  def _time(self, frame: av.VideoFrame, number: int) -> float:
    """Seconds since the first frame: of the container, else from the frame rate."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is None:
      return number / self._rate if self._rate else math.nan
    time = stamp * float(self._stream.time_base)
    if not math.isfinite(self._first):
      # Containers that give decoding times only begin a little late.
      self._first = time - (number / self._rate if number and self._rate else 0.0)
    return time - self._first


class _Account:
  """Counts frames in the order in which they are shown, with those that are missing."""

  def __init__(self, stream):
    self.shown = self.lost = 0
    # Packets of these give frames that are never shown.
    self._hides = stream.codec_context.name.startswith(('vp', 'libvpx', 'av1', 'libdav1d'))
    self._keyed = False
    self._missing: list[int] = []  # Time stamps of lost frames, in order,
    self._due: list[int] = []  # and of packets that have not given a frame yet.
    self._last, self._gap = None, math.inf  # Of shown frames; the gap is the smallest one.

  def sent(self, packet: av.Packet) -> None:
    self._keyed = self._keyed or packet.is_keyframe
    if not (self._hides or packet.pts is None or packet.is_discard):
      bisect.insort(self._due, packet.pts)

  def failed(self, packet: av.Packet) -> None:
    """Counts a packet that cannot be decoded."""
    self._keyed = self._keyed or packet.is_keyframe
    # Before its first key frame, a file that was cut from another shows nothing.
    if self._keyed:
      self._lose(packet.pts)

  def damaged(self, frame: av.VideoFrame) -> None:
    """Counts a frame of which a part could not be decoded."""
    if frame.pts in self._due:
      self._due.remove(frame.pts)
    self._lose(frame.pts)

  def number(self, frame: av.VideoFrame) -> int:
    """The number of a frame to show; counts those before it that never came."""
    stamp = frame.pts
    if stamp is None:
      number = self.shown + self.lost
    else:
      due = bisect.bisect_left(self._due, stamp)
      earlier, self._due = self._due[:due], self._due[due:]
      if self._due and self._due[0] == stamp:
        del self._due[0]
      gap = math.inf if self._last is None else stamp - self._last
      # Where a packet holds one field of two, half of them give no frame, and no gap.
      if self._last is not None and gap >= 1.5 * self._gap:
        for each in earlier:
          if each > self._last:
            self._lose(each)
      if gap > 0:
        self._gap = min(self._gap, gap)
      self._last = stamp
      unknown = self.lost - len(self._missing)
      number = self.shown + unknown + bisect.bisect_left(self._missing, stamp)
    self.shown += 1
    return number

  def _lose(self, stamp: int | None) -> None:
    self.lost += 1
    if stamp is not None:
      bisect.insort(self._missing, stamp)


def _choose(file: av.container.InputContainer, path: str | os.PathLike):
  """The stream of the video; a cover picture is none."""
  name = file.format.name
  if name in _NO_VIDEOS or name.endswith('_pipe'):
    raise InputError(f'{path} is not a readable video (its format is {name})')
  attached = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
  videos = [s for s in file.streams.video if not s.disposition & attached]
  if not videos:
    held = 'sound and a cover picture' if file.streams.video else 'sound'
    more = f', only {held}' if file.streams.audio else ''
    raise InputError(f'{path} holds no video{more}')
  best = file.streams.best('video')
  stream = best if best in videos else videos[0]
  if stream.codec_context is None:
    raise InputError(
      f'{path} is not a readable video (its index is missing, or nothing here decodes it)'
    )
  return stream


def _number(ratio) -> float:
  """A ratio as a number; 0 where it is none."""
  try:
    value = float(ratio)
  except (TypeError, ValueError, ZeroDivisionError):
    return 0.0
  return value if math.isfinite(value) and value > 0 else 0.0


def _reason(error: Exception) -> str:
  text = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return ' '.join(text.split())
