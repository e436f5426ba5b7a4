"""The tensors of weights in any form, under the released names, whether or not a model fits."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.weights import folder as weights_folder
from painformer_jax.weights import pretrain_run
from painformer_jax.weights.convert import export, modern
from painformer_jax.weights.folder import Weights
from painformer_jax.weights.options import DEFAULTS, FileOptions
from painformer_jax.weights.report import choices
from painformer_jax.weights.torch import read as torch_file
from painformer_jax.weights.torch import state_dicts
from painformer_jax.weights.torch.opened import OpenedFile

_Path = str | os.PathLike[str]
# This package's own kinds of folders: whether a folder is of the kind, and how to read it.
FOLDERS: dict[str, tuple[Callable[[_Path], bool], Callable[[_Path], Weights]]] = {
  'weights folder': (weights_folder.is_weights, weights_folder.load_weights),
  'run of painformer pretrain': (pretrain_run.is_run, pretrain_run.load_run),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Weights as they are stored; one of `stored` and `opened` is there.

  Attributes:
    kind: of the file or folder.
    stored: the content of a folder of this package.
    opened: the content of a file of PyTorch, or of a folder of them.
  """

  kind: str
  stored: Weights | None = None
  opened: OpenedFile | None = None


def open_source(path: _Path) -> Source:
  """Reads weights in any form.

  Raises:
    InputError: there are none at `path`, or they are damaged.
  """
  if os.path.isdir(path):
    for kind, (is_kind, read) in FOLDERS.items():
      if is_kind(path):
        return Source(kind=kind, stored=read(path))
  opened = torch_file.open_weights(path)
  return Source(kind=opened.kind, opened=opened)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedTensors:
  """Released name -> array, and lines that say what was taken of several state dicts."""

  tensors: dict[str, np.ndarray]
  choices: list[str]


def read_tensors(path: _Path, options: FileOptions = DEFAULTS) -> NamedTensors:
  """The tensors of weights in any form.

  Args:
    path: of the file or folder.
    options: what to take from a file; not for folders of this package.

  Raises:
    InputError: there are none at `path`, they are damaged, or an option does not fit.
  """
  source = open_source(path)
  if source.stored is not None:
    return NamedTensors(tensors=export(source.stored.variables), choices=[])
  try:
    checkpoint = state_dicts.select(source.opened, options)
  except InputError as error:
    raise InputError(f'{path} {error}') from error
  return NamedTensors(
    tensors={name: modern(name, array) for name, array in checkpoint.tensors.items()},
    choices=choices(checkpoint),
  )
