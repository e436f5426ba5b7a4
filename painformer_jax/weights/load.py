"""Loads a model from weights in any form: a file, a weights folder or a training run."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, spectral
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.painformer import PainFormer
from painformer_jax.weights import folder as weights
from painformer_jax.weights import key_map, pretrain_run
from painformer_jax.weights.convert import convert, initial_arrays
from painformer_jax.weights.folder import Weights, WeightsSource
from painformer_jax.weights.torch import read as torch_file

# Fields of the config that change how the model computes, but none of its arrays.
_ARITHMETIC = ('dtype', 'gate', 'gate_precision', 'depthwise', 'drop_path_rate')

# Kinds of folders: whether a folder is of the kind, and how to read it.
_Path = str | os.PathLike[str]
_FOLDERS: list[tuple[Callable[[_Path], bool], Callable[[_Path], Weights]]] = [
  (weights.is_weights, weights.load_weights),
  (pretrain_run.is_run, pretrain_run.load_run),
]


def load(
  path: str | os.PathLike[str],
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
  seed: int = 0,
  **arithmetic: Any,
) -> PainFormer:
  """A model with stored weights, in evaluation mode.

  Args:
    path: a .pth or .safetensors file (recognised by its content), a folder that
      `painformer convert` wrote, or the folder of a run of `painformer
      pretrain` (its newest checkpoint, without the tasks' heads).
    num_classes: None for the stored head, if any; 0 for no head; a number that differs
      from the stored head's for a new head with random values.
    image_size: None for the size that the weights are for; for another size the
      spectral filters are resampled, which the release cannot.
    seed: of a new head's random values.
    **arithmetic: `dtype`, `gate`, `gate_precision`, `depthwise` and
      `drop_path_rate` of `PainFormerConfig`.

  Raises:
    InputError: there are no weights at `path`, they are damaged, or an argument does
      not fit them.
  """
  stored = read_weights(path)
  changes = dict(arithmetic)
  if unknown := sorted(changes.keys() - set(_ARITHMETIC)):
    raise InputError(
      f'load takes no {", ".join(unknown)} (known: num_classes, image_size, '
      f'seed, {", ".join(_ARITHMETIC)})'
    )
  if num_classes is not None:
    changes['num_classes'] = num_classes
  if image_size is not None:
    changes['image_size'] = image_size
  try:
    config = dataclasses.replace(stored.config, **changes)
  except ValueError as error:
    raise InputError(f'load {path}: {error}') from error
  arrays = _resampled(stored, config)
  if config.num_classes != stored.config.num_classes:
    arrays = _with_head(arrays, config, seed)
  return functional.from_variables(config, arrays)


def load_arrays(path: str | os.PathLike[str], *, config: PainFormerConfig) -> dict[str, np.ndarray]:
  """The arrays of a backbone, for a model that the caller makes.

  Args:
    path: as for `load`.
    config: of the model, without a head; its input size may differ from that
      of the weights.

  Returns:
    path of the variable -> array.

  Raises:
    InputError: there are no weights at `path`, they are damaged, or they are of a model
      of another shape.
  """
  stored = read_weights(path)
  free = ('num_classes', 'image_size', *_ARITHMETIC)
  differing = [
    f'{field.name}: {getattr(stored.config, field.name)} there, {getattr(config, field.name)} here'
    for field in dataclasses.fields(config)
    if field.name not in free and getattr(stored.config, field.name) != getattr(config, field.name)
  ]
  if differing:
    raise InputError(f'the weights {path} are of a model of another shape ({"; ".join(differing)})')
  return _with_head(_resampled(stored, config), config, seed=0)


def read_weights(path: str | os.PathLike[str]) -> Weights:
  """Reads weights in any form that `load` takes, without changing their head or size.

  Raises:
    InputError: there are none at `path`, or they are damaged.
  """
  if not isinstance(path, str | os.PathLike) or not os.fspath(path):
    raise InputError(f'weights are loaded from the path of a file or folder, not from {path!r}')
  if os.path.isdir(path):
    for is_kind, read in _FOLDERS:
      if is_kind(path):
        return read(path)
    raise InputError(
      f'{path} is a folder without weights; give a .pth or .safetensors '
      'file, a folder made by: painformer convert SRC OUT, or the --workdir '
      'of: painformer pretrain'
    )
  checkpoint = torch_file.read(path)
  conversion = convert(checkpoint, source=str(path))
  return Weights(
    variables=conversion.variables,
    config=conversion.config,
    source=WeightsSource(
      name=pathlib.Path(path).name,
      sha256=checkpoint.sha256,
      model=conversion.report.model,
      trained_on=checkpoint.trained_on,
    ),
  )


def non_finite(stored: Weights) -> list[str]:
  """Released names of the arrays that hold NaN or infinity."""
  return [
    key_map.to_torch(path).name
    for path, array in stored.variables.items()
    if not np.isfinite(array).all()
  ]


def _resampled(stored: Weights, config: PainFormerConfig) -> dict[str, np.ndarray]:
  """The arrays with spectral filters for the grids of `config`."""
  arrays = dict(stored.variables)
  if config.image_size == stored.config.image_size:
    return arrays
  for stage in range(len(config.widths)):
    grid = config.grid(stage)
    for path in arrays:
      if path.startswith(f'block{stage + 1}/') and path.endswith('/complex_weight'):
        arrays[path] = np.asarray(spectral.resample(arrays[path], grid, grid))
  return arrays


def _with_head(
  arrays: dict[str, np.ndarray], config: PainFormerConfig, seed: int
) -> dict[str, np.ndarray]:
  """The arrays with a new head of random values, or without one."""
  body = {path: array for path, array in arrays.items() if not path.startswith('head/')}
  if config.num_classes:
    body |= initial_arrays(config, ['head/kernel', 'head/bias'], seed=seed)
  return body
