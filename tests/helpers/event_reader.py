"""Reads TensorBoard event files back, with another library's code."""

import pathlib
import struct

from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2


def _masked(content: bytes) -> int:
  crc = crc32c(content)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(file: pathlib.Path) -> list:
  """All events of a file; asserts lengths and checksums."""
  content, position, events = file.read_bytes(), 0, []
  while position < len(content):
    length, length_crc = struct.unpack_from('<QI', content, position)
    assert length_crc == _masked(content[position : position + 8])
    event = content[position + 12 : position + 12 + length]
    assert len(event) == length
    assert struct.unpack_from('<I', content, position + 12 + length)[0] == _masked(event)
    events.append(event_pb2.Event.FromString(event))
    position += 16 + length
  return events


def read_scalars(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Name -> (step, value) as TensorBoard shows them.

  Files in the order of their names; a restart voids what is later than it.
  """
  scalars = {}
  for file in sorted(folder.iterdir()):
    events = read_events(file)
    assert events[0].file_version == 'brain.Event:2'
    for event in events[1:]:
      if event.HasField('session_log'):
        assert event.session_log.status == event_pb2.SessionLog.START
        scalars = {
          name: [pair for pair in pairs if pair[0] < event.step] for name, pairs in scalars.items()
        }
      for value in event.summary.value:
        scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
  return scalars
