"""Reads the zip archive around a PyTorch checkpoint, and checks all that it claims.

`torch.save` (since PyTorch 1.6) stores, uncompressed and below one folder,
`data.pkl`, one member a storage (`data/0`, `data/1`, ...), `byteorder` and
`version`. Members that are compressed, encrypted, repeated, overlapping or
outside the file are refused, so no member is larger than the file and all of
them together are no larger either.
"""

import dataclasses
import io
import struct
import zipfile
import zlib

from painformer_jax.core.errors import InputError, printable

# A member for each tensor and some others; the limit bounds the time that a directory takes.
_MAX_MEMBERS = 50_000
_ENTRY = b'PK\x01\x02'  # Begins each entry of a directory.
_LOCAL_HEADER = struct.Struct('<4s22xHH')

# What zipfile raises on damaged directories, beside its own BadZipFile.
_ZIP_ERRORS = (
  zipfile.BadZipFile,
  zipfile.LargeZipFile,
  NotImplementedError,
  ValueError,
  OverflowError,
  EOFError,
  LookupError,
  struct.error,
  OSError,
)


@dataclasses.dataclass(frozen=True)
class _Member:
  start: int
  end: int
  crc: int


class TorchArchive:
  """The members of one checkpoint, by name within its folder."""

  def __init__(self, content: bytes):
    """Reads the archive's directory and checks every member against the file.

    Args:
      content: the whole file.

    Raises:
      InputError: it is no sound zip archive, or not one that PyTorch wrote.
    """
    self._content = memoryview(content)
    if content.count(_ENTRY) > _MAX_MEMBERS:
      raise InputError(
        f'has more than {_MAX_MEMBERS:,} members, which no checkpoint has; save the weights alone '
        'with PyTorch: torch.save(model.state_dict(), OUT)'
      )
    try:
      with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        directory = archive.start_dir
    except _ZIP_ERRORS as error:
      raise InputError(
        f'is a damaged or cut-off zip archive ({printable(str(error))}); download or save it again'
      ) from error
    folder = _folder([entry.filename for entry in entries])
    self._members = {
      name[len(folder) :]: member
      for name, member in self._locate(entries, directory).items()
      if name.startswith(folder)
    }

  def __contains__(self, name: str) -> bool:
    return name in self._members

  def size(self, name: str) -> int:
    """Bytes of a member that exists."""
    return self._members[name].end - self._members[name].start

  def read(self, name: str) -> memoryview:
    """The bytes of a member that exists, without a copy.

    Raises:
      InputError: they do not match the checksum recorded for them.
    """
    member = self._members[name]
    view = self._content[member.start : member.end]
    # PyTorch can be told to save without checksums; it records zeros then.
    if member.crc and zlib.crc32(view) != member.crc:
      raise InputError(
        f'is damaged: the checksum of its member {printable(name)} does not '
        'match; download or copy it again'
      )
    return view

  def byte_order(self) -> str:
    """'<' or '>', the order of the bytes in every storage."""
    if 'byteorder' not in self:
      return '<'
    if self.size('byteorder') < 16:
      record = bytes(self.read('byteorder'))
      if record in (b'little', b'big'):
        return '<' if record == b'little' else '>'
    raise InputError(
      "is damaged: its byteorder record is neither 'little' nor 'big'; download or save it again"
    )

  def _locate(self, entries, directory: int) -> dict[str, _Member]:
    members = {}
    previous_end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
      name = printable(entry.filename)
      if entry.flag_bits & 0x1:
        raise InputError(f'is encrypted (member {name}); decrypt it, or save it again with PyTorch')
      if entry.compress_type != zipfile.ZIP_STORED:
        raise InputError(
          f'has the compressed member {name} ({entry.compress_size:,} bytes '
          f'that claim to become {entry.file_size:,}); PyTorch compresses '
          'nothing. Unpack it and save it again with PyTorch'
        )
      if entry.header_offset < previous_end or entry.filename in members:
        raise InputError(
          f'is not sound: its member {name} overlaps or repeats another; save it again with PyTorch'
        )
      start = self._data_start(entry.header_offset, name)
      end = start + entry.file_size
      if entry.file_size != entry.compress_size or end > directory:
        raise InputError(
          f'is damaged: its member {name} claims {entry.file_size:,} bytes '
          'that the file does not hold; download or save it again'
        )
      members[entry.filename] = _Member(start, end, entry.CRC)
      previous_end = end
    return members

  def _data_start(self, offset: int, name: str) -> int:
    header = self._content[offset : offset + _LOCAL_HEADER.size]
    if len(header) == _LOCAL_HEADER.size:
      magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
      if magic == b'PK\x03\x04':
        return offset + _LOCAL_HEADER.size + name_length + extra_length
    raise InputError(
      f'is damaged: no member begins where {name} is said to begin; download or save it again'
    )


def _folder(names: list[str]) -> str:
  """The one folder that holds a data.pkl; what the archive is if none does."""
  folders = [
    name[: -len('data.pkl')]
    for name in names
    if name.endswith('/data.pkl') and name.count('/') == 1
  ]
  if not folders and any(name.endswith('.npy') for name in names):
    raise InputError(
      'is a NumPy .npz archive, not a PyTorch checkpoint; give the .pth or .safetensors file'
    )
  if not folders:
    raise InputError(
      'is a zip archive without FOLDER/data.pkl, so not a PyTorch '
      'checkpoint; give the file that torch.save wrote, not one packed '
      'again'
    )
  if len(folders) > 1:
    listed = ', '.join(printable(folder) for folder in folders[:4])
    raise InputError(f'holds more than one checkpoint: {listed}')
  if f'{folders[0]}constants.pkl' in names:
    raise InputError(
      'is a TorchScript module, not a checkpoint; save its weights with '
      'PyTorch: torch.save(module.state_dict(), OUT)'
    )
  return folders[0]
