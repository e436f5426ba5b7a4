"""Reads folders of torch.distributed.checkpoint (FSDP, tensor parallelism) on one machine.

`.metadata` is a pickle that says which piece of which tensor is where. Each piece is a small
PyTorch file within one of the large `.distcp` files. Nothing in either is executed.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from painformer_jax.core.errors import InputError, printable
from painformer_jax.weights.torch import pickle as torch_pickle
from painformer_jax.weights.torch.opened import MAX_FILE_BYTES, MAX_TENSORS, OpenedFile, content_of
from painformer_jax.weights.torch.records import MAX_DIMENSIONS, Inert, TensorRecord, Unreadable
from painformer_jax.weights.torch.storages import Storages
from painformer_jax.weights.torch.zip import TorchArchive

METADATA = '.metadata'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
  """One part of a tensor: its place in the tensor, and its bytes in a file."""

  offsets: tuple[int, ...]
  sizes: tuple[int, ...]
  file: str
  start: int
  length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
  """A tensor in pieces."""

  shape: tuple[int, ...]
  pieces: tuple[Piece, ...]


def open_folder(folder: pathlib.Path) -> OpenedFile:
  """Reads the metadata of a folder and the files that it names.

  Raises:
    InputError: something is damaged or missing, or a file would be outside the folder; the
      message begins with the folder.
  """
  program = content_of(folder / METADATA, most=torch_pickle.MAX_PROGRAM_BYTES)
  try:
    metadata = _attributes(torch_pickle.parse(program))
    places = _places(metadata.get('storage_data'))
    root = {
      name: _pieces(name, _attributes(entry), places)
      for name, entry in _dict(metadata.get('state_dict_metadata')).items()
      if isinstance(name, str) and 'chunks' in _attributes(entry)
    }
    others = [n for n in _dict(metadata.get('state_dict_metadata')) if n not in root]
  except InputError as error:
    raise InputError(f'{folder / METADATA} {error}') from error
  if len(root) > MAX_TENSORS:
    raise InputError(f'{folder} holds more than {MAX_TENSORS:,} tensors')
  files = _Files(folder)
  names = sorted({piece.file for tensor in root.values() for piece in tensor.pieces})
  sha256 = hashlib.sha256(program)
  for name in names:
    sha256.update(files.content(name))
  return OpenedFile(
    kind='folder of torch.distributed.checkpoint',
    root={**root, **{name: None for name in others if isinstance(name, str)}},
    arrays=lambda tensors: _arrays(tensors, files),
    sha256=sha256.hexdigest(),
    size=len(program) + files.size,
  )


class _Files:
  """The contents of the data files, each read once."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._contents: dict[str, bytes] = {}
    self.size = 0

  def content(self, name: str) -> bytes:
    if name not in self._contents:
      content = content_of(self._folder / name, most=MAX_FILE_BYTES - self.size)
      self.size += len(content)
      self._contents[name] = content
    return self._contents[name]

  def tensor(self, name: str, piece: Piece) -> np.ndarray:
    content = self.content(piece.file)
    where = f"{piece.file}: the piece of '{printable(name)}'"
    if piece.start + piece.length > len(content):
      raise InputError(f'is damaged: {where} is beyond the end; copy the folder again')
    part = content[piece.start : piece.start + piece.length]
    if part[:4] != b'PK\x03\x04':
      raise InputError(
        f'cannot be read: {where} is not as torch.save writes it (compressed?); save it with '
        'the default options'
      )
    try:
      archive = TorchArchive(part)
      record = torch_pickle.parse(archive.read('data.pkl'))
      if isinstance(record, Unreadable):
        raise InputError(record.why)
      if not isinstance(record, TensorRecord):
        raise InputError('holds no tensor; copy the folder again')
      return Storages(archive, len(part)).arrays({name: record})[name]
    except InputError as error:
      raise InputError(f'cannot be read: {where} {error}') from error


def _arrays(tensors: Mapping[str, Pieces], files: _Files) -> dict[str, np.ndarray]:
  result: dict[str, np.ndarray] = {}
  left = 4 * files.size + (1 << 20)
  for name, tensor in tensors.items():
    pieces = [files.tensor(name, piece) for piece in tensor.pieces]
    left -= sum(array.nbytes for array in pieces)
    if left < 0:
      raise InputError('is damaged: its pieces claim more than its files hold')
    result[name] = _joined(name, tensor, pieces)
  return result


def _joined(name: str, tensor: Pieces, pieces: list[np.ndarray]) -> np.ndarray:
  """The tensor that pieces make, which must cover it and not overlap."""
  fits = bool(pieces) and all(a.shape == p.sizes for a, p in zip(pieces, tensor.pieces))
  if fits and len(pieces) == 1 and tensor.shape == pieces[0].shape:
    return pieces[0]
  # As many elements as the tensor, and none of it left out: so none is there twice.
  if fits and sum(array.size for array in pieces) == math.prod(tensor.shape):
    whole = np.empty(tensor.shape, pieces[0].dtype)
    covered = np.zeros(tensor.shape, bool)
    for array, piece in zip(pieces, tensor.pieces):
      place = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.sizes))
      if whole[place].shape == array.shape and array.dtype == whole.dtype:
        whole[place] = array
        covered[place] = True
    if covered.all():
      return whole
  raise InputError(
    f"is damaged: the pieces of '{printable(name)}' do not make a tensor of shape "
    f'{list(tensor.shape)}; copy the folder again, with the files of all processes'
  )


def _places(storage_data: object) -> dict[tuple[object, tuple[int, ...]], tuple[str, int, int]]:
  """(name, offsets of the piece) -> file, start, length."""
  places = {}
  for index, info in _dict(storage_data).items():
    index, info = _attributes(index), _attributes(info)
    if info.get('transform_descriptors'):
      raise InputError('says that the tensors are compressed; save them without')
    file = info.get('relative_path')
    if not isinstance(file, str) or not is_plain_name(file):
      raise InputError(
        f'names the file {printable(str(file))}, which is not in its folder; it cannot be right'
      )
    offset = index.get('offset')
    offsets = () if offset is None else _sizes(offset)
    start, length = _sizes((info.get('offset'), info.get('length')))
    places[index.get('fqn'), offsets] = file, start, length
  return places


def _pieces(name: str, entry: dict, places: Mapping) -> Pieces:
  pieces = []
  for chunk in entry['chunks'] if isinstance(entry['chunks'], list) else ():
    chunk = _attributes(chunk)
    offsets, sizes = _sizes(chunk.get('offsets')), _sizes(chunk.get('sizes'))
    place = places.get((name, offsets)) or (places.get((name, ())) if not any(offsets) else None)
    if place is None:
      raise InputError(
        f"does not say where a piece of '{printable(name)}' is; copy the folder again"
      )
    file, start, length = place
    pieces.append(Piece(offsets=offsets, sizes=sizes, file=file, start=start, length=length))
  shape = _sizes(entry.get('size'))
  if any(len(p.offsets) != len(shape) or len(p.sizes) != len(shape) for p in pieces):
    raise InputError(f"is damaged: '{printable(name)}' has pieces of other dimensions")
  return Pieces(shape=shape, pieces=tuple(pieces))


def _attributes(node: object) -> dict:
  """The attributes of an object, whatever its class."""
  state = node.state if isinstance(node, Inert) else None
  return state if isinstance(state, dict) else {}


def _dict(node: object) -> dict:
  if not isinstance(node, dict):
    raise InputError('is no metadata of torch.distributed.checkpoint; copy the folder again')
  return node


def _sizes(values: object) -> tuple[int, ...]:
  if isinstance(values, tuple) and len(values) <= MAX_DIMENSIONS:
    if all(type(value) is int and 0 <= value < 1 << 63 for value in values):
      return values
  raise InputError('is damaged: a shape or place in it is no row of whole numbers')


def is_plain_name(name: str) -> bool:
  """Whether a relative path stays within its folder."""
  path = pathlib.PurePosixPath(name)
  return bool(name) and not path.is_absolute() and '..' not in path.parts and '\0' not in name
