"""Which frames of a video are shown and which are lost, in the order in which they are shown."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

import av

# Gaps between two frames are counted as lost frames up to so many seconds: beyond, a clock began
# anew.
_LONGEST = 60.0
# Of a gap of so many more frames than one, some are missing. Films on television repeat fields:
# their frames are 1, 1.5 and 2 apart.
_MORE = 0.25


class Account:
  """Counts frames in the order in which they are shown, with those that are missing.

  Frames are known by the number of their packet, in the order in which packets are decoded. From
  a packet that is damaged or missing to the next key frame, frames are built on what is wrong:
  they are lost too.

  Args:
    stream: of the video.
    codec: its name.
    keyed: whether it surely begins with a key frame, though damage may hide that.

  Attributes:
    shown: how many frames were good.
    lost: how many were damaged, or never came.
  """

  def __init__(self, stream, codec: str, *, keyed: bool = False):
    self.shown = self.lost = 0
    # Packets of these give frames that are never shown.
    self._hides = codec.startswith(('vp', 'libvpx', 'av1', 'libdav1d'))
    self._base = float(stream.time_base)
    self._keyed = keyed
    self._missing: list[int] = []  # Time stamps of lost frames, in order,
    self._due: list[int] = []  # and of packets that have not given a frame yet.
    self._last, self._gap = None, math.inf  # Of frames that came; the gap is the smallest one.
    # Numbers of packets that failed, and of those before which something is missing.
    self._failed: set[float] = set()
    self._torn: set[int] = set()
    self._spoilt = False  # Whether a frame was damaged since the last key frame.
    self._step = 0  # Length of the last packet's frame, as a time stamp; 0 for unknown.

  def sent(self, packet: av.Packet) -> None:
    """Notes a packet that the decoder took."""
    self._keyed = self._keyed or packet.is_keyframe
    self._step = packet.duration or self._step
    if self._keyed and not (self._hides or packet.pts is None or packet.is_discard):
      bisect.insort(self._due, packet.pts)

  def failed(self, packet: av.Packet, order: int) -> None:
    """Counts a packet that cannot be decoded."""
    self._keyed = self._keyed or packet.is_keyframe
    # Before its first key frame, a file that was cut from another shows nothing.
    if self._keyed:
      self._failed.add(order)
      self.lose(packet.pts)

  def doubt(self, order: int) -> None:
    """Notes that the packet of the given number is not whole."""
    self._failed.add(order)

  def missing(self, stamps: Iterable[int], order: int) -> None:
    """Counts packets that are not there, before the one of the given number."""
    self._failed.add(order - 0.5)
    for stamp in stamps:
      self.lose(stamp)

  def tear(self, order: int) -> None:
    """Notes that packets may be missing before the one of the given number."""
    self._torn.add(order)

  def good(self, frame: av.VideoFrame, order: int) -> bool:
    """Whether a frame is undamaged, and so all that it is built on; counts it, and gaps before.

    Args:
      frame: the next one in the order in which they are shown.
      order: number of its packet.
    """
    self._arrived(frame.pts, order)
    if self._undamaged(frame, order):
      self.shown += 1
      return True
    self.lose(frame.pts)
    return False

  def number(self, frame: av.VideoFrame) -> int:
    """The number of the frame that was good just now."""
    if frame.pts is None:
      return self.shown - 1 + self.lost
    unknown = self.lost - len(self._missing)
    return self.shown - 1 + unknown + bisect.bisect_left(self._missing, frame.pts)

  def finish(self) -> None:
    """Counts what never came after the last frame, where there was damage or no frame at all."""
    if self._last is None or self._spoilt or self._failed:
      apart = self._gap if math.isfinite(self._gap) else self._step
      for each in self._due:
        if self._last is None or each - self._last > 0.75 * apart:
          self.lose(each)
    self._due = []

  def _undamaged(self, frame: av.VideoFrame, order: int) -> bool:
    if frame.is_corrupt:
      self._spoilt = True
      return False
    failed = {each for each in self._failed if each <= order}
    if frame.key_frame and order not in failed:
      self._failed -= failed
      self._spoilt = False
      return True
    return not (failed or self._spoilt)

  def _arrived(self, stamp: int | None, order: int) -> None:
    """Counts what never came before a frame."""
    torn = {each for each in self._torn if each <= order}
    self._torn -= torn
    if stamp is None:
      return
    due = bisect.bisect_left(self._due, stamp)
    earlier, self._due = self._due[:due], self._due[due:]
    if self._due and self._due[0] == stamp:
      del self._due[0]
    if self._last is not None:
      gap = stamp - self._last
      # Where a packet holds one field of two, half of them give no frame, and no gap.
      if gap >= 1.5 * self._gap:
        for each in earlier:
          if each > self._last:
            self.lose(each)
            self._spoilt = True
      if torn or self._spoilt or self._failed:
        self._fill(stamp, order if torn else None)
      if gap > 0:
        self._gap = min(self._gap, gap)
    self._last = stamp

  def _fill(self, stamp: int, torn: int | None) -> None:
    """Counts the frames of which not even a packet came, by the length of a frame."""
    step = self._step
    if not step:
      return
    count = int((stamp - self._last) / step + _MORE) - 1
    if not 0 < count <= _LONGEST / (step * self._base):
      return
    stamps = [self._last + k * step for k in range(1, count + 1)]
    first = bisect.bisect_left(self._missing, self._last)
    known = self._missing[first:]
    stamps = [s for s in stamps if not any(abs(s - each) < step / 2 for each in known)]
    if torn is not None and stamps:
      self._failed.add(torn - 0.5)
    for each in stamps:
      self.lose(each)

  def lose(self, stamp: int | None) -> None:
    """Counts a frame as lost; one of the same time is the same frame."""
    if stamp is not None:
      place = bisect.bisect_left(self._missing, stamp)
      if self._missing[place : place + 1] == [stamp]:
        return
      self._missing.insert(place, stamp)
    self.lost += 1
