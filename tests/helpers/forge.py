"""Builds PyTorch files by hand, byte by byte, honest ones and lying ones.

Written apart from the package's own writer, after what `torch.save` writes, so
that the two can be held against each other.
"""

import io
import struct
import zipfile

import numpy as np


def text(value: str) -> bytes:
  content = value.encode()
  return b'X' + struct.pack('<I', len(content)) + content


def number(value: int) -> bytes:
  if 0 <= value < 256:
    return b'K' + bytes([value])
  if -(2**31) <= value < 2**31:
    return b'J' + struct.pack('<i', value)
  content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
  return b'\x8a' + bytes([len(content)]) + content


def name(module: str, attribute: str) -> bytes:
  return f'c{module}\n{attribute}\n'.encode()


def tuple_(*items: bytes) -> bytes:
  return b'(' + b''.join(items) + b't'


def dict_(**items: bytes) -> bytes:
  return b'}(' + b''.join(text(k) + v for k, v in items.items()) + b'u'


ORDERED_DICT = name('collections', 'OrderedDict') + b')R'


def tensor(
  shape, strides=None, *, key='0', count=None, offset=0, storage='FloatStorage', extra=b''
) -> bytes:
  """A tensor as torch._utils._rebuild_tensor_v2 is called for it."""
  if strides is None:
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  count = int(np.prod(shape)) if count is None else count
  where = (
    tuple_(text('storage'), name('torch', storage), text(key), text('cpu'), number(count)) + b'Q'
  )
  arguments = tuple_(
    where,
    number(offset),
    tuple_(*map(number, shape)),
    tuple_(*map(number, strides)),
    b'\x89',
    ORDERED_DICT,
    extra,
  )
  return name('torch._utils', '_rebuild_tensor_v2') + arguments + b'R'


def program(body: bytes) -> bytes:
  return b'\x80\x02' + body + b'.'


def archive(
  body: bytes,
  storages=(),
  *,
  byteorder: bytes | None = b'little',
  folder='archive',
  compression=zipfile.ZIP_STORED,
  more=(),
) -> bytes:
  """A zip file with the pickle of `body` and the storages' bytes in order."""
  return archive_of(
    program(body), storages, byteorder=byteorder, folder=folder, compression=compression, more=more
  )


def archive_of(
  whole_program: bytes,
  storages=(),
  *,
  byteorder=b'little',
  folder='archive',
  compression=zipfile.ZIP_STORED,
  more=(),
) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as file:
    file.writestr(f'{folder}/data.pkl', whole_program)
    if byteorder is not None:
      file.writestr(f'{folder}/byteorder', byteorder)
    for index, storage in enumerate(storages):
      file.writestr(f'{folder}/data/{index}', storage)
    for member, content in more:
      file.writestr(member, content)
    file.writestr(f'{folder}/version', b'3\n')
  return buffer.getvalue()


def floats(*values: float) -> bytes:
  return np.array(values, '<f4').tobytes()
