"""Where the structure of a video's container is broken, or goes on beyond the end of the file.

FFmpeg finds its way over such places without a word. Here only the frame of a container is read,
the sizes and names of its parts, and nothing of what they hold.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import re
import struct
from collections.abc import Callable

# The end of a file is looked at in so many bytes.
_TAIL = 1 << 20

# Matroska: parts that hold others, and those that stand beside clusters.
_SEGMENT, _CLUSTER, _GROUP = 0x18538067, 0x1F43B675, 0xA0
_BESIDE = frozenset(
  {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469,
   0xEC, 0xBF}
)  # fmt: skip
_MARK = 0x47  # Begins a packet of an MPEG transport stream.
_PACK = b'\0\0\1\xba'  # Begins a part of an MPEG program stream.
# ASF's file properties: its size in bytes, then times and flags; 1: it is being broadcast.
_ASF_FILE = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
  """What is wrong with a container.

  Attributes:
    tears: where a broken part begins and ends, in bytes from the start of the file.
    cut: whether the file ends before its last part does.
  """

  tears: tuple[tuple[int, int], ...] = ()
  cut: bool = False


def read_structure(path: str | os.PathLike, form: str) -> Structure:
  """Looks through the parts of a container.

  Args:
    path: of the video.
    form: FFmpeg's name of its format. Of formats that are not known here nothing is wrong.
  """
  look = next((look for name, look in _LOOKS.items() if name in form.split(',')), None)
  if look is None:
    return Structure()
  with open(path, 'rb') as file:
    if not os.fstat(file.fileno()).st_size:
      return Structure()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
      try:
        return look(data)
      except (IndexError, struct.error):  # Its last part is not all there.
        return Structure(cut=True)


def _matroska(data: mmap.mmap) -> Structure:
  tears: list[tuple[int, int]] = []
  _, start, stop = _element(data, 0)  # Of the header.
  name, start, stop = _element(data, stop or start)
  if name != _SEGMENT:
    return Structure()
  end = len(data) if stop is None else stop
  place = start
  while place < min(end, len(data)):
    name, begin, stop = _element(data, place)
    if name not in _BESIDE or (stop or 0) > end:
      if name in _BESIDE and stop > len(data):
        return Structure(tears=tuple(tears), cut=True)
      place = _torn(data, place, tears)
    elif name == _CLUSTER:
      broken = _cluster(data, begin, stop if stop is not None else end)
      whole = broken == stop or stop is None and _element(data, broken)[0] in _BESIDE
      place = broken if whole or broken >= len(data) else _torn(data, broken, tears)
    else:
      place = end if stop is None else stop
  return Structure(tears=tuple(tears), cut=end > len(data))


def _torn(data: mmap.mmap, place: int, tears: list[tuple[int, int]]) -> int:
  """Notes a tear, and finds the next cluster."""
  following = data.find(_CLUSTER.to_bytes(4), place + 1)
  tears.append((place, len(data) if following < 0 else following))
  return tears[-1][1]


def _cluster(data: mmap.mmap, place: int, end: int) -> int:
  """Where the parts of a cluster end, or one is broken."""
  while place < min(end, len(data)):
    name, begin, stop = _element(data, place)
    if name not in (_GROUP, 0xA3, 0xE7, 0xA7, 0xAB, 0xEC, 0xBF, 0xAF, 0x5854) or stop is None:
      return place
    if stop > end:
      return place
    place = stop
  return place


def _element(data: mmap.mmap, place: int) -> tuple[int, int, int | None]:
  """The name of an EBML element, and where its contents begin and end; None for unknown."""
  size = place + 9 - data[place].bit_length()
  body = size + 9 - data[size].bit_length()
  if size - place > 8 or body - size > 8:
    return 0, place, place
  most = 1 << 7 * (body - size)
  length = int.from_bytes(data[size:body]) & most - 1
  return int.from_bytes(data[place:size]), body, None if length == most - 1 else body + length


def _flv(data: mmap.mmap) -> Structure:
  tears: list[tuple[int, int]] = []
  place = int.from_bytes(data[5:9]) + 4
  while place < len(data):
    stop = place + 11 + int.from_bytes(data[place + 1 : place + 4])
    known = data[place] & 0x1F in (8, 9, 18)
    if known and stop + 4 > len(data):
      return Structure(tears=tuple(tears), cut=True)
    if not known or int.from_bytes(data[stop : stop + 4]) != stop - place:
      tears.append((place, len(data)))  # FFmpeg finds the next one.
      break
    place = stop + 4
  return Structure(tears=tuple(tears))


def _asf(data: mmap.mmap) -> Structure:
  place = data.find(_ASF_FILE, 0, _TAIL)
  if place < 0:
    return Structure()
  (size,), (flags,) = (
    struct.unpack_from('<Q', data, place + 40),
    struct.unpack_from('<I', data, place + 88),
  )
  return Structure(cut=not flags & 1 and size > len(data))


def _riff(data: mmap.mmap) -> Structure:
  (size,) = struct.unpack_from('<I', data, 4)
  # A recorder that was switched off leaves 0.
  return Structure(cut=size + 8 > len(data))


def _transport(data: mmap.mmap) -> Structure:
  """MPEG transport streams: packets of one size, each with a mark."""
  for size, first in ((188, 0), (192, 4), (204, 0)):
    if all(data[first + k * size] == _MARK for k in range(min(5, len(data) // size))):
      marks = data[first::size]
      broken = len(marks) - len(marks.lstrip(bytes([_MARK])))
      tears = ((broken * size, len(data)),) if broken < len(marks) else ()
      return Structure(tears=tears, cut=not tears and len(data) % size != 0)
  return Structure()


def _program(data: mmap.mmap) -> Structure:
  """MPEG program streams: packs of packets, each with its length."""
  tears: list[tuple[int, int]] = []
  place = data.find(_PACK)
  while 0 <= place < len(data) - 6:
    name, length = data[place + 3], int.from_bytes(data[place + 4 : place + 6])
    if data[place : place + 3] != b'\0\0\1' or name < 0xB9 or not length and name > 0xBA:
      following = data.find(_PACK, place)
      # Zeros may stand between packs, and a packet of length 0 is as long as it is.
      known = name > 0xBA and not length and data[place : place + 3] == b'\0\0\1'
      if not known and data[place : following if following >= 0 else len(data)].strip(b'\0'):
        tears.append((place, following if following >= 0 else len(data)))
      place = following
    elif name == 0xB9:  # The end; another stream may follow.
      place += 4
    elif name == 0xBA:  # Of MPEG-2 with 14 bytes and stuffing, of MPEG-1 with 12.
      place += 14 + (data[place + 13] & 7) if data[place + 4] >> 6 == 1 else 12
    else:
      place += 6 + length
  return Structure(tears=tuple(tears), cut=place > len(data))


def _y4m(data: mmap.mmap) -> Structure:
  end = data.find(b'\n', 0, _TAIL)
  header = data[:end]
  width, height = (re.search(rb' %s(\d+)' % letter, header) for letter in (b'W', b'H'))
  colour = re.search(rb' C(\w+)', header)
  kind = colour[1].decode() if colour else '420'
  share = next((s for name, s in _Y4M.items() if kind.startswith(name)), None)
  if not (width and height and share):
    return Structure()
  deep = re.search(r'p(1[0-6]|9)$|mono(1[0-6]|9)$', kind)
  wide, high = int(width[1]), int(height[1])
  across, down, planes = share
  size = wide * high + planes * -(-wide // across) * -(-high // down)
  size *= 2 if deep else 1
  place = end + 1
  while place < len(data):
    line = data.find(b'\n', place, place + 256)
    if data[place : place + 5] != b'FRAME' or line < 0 or line + 1 + size > len(data):
      return Structure(cut=True)
    place = line + 1 + size
  return Structure()


# Of y4m: pixels a sample of colour, across and down, and how many planes of them.
_Y4M = {
  '420': (2, 2, 2), '411': (4, 1, 2), '422': (2, 1, 2), '444alpha': (1, 1, 3), '444': (1, 1, 2),
  'mono': (1, 1, 0),
}  # fmt: skip
_LOOKS: dict[str, Callable[[mmap.mmap], Structure]] = {
  'matroska': _matroska,
  'flv': _flv,
  'asf': _asf,
  'avi': _riff,
  'mpegts': _transport,
  'mpeg': _program,
  'yuv4mpegpipe': _y4m,
}
