"""Reads weights as trainers of PyTorch save them, without PyTorch.

`read` recognises formats by their content, never by the file's name:

- what `torch.save` has written since version 1.6 (a zip archive), whose pickle is
  interpreted, never executed (see `pickle`),
- safetensors,
- folders of one of them in several files, and of PyTorch's distributed checkpoints (see
  `folders`).

Every size is checked against the file before anything is allocated.
"""

import hashlib
import os

from painformer_jax.core.errors import InputError, printable
from painformer_jax.weights import safetensors_file, trained_on
from painformer_jax.weights.model_record import KEY
from painformer_jax.weights.options import DEFAULTS, FileOptions
from painformer_jax.weights.torch import folders, state_dicts
from painformer_jax.weights.torch import pickle as torch_pickle
from painformer_jax.weights.torch.opened import OpenedFile, content_of
from painformer_jax.weights.torch.state_dicts import TorchCheckpoint as TorchCheckpoint
from painformer_jax.weights.torch.storages import Storages
from painformer_jax.weights.torch.zip import TorchArchive
from painformer_jax.weights.trained_on import TrainedOn


def read(path: str | os.PathLike, options: FileOptions = DEFAULTS) -> state_dicts.TorchCheckpoint:
  """Reads the weights in a file or folder.

  Args:
    path: of a file of at most 4 GiB, or of a folder of such files. Memory use is bounded by
      about six times their size and the few hundred MB that a list of tensors can take.
    options: which of the file's state dicts to take, and how its names are changed.

  Raises:
    InputError: there is no such file, it is of another format, damaged, or holds anything
      besides plain weights that would have to be executed; an option does not fit it; in
      one line, beginning with the path.
  """
  opened = open_weights(path)
  try:
    return state_dicts.select(opened, options)
  except InputError as error:
    raise InputError(f'{path} {error}') from error


def open_weights(path: str | os.PathLike) -> OpenedFile:
  """Reads what a file or folder holds, with its tensors where they stand.

  Raises:
    InputError: as `read`.
  """
  if os.path.isdir(path) or os.fspath(path).endswith('.index.json'):
    return folders.open_folder(path, open_file)
  return open_file(path)


def open_file(path: str | os.PathLike) -> OpenedFile:
  """Reads one file, see `open_weights`."""
  content = content_of(path)
  try:
    return parse(content)
  except InputError as error:
    raise InputError(f'{path} {error}') from error


def parse(content: bytes) -> OpenedFile:
  """Reads the content of one file.

  Raises:
    InputError: it is of another format or damaged; the message begins with a verb.
  """
  sha256 = hashlib.sha256(content).hexdigest()
  if content[:4] in (b'PK\x03\x04', b'PK\x05\x06'):
    archive = TorchArchive(content)
    root = torch_pickle.parse(archive.read('data.pkl'))
    return OpenedFile(
      kind='PyTorch zip file',
      root=root,
      arrays=Storages(archive, len(content)).arrays,
      sha256=sha256,
      size=len(content),
      trained_on=_tuned_on(archive),
      record=root.get(KEY) if isinstance(root, dict) else None,
    )
  if safetensors_file.looks_like(content):
    return OpenedFile(
      kind='safetensors file',
      root=safetensors_file.parse(content),
      arrays=dict,
      sha256=sha256,
      size=len(content),
      trained_on=safetensors_file.read_tuned_on(content),
      record=safetensors_file.read_record(content),
    )
  raise InputError(_other_format(content))


def _other_format(content: bytes) -> str:
  """What a file that is neither zip nor safetensors seems to be."""
  head = content[:64].lstrip().lower()
  again = 'torch.save(torch.load(FILE, weights_only=True), OUT)'
  if content[257:262] == b'ustar':
    return (
      'is a tar archive; if PyTorch wrote it (before 0.4), save it again '
      f'with PyTorch 1.6 or newer: {again}'
    )
  if content[:2] in (b'\x80\2', b'\x80\3', b'\x80\4', b'\x80\5'):
    return (
      'is a bare pickle, the format of torch.save before PyTorch 1.6; '
      f'save it again with a newer one: {again}'
    )
  if head.startswith(b'version https://git-lfs'):
    return 'is a Git LFS pointer, not the weights; fetch them: git lfs pull'
  if head.startswith((b'<!doctype', b'<html')):
    return 'is a web page, not the weights; download the file itself'
  return (
    'is neither a PyTorch (zip) nor a safetensors file; check that the '
    'download is complete and of the right file'
  )


def _tuned_on(archive: TorchArchive) -> tuple[TrainedOn, ...]:
  if trained_on.MEMBER not in archive:
    return ()
  try:
    return trained_on.from_text(bytes(archive.read(trained_on.MEMBER)))
  except ValueError as error:
    raise InputError(
      f'has a damaged member {trained_on.MEMBER} ({printable(str(error))}); export it again'
    ) from error
