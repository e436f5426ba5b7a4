"""Folders of weights: several files with an index, distributed checkpoints, saved states."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights.torch import dcp, state_dicts
from painformer_jax.weights.torch.opened import MAX_FILE_BYTES, MAX_TENSORS, OpenedFile, content_of
from painformer_jax.weights.torch.records import Unreadable

_INDEX = '.index.json'
_MAX_INDEX_BYTES = 8 << 20
_MAX_SHARDS = 1000
# The weights in folders that accelerate, transformers and Lightning write, in order of preference.
_SINGLE = ('model.safetensors', 'pytorch_model.bin', 'pytorch_model.pth')
# The folder in those of accelerate where sharded weights are.
_FSDP = 'pytorch_model_fsdp_0'
# Where DeepSpeed writes the name of the newest folder, and the weights in it.
_LATEST, _DEEPSPEED = 'latest', 'mp_rank_00_model_states.pt'

_Open = Callable[[str | os.PathLike], OpenedFile]


def is_weights(folder: str | os.PathLike) -> bool:
  """Whether a folder holds weights of one of these kinds."""
  return _member(pathlib.Path(folder)) is not None


def open_folder(path: str | os.PathLike, open_file: _Open) -> OpenedFile:
  """Reads a folder, or the index of one.

  Args:
    path: of the folder or of its `*.index.json`.
    open_file: reads one file.

  Raises:
    InputError: it holds no weights, or they are damaged.
  """
  path = pathlib.Path(path)
  member = _member(path) if path.is_dir() else path
  if member is None:
    raise InputError(f'{path} is a folder; give the .pth or .safetensors file in it')
  if member.name.endswith(_INDEX):
    return _open_index(member, open_file)
  if member.name == dcp.METADATA:
    return dcp.open_folder(member.parent)
  return open_file(member)


def _member(folder: pathlib.Path) -> pathlib.Path | None:
  """The file that tells what the folder holds; None where there is none."""
  try:
    names = sorted(os.listdir(folder))
  except OSError:
    return None
  indices = [name for name in names if name.endswith(('.safetensors' + _INDEX, '.bin' + _INDEX))]
  for parent in (folder, folder / _FSDP):
    if (parent / dcp.METADATA).is_file():
      return parent / dcp.METADATA
  # Of weights in both formats, those in safetensors.
  for name in (*sorted(indices, reverse=True), *_SINGLE, _DEEPSPEED):
    if name in names:
      return folder / name
  if _LATEST in names:
    tag = _first_line(folder / _LATEST)
    if tag and dcp.is_plain_name(tag) and (folder / tag / _DEEPSPEED).is_file():
      return folder / tag / _DEEPSPEED
  return None


def _first_line(path: pathlib.Path) -> str:
  try:
    with path.open('rb') as file:
      return file.read(200).decode('utf-8', 'replace').strip()
  except OSError:
    return ''


def _open_index(index: pathlib.Path, open_file: _Open) -> OpenedFile:
  content = content_of(index, most=_MAX_INDEX_BYTES)
  wrong = f'{index} is not the index of weights in several files'
  try:
    places = json.loads(content)['weight_map']
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise InputError(f'{wrong}: it has no weight_map; copy it again') from error
  if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
    raise InputError(f'{wrong}: its weight_map does not give a file for each name; copy it again')
  files = sorted(set(places.values()))
  for name in files:
    if not dcp.is_plain_name(name):
      raise InputError(
        f'{index} names the file {printable(name)}, which is not in its folder; it cannot be right'
      )
  if len(places) > MAX_TENSORS or len(files) > _MAX_SHARDS:
    raise InputError(f'{index} lists more than {MAX_TENSORS:,} tensors or {_MAX_SHARDS:,} files')
  root, kinds, size = {}, set(), len(content)
  sha256 = hashlib.sha256(content)
  for name in files:
    opened = open_file(index.parent / name)
    size += opened.size
    if size > MAX_FILE_BYTES:
      raise InputError(f'{index}: its files have more than the {MAX_FILE_BYTES:,} bytes read')
    sha256.update(bytes.fromhex(opened.sha256))
    kinds.add(opened.kind)
    wanted = [tensor for tensor, file in places.items() if file == name]
    held = _tensors(opened.root)
    if lacking := [tensor for tensor in wanted if tensor not in held]:
      raise InputError(
        f'{index.parent / name} lacks {len(lacking)} tensors that {index.name} says it holds: '
        f'{listed(lacking)}; download it again'
      )
    readable = {n: t for n, t in held.items() if not isinstance(t, Unreadable)}
    try:
      root |= held | opened.arrays(readable)
    except InputError as error:
      raise InputError(f'{index.parent / name} {error}') from error
  return OpenedFile(
    kind=f'{" and ".join(sorted(kinds))} in {len(files)} parts',
    root=root,
    arrays=dict,
    sha256=sha256.hexdigest(),
    size=size,
  )


def _tensors(root: object) -> dict:
  found = state_dicts.find(root)
  return dict(found[0].tensors) if found else {}
