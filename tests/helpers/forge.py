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


_STORAGES = {
  'f4': 'FloatStorage',
  'f2': 'HalfStorage',
  'i8': 'LongStorage',
  'c8': 'ComplexFloatStorage',
}


def saved(tree, **options) -> bytes:
  """A file as `torch.save` writes it, of nested dicts and lists of arrays and plain values.

  Bytes in the tree are put into the program as they are.
  """
  storages: list[bytes] = []
  return archive(_saved(tree, storages), storages, **options)


def _saved(value, storages: list[bytes]) -> bytes:
  if isinstance(value, bytes):
    return value
  if isinstance(value, dict):
    items = (_saved(k, storages) + _saved(v, storages) for k, v in value.items())
    return b'}(' + b''.join(items) + b'u'
  if isinstance(value, list):
    return b'](' + b''.join(_saved(item, storages) for item in value) + b'e'
  if isinstance(value, np.ndarray):
    storages.append(np.ascontiguousarray(value).tobytes())
    storage = _STORAGES[value.dtype.str[1:]]
    return tensor(value.shape, key=str(len(storages) - 1), storage=storage)
  return text(value) if isinstance(value, str) else b'N' if value is None else number(value)


def instance(module: str, attribute: str, state: bytes = b'', items: bytes = b'') -> bytes:
  """An object as pickle makes it: NEWOBJ, then BUILD with the state."""
  return name(module, attribute) + b')\x81' + items + (state + b'b' if state else b'')


def floats(*values: float) -> bytes:
  return np.array(values, '<f4').tobytes()
