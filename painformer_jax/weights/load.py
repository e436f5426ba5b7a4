"""Loads a model from weights in any form: a file, a weights folder or a training run."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, spectral
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.painformer import PainFormer
from painformer_jax.weights import folder as weights_folder
from painformer_jax.weights import key_map, pretrain_run, report
from painformer_jax.weights.convert import Conversion, convert, initial_arrays, non_finite, zeros
from painformer_jax.weights.folder import Weights, WeightsSource
from painformer_jax.weights.options import DEFAULTS, FileOptions
from painformer_jax.weights.torch import folders as torch_folders
from painformer_jax.weights.torch import read as torch_file

# Fields of the config that change how the model computes, but none of its arrays.
_ARITHMETIC = ('dtype', 'gate', 'gate_precision', 'depthwise', 'drop_path_rate')

# Kinds of folders: whether a folder is of the kind, and how to read it.
_Path = str | os.PathLike[str]
_FOLDERS: list[tuple[Callable[[_Path], bool], Callable[[_Path], Weights]]] = [
  (weights_folder.is_weights, weights_folder.load_weights),
  (pretrain_run.is_run, pretrain_run.load_run),
]


def load(
  path: str | os.PathLike[str],
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
  seed: int = 0,
  key: str | None = None,
  prefix: str | None = None,
  rename: str | Sequence[str] = (),
  allow_missing: str | None = None,
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
    key: of the state dict in a .pth file with several, such as 'state_dict'; None for the
      average of the weights if there is one.
    prefix: what every name of the model begins with, such as 'model.'; None to find it.
    rename: 'REGEX=REPLACEMENT', one or several, applied to the names in turn.
    allow_missing: regular expression of released names that may be missing or misshapen,
      which then get initial values, or unexpected; at least half of the model must be there.
    **arithmetic: `dtype`, `gate`, `gate_precision`, `depthwise` and
      `drop_path_rate` of `PainFormerConfig`.

  Raises:
    InputError: there are no weights at `path`, they are damaged, or an argument does
      not fit them.

  Warns:
    UserWarning: the file holds several state dicts, or arrays hold NaN, infinity or nothing
      but 0, or have initial values.
  """
  options = FileOptions(
    key=key,
    prefix=prefix,
    rename=(rename,) if isinstance(rename, str) else tuple(rename),
    allow_missing=allow_missing,
  )
  stored = read_weights(path, options)
  for line in (*stored.choices, *warnings_of(stored)):
    warnings.warn(f'{path}: {line}', stacklevel=2)
  changes = dict(arithmetic)
  if unknown := sorted(changes.keys() - set(_ARITHMETIC)):
    raise InputError(
      f'load takes no {", ".join(unknown)} (known: num_classes, image_size, '
      f'seed, key, prefix, rename, allow_missing, {", ".join(_ARITHMETIC)})'
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


def read_weights(path: str | os.PathLike[str], options: FileOptions = DEFAULTS) -> Weights:
  """Reads weights in any form that `load` takes, without changing their head or size.

  Args:
    path: as for `load`.
    options: what to take from a file.

  Raises:
    InputError: there are none at `path`, or they are damaged.
  """
  if not isinstance(path, str | os.PathLike) or not os.fspath(path):
    raise InputError(f'weights are loaded from the path of a file or folder, not from {path!r}')
  if os.path.isdir(path):
    for is_kind, read in _FOLDERS:
      if is_kind(path):
        if options.given:
          raise InputError(
            f'{path} is a folder of this package; {options.given[0]} is for files of PyTorch'
          )
        return read(path)
    if not torch_folders.is_weights(path):
      raise InputError(
        f'{path} is a folder without weights; give a .pth or .safetensors '
        'file, a folder made by: painformer convert SRC OUT, or the --workdir '
        'of: painformer pretrain'
      )
  checkpoint = torch_file.read(path, options)
  conversion = convert(checkpoint, source=str(path), allow_missing=options.allow_missing)
  return Weights(
    variables=conversion.variables,
    config=conversion.config,
    source=source_of(path, conversion, checkpoint),
    choices=tuple(report.choices(conversion.report)),
    remarks=tuple(report.remarks(conversion.report)),
  )


def source_of(
  path: str | os.PathLike[str], conversion: Conversion, checkpoint: torch_file.TorchCheckpoint
) -> WeightsSource:
  """Where converted weights come from."""
  return WeightsSource(
    name=pathlib.Path(path).name,
    sha256=checkpoint.sha256,
    model=conversion.report.model,
    trained_on=checkpoint.trained_on,
    initialised=tuple(conversion.report.initialised),
    left_out=(*conversion.report.skipped, *conversion.report.left_out),
  )


def warnings_of(stored: Weights) -> list[str]:
  """Lines that say why weights may be useless: NaN, nothing but 0, initial values."""
  bad, empty = (
    [key_map.to_torch(path).name for path in check(stored.variables)]
    for check in (non_finite, zeros)
  )
  return [*report.values_warnings(bad, empty), *report.initial_warnings(stored.source.initialised)]


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
