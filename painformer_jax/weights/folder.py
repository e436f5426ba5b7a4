"""Writes and reads a weights folder: a model's variables, its config and their source.

painformer.json   format, config, source and checksums
arrays/           an Orbax checkpoint: path -> array
"""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from painformer_jax.checkpoints.arrays import read_arrays, write_arrays
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import new_folder
from painformer_jax.core.targets import WEIGHTS as DESCRIPTION
from painformer_jax.core.targets import check_folder_target
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.weights import trained_on
from painformer_jax.weights.model_record import UnknownFieldsError, config_from_fields
from painformer_jax.weights.trained_on import TrainedOn

_ARRAYS = 'arrays'
_FORMAT = 'painformer weights'
_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSource:
  """Where weights come from.

  Attributes:
    name: of the file that they were converted from, or of the run that trained them.
    sha256: of that file, in hexadecimal; '' for none.
    model: name of the preset, '' for a model that is none.
    head: name of the task that the head was trained on; '' for no head, or one without a name.
    trained_on: the studies that they were fine-tuned on.
    initialised: released names of the arrays that the file lacked and that have initial
      values, since the user allowed it.
    left_out: names in the file that were left out.
  """

  name: str
  sha256: str = ''
  model: str = ''
  head: str = ''
  trained_on: tuple[TrainedOn, ...] = ()
  initialised: tuple[str, ...] = ()
  left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """A model's variables, as NumPy arrays on the host, and its config.

  Attributes:
    variables: path -> array.
    config: of the model.
    source: where they come from.
    assumed: what is taken to be so though the source does not say it, such as the number of
      attention heads, in one line; '' for nothing.
    choices: lines that say what was taken from a file with several state dicts.
    remarks: those lines, and others that say how a file was read.
  """

  variables: dict[str, np.ndarray]
  config: PainFormerConfig
  source: WeightsSource
  assumed: str = ''
  choices: tuple[str, ...] = ()
  remarks: tuple[str, ...] = ()


def is_weights(folder: str | os.PathLike) -> bool:
  """Whether a folder was written by `save_weights`."""
  return os.path.isfile(pathlib.Path(folder, DESCRIPTION))


def save_weights(
  folder: str | os.PathLike,
  variables: Mapping[str, np.ndarray],
  *,
  config: PainFormerConfig,
  source: WeightsSource,
) -> None:
  """Writes a weights folder, as a whole or not at all.

  Args:
    folder: a new or empty folder, or an older weights folder to replace.
    variables: path -> array, exactly those of the config.
    config: of the model.
    source: where they come from.

  Raises:
    InputError: something else is at `folder`, or it cannot be written.
  """
  target = check_target(folder)
  arrays = {path: np.asarray(array) for path, array in variables.items()}
  description = {
    'format': _FORMAT,
    'version': _VERSION,
    'model': source.model,
    'classes': config.num_classes,
    'head': source.head,
    'source': source.name,
    'sha256': source.sha256,
    'initialised': list(source.initialised),
    'left_out': list(source.left_out),
    trained_on.KEY: [dataclasses.asdict(record) for record in source.trained_on],
    'config': dataclasses.asdict(config),
    'checksums': {path: _checksum(array) for path, array in arrays.items()},
  }
  try:
    with new_folder(target) as partial:
      write_arrays(partial / _ARRAYS, arrays)
      # By which the folder is known again, with nothing else in it, when it is replaced.
      written = [p for p in partial.rglob('*') if p.is_file()]
      description['files'] = sorted(str(p.relative_to(partial)) for p in written)
      (partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + '\n')
  except OSError as error:
    raise InputError(
      f'{folder} cannot be written: {error.strerror}; free some space or choose another place'
    ) from error


def check_target(
  folder: str | os.PathLike, *, inputs: Iterable[str | os.PathLike] = ()
) -> pathlib.Path:
  """The path that `save_weights` would write to, with links resolved.

  Args:
    folder: a new or empty folder, or an older weights folder to replace.
    inputs: files that are read; the folder may hold none.

  Raises:
    InputError: something other than weights is there, or it cannot be written.
  """
  return check_folder_target(folder, own=_own_files(folder), inputs=inputs)


def _own_files(folder: str | os.PathLike) -> set[str]:
  """The files of a weights folder, by its description; empty for any other folder."""
  try:
    description = json.loads(pathlib.Path(folder, DESCRIPTION).read_bytes())
    return {DESCRIPTION, *description['files']} if description['format'] == _FORMAT else set()
  except (OSError, ValueError, KeyError, TypeError):
    return set()


def load_weights(folder: str | os.PathLike) -> Weights:
  """Reads a weights folder and checks it against its own description.

  Raises:
    InputError: it is no weights folder, or it is damaged.
  """
  folder = pathlib.Path(folder)
  description = _describe(folder)
  config = _config(folder, description['config'])
  arrays = _arrays(folder, config)
  for path, array in arrays.items():
    if _checksum(array) != description['checksums'].get(path):
      raise InputError(
        f'{folder} is damaged: the checksum of {path} does not match; '
        'convert or copy the weights again'
      )
  return Weights(
    variables=arrays,
    config=config,
    source=WeightsSource(
      name=str(description['source']),
      sha256=str(description['sha256']),
      model=str(description['model']),
      head=str(description.get('head', '')),
      trained_on=_trained_on(folder, description),
      initialised=_names(folder, description, 'initialised'),
      left_out=_names(folder, description, 'left_out'),
    ),
  )


def _trained_on(folder: pathlib.Path, description: Mapping) -> tuple[TrainedOn, ...]:
  older = folder / trained_on.MEMBER
  try:
    if trained_on.KEY in description:
      return trained_on.from_json(description[trained_on.KEY])
    return trained_on.from_text(older.read_bytes()) if older.is_file() else ()
  except (OSError, ValueError) as error:
    where = DESCRIPTION if trained_on.KEY in description else older.name
    raise InputError(
      f'{folder / where} is damaged ({error}): fine-tune or convert the weights again'
    ) from error


def _names(folder: pathlib.Path, description: Mapping, key: str) -> tuple[str, ...]:
  """A list of names in the description; older ones have none."""
  names = description.get(key, [])
  if not isinstance(names, list):
    raise InputError(f'{folder / DESCRIPTION} is damaged: {key} is no list; convert again')
  return tuple(map(str, names))


def _checksum(array: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(array).data.cast('B') if array.size else b'')


def _describe(folder: pathlib.Path) -> dict:
  if not is_weights(folder):
    raise InputError(
      f'{folder} is no weights folder (it has no {DESCRIPTION}); make one '
      'with: painformer convert SRC OUT'
    )
  try:
    description = json.loads((folder / DESCRIPTION).read_text())
    if description['format'] != _FORMAT:
      raise ValueError('its format is unknown')
    version = int(description['version'])
    fields = {'config': dict, 'checksums': dict, 'source': str, 'sha256': str, 'model': str}
    for name, kind in fields.items():
      if not isinstance(description[name], kind):
        raise ValueError(f'{name} is no {kind.__name__}')
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise InputError(
      f'{folder / DESCRIPTION} is damaged ({error}); convert the weights again'
    ) from error
  if version > _VERSION:
    raise InputError(
      f'{folder} was written by a newer painformer_jax (format {version}); upgrade painformer_jax'
    )
  return description


def _config(folder, fields: dict) -> PainFormerConfig:
  try:
    config = config_from_fields(fields)
    functional.abstract_variables(config)
    return config
  except UnknownFieldsError as error:
    raise InputError(f'{folder}: {error}') from error
  except Exception as error:  # Flax and JAX raise many kinds for values of the wrong kind.
    line = (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
      f'{folder} has a config that cannot be ({line[:300]}); convert the weights again'
    ) from error


def _arrays(folder: pathlib.Path, config: PainFormerConfig) -> dict[str, np.ndarray]:
  try:
    arrays = read_arrays(folder / _ARRAYS)
  except ValueError as error:
    raise InputError(f'{folder} is damaged ({error}); convert or copy the weights again') from error
  shapes = {path: entry.shape for path, entry in functional.abstract_variables(config).items()}
  if {path: array.shape for path, array in arrays.items()} != shapes:
    raise InputError(
      f'{folder} is damaged (its arrays are not those of its config); convert or copy the '
      'weights again'
    )
  return {path: arrays[path] for path in shapes}
