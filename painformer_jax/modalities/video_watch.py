"""Watches the packets of a video for those that are missing between them."""

from __future__ import annotations

import functools
import os

import av

from painformer_jax.modalities.video_account import Account
from painformer_jax.modalities.video_structure import Structure, read_structure

# Between the packets of a stream stand at most so many bytes of the container.
_BETWEEN = 64
# FFmpeg marks a packet of a transport stream a little before something is missing.
_UNSURE = 3
# An index of .avi says where chunks begin; their contents follow so many bytes later.
_CHUNK = 8


class Watch:
  """Notes what is missing in a container.

  Args:
    path: of the video.
    form: FFmpeg's first name of its format.
    stream: of the video.

  Attributes:
    skipped: how many packets of the index of an .avi were passed over so far.
  """

  def __init__(self, path: str | os.PathLike, form: str, stream):
    self._path, self._form, self._stream = path, form, stream
    self.skipped = 0
    self._next: int | None = None  # Where the next packet is, if it stands beside the last one.
    self._tears: list[int] | None = None  # Where those begin that are still to come.

  @functools.cached_property
  def structure(self) -> Structure:
    """Of the container; to read it takes a moment."""
    return read_structure(self._path, self._form)

  @functools.cached_property
  def _index(self) -> dict[int, int]:
    """Place in the file -> time stamp."""
    if self._form != 'avi' or len(self._stream.index_entries) < 2:
      return {}
    return {e.pos + _CHUNK: e.timestamp for e in self._stream.index_entries}

  def check(self, packet: av.Packet, order: int, account: Account) -> None:
    """Tells the account what is missing before a packet.

    Args:
      packet: the next one; where others were passed over, it gets the time of the index.
      order: its number.
      account: takes what is found.
    """
    if packet.is_corrupt and self._form == 'mpegts':
      # It may be whole, as may those after it: where recordings are joined, nothing is missing.
      for later in range(_UNSURE):
        account.tear(order + later)
    elif packet.is_corrupt:
      account.doubt(order)
    if packet.pos is None:
      return
    if self._form == 'avi':
      self._check_index(packet, order, account)
    elif self._form in ('matroska', 'flv'):
      apart = self._next is not None and packet.pos > self._next + _BETWEEN
      if apart and self._tears is None:
        self._tears = [begin for begin, _ in self.structure.tears]
      self._next = packet.pos + packet.size
      while self._tears and packet.pos > self._tears[0]:
        del self._tears[0]
        account.tear(order)

  def _check_index(self, packet: av.Packet, order: int, account: Account) -> None:
    stamp = self._index.get(packet.pos)
    if packet.dts is None or stamp is None:
      return
    behind = stamp - packet.dts
    if behind > self.skipped:
      account.missing(range(packet.dts + self.skipped, stamp), order)
      self.skipped = behind
    if self.skipped:
      packet.dts += self.skipped
      if packet.pts is not None:
        packet.pts += self.skipped
