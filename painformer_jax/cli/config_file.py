"""Config files: plain Python with `get_config()`, and overrides by flag."""

import difflib
import pathlib
import re
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from painformer_jax.core.errors import InputError


def load_config(file: str, *, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
  """Runs a config file and applies overrides, as ml_collections does.

  Args:
    file: path, or path:argument for files whose get_config takes one.
    overrides: such as '--config.optimizer.learning_rate=1e-3'.

  Raises:
    InputError: no such file, an error inside it, an unknown key, a value of
      another type.
  """
  path = pathlib.Path(file.split(':')[0])
  if not path.is_file():
    raise InputError(f'there is no config file {path}')
  for override in overrides:
    if not override.startswith('--config.') or '=' not in override:
      raise InputError(f'unknown argument {override!r}: overrides are --config.KEY=VALUE')
  try:
    config = _parse(file)
  except (Exception, SystemExit) as error:  # Whatever the user's own Python raises.
    raise InputError(f'config {path}: {_innermost(error)}') from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise InputError(f'config {path}: get_config() must return a ConfigDict')
  for override in overrides:
    _check_key(config, override, path)
  try:
    return _parse(file, *overrides) if overrides else config
  except Exception as error:
    wrong, error = _wrong(file, overrides) or (' '.join(overrides), error)
    raise InputError(f'{wrong}: {_innermost(error)}') from error


def _wrong(file: str, overrides: Sequence[str]) -> tuple[str, Exception] | None:
  """The first override that cannot be taken by itself, and why."""
  for override in overrides:
    try:
      _parse(file, override)
    except Exception as error:
      return override, error
  return None


def _check_key(config: ml_collections.ConfigDict, override: str, path: pathlib.Path) -> None:
  """Asserts that the config has the key of '--config.KEY=VALUE'."""
  key = override.removeprefix('--config.').split('=')[0]
  if key in _PRESETS:
    # The file has taken the other fields of the network from its own preset.
    raise InputError(
      f'{override}: the preset cannot be overridden, since the other fields would stay '
      f'those of {path}: name it in the file, or behind its name where the file says that '
      'this takes one'
    )
  for part in re.sub(r'\[.*?\]', '', key).split('.'):
    if not isinstance(config, ml_collections.ConfigDict) or part not in config:
      known = config.keys() if isinstance(config, ml_collections.ConfigDict) else ()
      near = difflib.get_close_matches(part, known, n=1)
      hint = f'; did you mean {near[0]}?' if near else ''
      raise InputError(f'{override}: {path} has no config.{key}{hint}')
    config = config[part]


# Keys that name a preset whose fields stand beside it.
_PRESETS = ('model.name', 'mixer.name', 'encoder.name')

# The name under which ml_collections loads every config file.
_MODULE = 'config_config'


def _parse(file: str, *overrides: str):
  sys.modules.pop(_MODULE, None)  # What another file defined is not of this one.
  arguments = ['painformer', f'--config={file}', *overrides]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=arguments)
  values(arguments)
  return values.config


def _innermost(error: Exception) -> str:
  """The error that flag parsing wraps, in one line."""
  while error.__cause__ or error.__context__:
    error = error.__cause__ or error.__context__
  kind = '' if isinstance(error, flags.Error) else f'{type(error).__name__}: '
  return ' '.join(f'{kind}{error}'.replace(f"module '{_MODULE}'", 'the file').split())
