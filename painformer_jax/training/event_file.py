"""TensorBoard event files, written directly.

The libraries that write them import TensorFlow, or PyTorch where it is there,
and hand events to a thread: one that dies of a full disk blocks training, and
one that is killed loses what it held. Scalars need very little of the format,
which TensorFlow documents: records of `tensorflow/core/util/event.proto`,
framed as in `tensorflow/core/lib/io/record_writer.h`.
"""

import functools
import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping

_START = 1  # SessionLog.SessionStatus


class EventFile:
  """One event file, complete after every `write`.

  Args:
    folder: made on demand; TensorBoard reads its files in the order of their
      names, which is that of their making.
    start_step: what older files of the folder say of it and later ones is void.

  Raises:
    OSError: the file cannot be written; also by `write`.
  """

  def __init__(self, folder: str | pathlib.Path, *, start_step: int = 0):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    restarted = any(folder.iterdir())
    name = f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}'
    self._file = (folder / name).open('xb')
    self._append(_text(3, 'brain.Event:2'))
    if restarted:
      session = _message(7, _number(1, _START))
      self._append(_number(2, start_step) + session)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds one scalar a name."""
    scalars = b''.join(
      _message(1, _text(1, name) + _tag(2, 5) + struct.pack('<f', value))
      for name, value in values.items()
    )
    self._append(_number(2, step) + _message(5, scalars))

  def sync(self) -> None:
    """Has the system put on disk what was written."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()

  def _append(self, event: bytes) -> None:
    event = _tag(1, 1) + struct.pack('<d', time.time()) + event
    length = struct.pack('<Q', len(event))
    self._file.write(length + _checksum(length) + event + _checksum(event))
    self._file.flush()


# Protocol buffers: a field is its number and wire type, then its value.


def _varint(value: int) -> bytes:
  parts = bytearray()
  while value > 127:
    parts.append(value & 127 | 128)
    value >>= 7
  return bytes(parts + bytes([value]))


def _tag(field: int, wire_type: int) -> bytes:
  return _varint(field << 3 | wire_type)


def _number(field: int, value: int) -> bytes:
  return _tag(field, 0) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
  return _tag(field, 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
  return _message(field, value.encode())


# Records: length, its checksum, content, its checksum.


@functools.cache
def _table() -> tuple[int, ...]:
  """CRC-32C of every byte (Castagnoli, reflected)."""

  def entry(value):
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value

  return tuple(entry(byte) for byte in range(256))


def _checksum(content: bytes) -> bytes:
  table, crc = _table(), 0xFFFFFFFF
  for byte in content:
    crc = crc >> 8 ^ table[(crc ^ byte) & 255]
  crc ^= 0xFFFFFFFF
  masked = (crc >> 15 | crc << 17) + 0xA282EAD8
  return struct.pack('<I', masked & 0xFFFFFFFF)
