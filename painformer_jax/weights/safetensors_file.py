"""Reads and writes safetensors weights with the `safetensors` library.

The library's NumPy binding has no bfloat16 on reading, so its element types
are mapped here.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from painformer_jax.core.errors import InputError, printable
from painformer_jax.core.files import write_atomically
from painformer_jax.core.targets import NAME, VERSION_FIELD, FileKind, check_file_target
from painformer_jax.weights import trained_on
from painformer_jax.weights.model_record import KEY
from painformer_jax.weights.trained_on import TrainedOn

# What the format allows, and what is read: a PainFormer has a header of 40 kB, and a hundred
# bytes for each tensor that may be there are plenty.
_MAX_HEADER_BYTES = 100_000_000
_MAX_READ_HEADER = 4 << 20

_MAX_DIMENSIONS = 32

_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U64': np.uint64,
  'U32': np.uint32,
  'U16': np.uint16,
  'U8': np.uint8,
  'BOOL': np.bool_,
  'C64': np.complex64,
}


def looks_like(content: bytes) -> bool:
  """Whether `content` begins as a safetensors file does."""
  length = int.from_bytes(content[:8], 'little')
  return content[8:9] == b'{' and 2 <= length <= _MAX_HEADER_BYTES


def parse(content: bytes) -> dict[str, np.ndarray]:
  """The arrays of a safetensors file, in the order of their data.

  Args:
    content: the whole file.

  Raises:
    InputError: it is damaged, cut off, or has an element type that NumPy and
      ml_dtypes lack; or it has more tensors or dimensions than any model.
  """
  length = int.from_bytes(content[:8], 'little')
  if length > _MAX_READ_HEADER:
    raise InputError(
      f'has a header of {length:,} bytes, more than the {_MAX_READ_HEADER:,} that are read; save '
      'the weights of the model alone'
    )
  try:
    entries = dict(safetensors.deserialize(content))
  except safetensors.SafetensorError as error:
    raise InputError(
      'is a damaged or cut-off safetensors file '
      f'({printable(str(error))}); download or save it again'
    ) from error
  tensors = {}
  for name in _names(content):
    entry = entries[name]
    if entry['dtype'] not in _DTYPES:
      raise InputError(
        f"tensor '{printable(name)}' has the element type "
        f'{printable(entry["dtype"])}, which is not read; save the model in float32, before '
        'it is quantised'
      )
    shape = entry['shape']
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) > len(content):
      raise InputError(
        f"tensor '{printable(name)}' has {len(shape)} dimensions and the shape "
        f'{printable(str(shape[:32]))}, which no weights have; the file cannot be right'
      )
    dtype = np.dtype(_DTYPES[entry['dtype']])
    flat = np.frombuffer(entry['data'], _little_endian(dtype))
    if dtype.kind == 'b':
      flat = flat != 0
    else:
      native = flat.dtype.newbyteorder('=')
      flat = flat.astype(native, copy=False).view(dtype)
    tensors[name] = flat.reshape(shape)
  return tensors


def read_record(content: bytes) -> str:
  """The text in the metadata that says which model the weights are of; '' for none."""
  text: str = _metadata(content).get(KEY, '')
  return text


def read_tuned_on(content: bytes) -> tuple[TrainedOn, ...]:
  """Whom the weights in a file were fine-tuned on, by its metadata.

  Raises:
    InputError: the metadata say something else.
  """
  try:
    return trained_on.from_text(_metadata(content).get(trained_on.KEY, ''))
  except ValueError as error:
    raise InputError(f'has damaged metadata ({error}); export it again') from error


def _metadata(content: bytes) -> dict[str, str]:
  """Which the library allows to be null."""
  length = int.from_bytes(content[:8], 'little')
  return json.loads(content[8 : 8 + length]).get('__metadata__') or {}


def _names(content: bytes) -> list[str]:
  """Names in the order of their data; the library gives them in no order."""
  length = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + length])
  header.pop('__metadata__', None)
  return sorted(header, key=lambda name: header[name]['data_offsets'])


def _little_endian(dtype: np.dtype) -> np.dtype:
  """A type of the same width that knows a byte order (bfloat16 does not)."""
  return np.dtype('<c8' if dtype.kind == 'c' else f'<u{dtype.itemsize}')


def _is_own(file: BinaryIO) -> bool:
  length = int.from_bytes(file.read(8), 'little')
  header = file.read(length) if length <= _MAX_READ_HEADER else b'{}'
  return NAME in json.loads(header).get('__metadata__', {})


KIND = FileKind(suffixes=('.safetensors',), is_own=_is_own)


def check_target(path: str | os.PathLike, *, inputs: Iterable[str | os.PathLike] = ()) -> None:
  """Refuses a path that `write_safetensors` would refuse, or that is read.

  Raises:
    InputError: see `check_file_target`.
  """
  check_file_target(path, KIND, inputs=inputs)


def write_safetensors(
  path: str | os.PathLike,
  tensors: Mapping[str, np.ndarray],
  *,
  record: Mapping[str, Any] | None = None,
  tuned_on: Sequence[TrainedOn] = (),
) -> None:
  """Writes arrays as a safetensors file; same input, same bytes.

  Args:
    path: of the file, replaced as a whole or left alone.
    tensors: name -> array; floats of 16 to 64 bits, bfloat16, integers, bool.
    record: plain values (`model_record.to_json`), for the file's metadata; None for none.
    tuned_on: whom they were fine-tuned on, for the file's metadata.

  Raises:
    InputError: the file exists and was not written by this function, or it cannot be
      written; nothing is left behind.
  """
  arrays = {name: np.array(array, order='C') for name, array in tensors.items()}
  check_target(path)
  metadata = {'format': 'pt', **VERSION_FIELD}
  if record is not None:
    metadata[KEY] = json.dumps(record)
  if tuned_on:
    metadata[trained_on.KEY] = trained_on.to_text(tuned_on)
  content = _with_sorted_metadata(safetensors.numpy.save(arrays, metadata=metadata))
  write_atomically(path, lambda file: file.write(content))


def _with_sorted_metadata(content: bytes) -> bytes:
  """The file with its metadata in order, the mark first: the library's order is random."""
  length = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + length])
  metadata = header['__metadata__']
  header['__metadata__'] = {name: metadata[name] for name in sorted(metadata, key=_order)}
  text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
  if len(text) > length:  # Escaped in another way; the library's own header is right too.
    return content
  return content[:8] + text.ljust(length) + content[8 + length :]


def _order(name: str) -> tuple[bool, str]:
  return name != NAME, name
