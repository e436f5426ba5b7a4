"""Loads a model from weights in any form: a file, a weights folder or a training run."""

import dataclasses
import os
import pathlib
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, spectral
from painformer_jax.models.config import ARITHMETIC, PainFormerConfig
from painformer_jax.models.painformer import PainFormer
from painformer_jax.weights import folder as weights_folder
from painformer_jax.weights import key_map, pretrain_run, report
from painformer_jax.weights.convert import Conversion, convert, initial_arrays, non_finite, zeros
from painformer_jax.weights.folder import Weights, WeightsSource
from painformer_jax.weights.options import DEFAULTS, FileOptions, file_options
from painformer_jax.weights.torch import folders as torch_folders
from painformer_jax.weights.torch import read as torch_file

# Model -> where its weights come from; an attribute of it would be part of what jit compiles.
_ORIGINS: weakref.WeakKeyDictionary[PainFormer, WeightsSource] = weakref.WeakKeyDictionary()


def load(
  path: str | os.PathLike[str],
  *,
  head: str | None = None,
  num_classes: int | None = None,
  new_head: bool = False,
  heads: Sequence[int] | None = None,
  image_size: int | None = None,
  seed: int = 0,
  key: str | None = None,
  prefix: str | None = None,
  rename: str | Sequence[str] = (),
  allow_missing: str | None = None,
  **arithmetic: Any,
) -> PainFormer:
  """A model with stored weights, in evaluation mode.

  What a file does not say, such as the number of attention heads, is taken from the preset of
  the same shapes, and a line on standard error says so.

  Args:
    path: a .pth or .safetensors file (recognised by its content), a folder that
      `painformer convert` wrote, or the folder of a run of `painformer
      pretrain` (its newest checkpoint).
    head: name of the task whose head the model shall have: one of the run's, or the one that
      the file was exported with. None for the head that is stored, which a run has not.
    num_classes: classes of the head: None for those of the stored one, if any; 0 for no head.
      Where no head is stored, a number of classes makes one with random values.
    new_head: whether a stored head gives way to one of `num_classes` with random values.
    heads: attention heads of each stage, and after them of the class attention if it has
      others than the last stage, of a file that does not say them.
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
      not fit them, such as a number of classes that is not the stored head's.

  Warns:
    UserWarning: the file holds several state dicts, or arrays hold NaN, infinity or nothing
      but 0, or have initial values.
  """
  options = file_options(
    key=key, prefix=prefix, rename=rename, allow_missing=allow_missing, heads=heads
  )
  if unknown := sorted(arithmetic.keys() - set(ARITHMETIC)):
    raise InputError(
      f'load takes no {", ".join(unknown)} (known: head, num_classes, new_head, heads, image_size, '
      f'seed, key, prefix, rename, allow_missing, {", ".join(ARITHMETIC)})'
    )
  stored = read_weights(path, options, head=head)
  tell_assumed(stored, path)
  for line in (*stored.choices, *warnings_of(stored)):
    warnings.warn(f'{path}: {line}', stacklevel=2)
  changes = dict(arithmetic)
  if num_classes is not None:
    changes['num_classes'] = num_classes
  if image_size is not None:
    changes['image_size'] = image_size
  try:
    config = dataclasses.replace(stored.config, **changes)
  except ValueError as error:
    raise InputError(f'load {path}: {error}') from error
  _check_head(path, stored, num_classes, new_head=new_head)
  arrays, source = _resampled(stored, config), stored.source
  if new_head or config.num_classes != stored.config.num_classes:
    arrays, source = _with_head(arrays, config, seed), dataclasses.replace(source, head='')
  model = functional.from_variables(config, arrays)
  _ORIGINS[model] = source
  return model


def origin_of(model: PainFormer) -> WeightsSource | None:
  """Where the weights of a model from `load` come from; None for another model."""
  return _ORIGINS.get(model)


def tell_assumed(
  stored: Weights, path: str | os.PathLike[str], log: Callable[[str], None] = progress.log
) -> None:
  """Says in one line what weights do not say and is assumed, if there is anything."""
  if stored.assumed:
    log(f'{path}: {report.unsaid(stored.assumed)}')


def tell(
  stored: Weights, path: str | os.PathLike[str], log: Callable[[str], None] = progress.log
) -> None:
  """Says what weights do not say, what was taken of several, and why they may be useless."""
  tell_assumed(stored, path, log)
  for line in stored.choices:
    log(f'{path}: {line}')
  for line in warnings_of(stored):
    log(f'WARNING: {path}: {line}')


def _check_head(
  path: str | os.PathLike[str], stored: Weights, num_classes: int | None, *, new_head: bool
) -> None:
  """Refuses a number of classes that is not the stored head's, unless a new one is meant."""
  there = stored.config.num_classes
  if new_head:
    if not num_classes:
      raise InputError('new_head needs num_classes: of how many classes shall it be?')
  elif num_classes and there and num_classes != there:
    raise InputError(
      f'num_classes {num_classes}: {path} has a head of {there:,} classes; num_classes=0 loads it '
      'without, and new_head=True replaces it by a new one with random values'
    )
  elif num_classes and not there and pretrain_run.is_run(path):
    raise InputError(
      f'num_classes {num_classes}: the heads of {path} are of tasks; head= names one of them, and '
      'new_head=True makes a new one with random values'
    )


def load_arrays(path: str | os.PathLike[str], *, config: PainFormerConfig) -> dict[str, np.ndarray]:
  """The arrays of a backbone, for a model that the caller makes.

  Args:
    path: as for `load`.
    config: of the model, without a head; its input size may differ from that of the weights,
      and its attention heads are those of a file that does not say them.

  Returns:
    path of the variable -> array.

  Raises:
    InputError: there are no weights at `path`, they are damaged, or they are of a model
      of another shape.
  """
  stored = read_weights(path)
  tell(dataclasses.replace(stored, assumed=''), path)
  # What the weights do not say, the config does.
  unsaid = ('heads', 'post_heads') if stored.assumed else ()
  free = {'num_classes', 'image_size', 'mean', 'std', *ARITHMETIC, *unsaid}
  differing = [
    f'{field.name}: {getattr(stored.config, field.name)} there, {getattr(config, field.name)} here'
    for field in dataclasses.fields(config)
    if field.name not in free and getattr(stored.config, field.name) != getattr(config, field.name)
  ]
  if differing:
    raise InputError(f'the weights {path} are of a model of another shape ({"; ".join(differing)})')
  return _with_head(_resampled(stored, config), config, seed=0)


def read_weights(
  path: str | os.PathLike[str], options: FileOptions = DEFAULTS, *, head: str | None = None
) -> Weights:
  """Reads weights in any form that `load` takes, without changing their head or size.

  Args:
    path: as for `load`.
    options: what to take from a file.
    head: name of the task whose head to take, as for `load`.

  Raises:
    InputError: there are none at `path`, they are damaged, or have no such head.
  """
  if not isinstance(path, str | os.PathLike) or not os.fspath(path):
    raise InputError(f'weights are loaded from the path of a file or folder, not from {path!r}')
  stored = _read(path, options, head)
  if head is not None and stored.source.head != head:
    has = f'the head {stored.source.head!r}' if stored.source.head else 'a head without a name'
    raise InputError(
      f'{path} has {has if stored.config.num_classes else "no head"}, not {head!r}; the heads of '
      'tasks are in the --workdir of painformer pretrain'
    )
  return stored


def _read(path: str | os.PathLike[str], options: FileOptions, head: str | None) -> Weights:
  if os.path.isdir(path):
    is_weights, is_run = weights_folder.is_weights(path), pretrain_run.is_run(path)
    if options.given and (is_weights or is_run):
      raise InputError(
        f'{path} is a folder of this package; {options.given[0]} is for files of PyTorch'
      )
    if is_weights:
      return weights_folder.load_weights(path)
    if is_run:
      return pretrain_run.load_run(path, head=head)
    if not torch_folders.is_weights(path):
      raise InputError(
        f'{path} is a folder without weights; give a .pth or .safetensors '
        'file, a folder made by: painformer convert SRC OUT, or the --workdir '
        'of: painformer pretrain'
      )
  checkpoint = torch_file.read(path, options)
  conversion = convert(
    checkpoint, source=str(path), allow_missing=options.allow_missing, heads=options.heads
  )
  return Weights(
    variables=conversion.variables,
    config=conversion.config,
    source=source_of(path, conversion, checkpoint),
    assumed=conversion.report.assumed,
    choices=tuple(report.choices(conversion.report)),
    remarks=tuple(report.remarks(conversion.report)),
  )


def source_of(
  path: str | os.PathLike[str], conversion: Conversion, checkpoint: torch_file.TorchCheckpoint
) -> WeightsSource:
  """Where converted weights come from."""
  earlier = checkpoint.record.initialised if checkpoint.record else ()
  return WeightsSource(
    name=pathlib.Path(path).name,
    sha256=checkpoint.sha256,
    model=conversion.report.model,
    head=conversion.report.head,
    trained_on=checkpoint.trained_on,
    initialised=(*earlier, *conversion.report.initialised),
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
