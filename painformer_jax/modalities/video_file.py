"""An opened video: its stated length, and its frames in the order in which they are shown."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator

import av
import av.container

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.video_account import Account
from painformer_jax.modalities.video_pixels import Deinterlacer
from painformer_jax.modalities.video_watch import Watch

# What FFmpeg also opens: pictures, which Pillow reads, and texts.
_NO_VIDEOS = frozenset(
  {'image2', 'gif', 'apng', 'webp_anim', 'jpegxl_anim', 'ico', 'fits', 'tty', 'bin', 'xbin', 'adf',
   'idf', 'alias_pix', 'brender_pix', 'hls', 'concat', 'lavfi', 'sdp', 'rtsp', 'rtp', 'vobsub'}
)  # fmt: skip

# Lengths are rounded, and estimated by some formats. A file is cut if it holds fewer frames than
# this share of them, and lasts less long.
_WHOLE = 0.95
# These count their frames in an index or a header,
_COUNTED = frozenset({'mov', 'avi'})
# and these state their length at the beginning.
_LASTING = frozenset({'matroska', 'flv', 'asf'})
# A rate above this is the container's clock.
_FASTEST = 1000.0


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
    # Kept, as PyAV crashes when it is asked for the name of a decoder that failed to open.
    self._codec = self._stream.codec_context.name
    _prepare(self._stream.codec_context, self._codec, strict=strict)
    self.pixel_aspect = _number(self._stream.sample_aspect_ratio) or 1.0
    self._form = self._file.format.name.split(',')[0]
    self._account = Account(self._stream, self._codec)
    self._watch = Watch(path, self._form, self._stream)
    # When the first packet's frame begins and the last one's ends, by the file's clock.
    self._begin, self._end = math.inf, -math.inf
    self._first = math.nan  # When the first frame is shown, likewise.
    self._read = 0  # Packets, those included that only repeat a frame.
    self._read_length()

  def __enter__(self) -> VideoFile:
    return self

  def __exit__(self, *exc_info) -> None:
    self._file.close()

  def _read_length(self) -> None:
    stream, file = self._stream, self._file
    rates = (_number(stream.average_rate), _number(stream.guessed_rate))
    self._rate = next((rate for rate in rates if 0 < rate <= _FASTEST), 0.0)
    # The length of this stream, else of all: then all of them count for the end.
    self._own = stream.duration is not None
    if self._own:
      self.seconds = stream.duration * float(stream.time_base)
    else:
      self.seconds = file.duration / 1e6 if file.duration else math.nan
      start = (file.start_time or 0) / 1e6
      # A part of a recording that keeps its clock: Matroska counts from the clock's zero.
      if self._form == 'matroska' and 0 < start < self.seconds:
        self.seconds -= start
    self.stated = stream.frames
    if self._form == 'mov' and len(stream.index_entries):
      self.stated = sum(1 for entry in stream.index_entries if not entry.is_discard)
    self._exact = self.stated > 0 and self._form in _COUNTED
    counted = str(stream.metadata.get('NUMBER_OF_FRAMES', ''))  # By programs of Matroska.
    if self.stated <= 0 and counted.isdigit():
      self.stated = int(counted)
    if self.stated <= 0 and self._rate and self.seconds > 0:
      self.stated = int(self.seconds * self._rate + 0.5)

  @property
  def deep_grey(self) -> bool:
    """Whether it has one channel of more than 8 bits."""
    form = self._stream.codec_context.format
    return form is not None and len(form.components) == 1 and form.components[0].bits > 8

  def faults(self) -> list[str]:
    """What is wrong with the file, in words, once all of it was decoded."""
    found, held = [], self.shown + self.lost
    structure = self._watch.structure
    if self._exact:
      if (missing := self.stated - self._read - self._watch.skipped) > 0:
        found.append(f'it ends after {self.stated - missing} of {self.stated} frames')
    elif structure.cut:
      # Where the length is stated, what is missing may be an index or the end of the sound.
      if self._form not in _LASTING or not self._reaches(1.0, frames=1.5):
        found.append(self._ends() or 'its end is missing')
    elif self.stated and held < _WHOLE * self.stated - 1:
      # A container without a count states its length times a guessed rate, which is above the
      # true one where rates vary: a file that lasts as long as stated is whole.
      if not self._reaches(_WHOLE, frames=1.0):
        found.append(self._ends() or f'it ends after {held} of about {self.stated} frames')
    if self.lost:
      found.append(f'{self.lost} of its frames could not be decoded and are left out')
    elif structure.tears and not found:
      found.append('a part of it is broken, and what it held is left out')
    return found

  def _reaches(self, share: float, *, frames: float) -> bool:
    """Whether it lasts for a share of the stated seconds, but for some frames."""
    apart = frames / self._rate if self._rate else 0.0
    return self._end - self._begin >= share * self.seconds - apart

  def _ends(self) -> str:
    lasts = self._end - self._begin
    return f'it ends after {lasts:.2f} of {self.seconds:.2f} s' if 0 <= lasts < self.seconds else ''

  def decoded(self, *, watched: bool = True) -> Iterator[Decoded]:
    """The frames, one by one; one that is damaged or missing is counted in `lost`.

    Args:
      watched: whether to look for parts of the container that are missing.
    """
    entries = self._stream.index_entries
    keyed = self._exact and len(entries) > 0 and entries[0].is_keyframe
    account = Account(self._stream, self._codec, keyed=keyed)
    whole = Deinterlacer(self._stream.time_base)
    self._account, order = account, -1
    for order, packet in enumerate(self._packets()):
      packet.opaque = order
      if watched:
        self._watch.check(packet, order, account)
      try:
        found = self._stream.decode(packet)
      except (av.error.FFmpegError, ValueError):  # ValueError: no decoder.
        account.failed(packet, order)
        continue
      account.sent(packet)
      for frame in found:
        yield from self._placed(whole, frame, order)
    with contextlib.suppress(av.error.FFmpegError, ValueError):
      for frame in self._stream.decode(None):
        yield from self._placed(whole, frame, order)
    account.finish()
    with contextlib.suppress(av.error.FFmpegError):
      for frame, (number, time) in whole.flush():
        yield Decoded(number=number, time=time, frame=frame)

  @property
  def may_be_lenient(self) -> bool:
    """Whether more frames may be shown without `strict`."""
    return self._codec == 'mjpeg'

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
    for each in self.decoded(watched=False):
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
        yield next(each.frame for each in self.decoded(watched=False))
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
      if packet.stream_index != self._stream.index:
        continue
      self._read += not packet.is_discard and (packet.size > 0 or packet.dts is not None)
      # An empty packet repeats a frame; to the decoder it would be the end.
      if packet.size:
        yield packet

  def _placed(self, whole: Deinterlacer, frame: av.VideoFrame, order: int) -> Iterator[Decoded]:
    """The frames that are ready, with their numbers and times."""
    if not self._account.good(frame, order if frame.opaque is None else frame.opaque):
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


def _prepare(decoder, name: str, *, strict: bool) -> None:
  """Makes the decoder tell of damage."""
  decoder.copy_opaque = True  # So that a frame is known by its packet.
  if name in ('h264', 'mpeg1video', 'mpeg2video'):
    # With several threads for the slices of a frame, FFmpeg does not mark a damaged one.
    decoder.thread_count = 1
  if name == 'mjpeg' and strict:
    # Otherwise a damaged frame is half grey, and nothing says so.
    decoder.options = {'err_detect': 'explode'}
  elif name.startswith(('msmpeg4', 'wmv')):
    decoder.options = {'err_detect': 'bitstream+buffer'}  # They pass over it otherwise.


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
