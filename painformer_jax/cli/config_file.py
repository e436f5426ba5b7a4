"""Config files: plain Python with `get_config()`, and overrides by flag."""

import importlib.util
import pathlib
import re
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from painformer_jax.core.config_fields import hint, new_path, use_new_names
from painformer_jax.core.errors import InputError


def load_config(
  file: str, *, overrides: Sequence[str] = (), kind: type | None = None
) -> ml_collections.ConfigDict:
  """Runs a config file and applies overrides, as ml_collections does.

  Args:
    file: path, or path:argument for files whose get_config takes one.
    overrides: such as '--config.optimizer.learning_rate=1e-3'.
    kind: dataclass of the config; its old names are replaced in the file and the overrides.
      None replaces nothing.

  Raises:
    InputError: no such file, an error inside it, an unknown key, a value of
      another type, or a key under its old and its new name with different values.
  """
  path = pathlib.Path(file.split(':')[0])
  if not path.is_file():
    raise InputError(f'there is no config file {path}')
  for override in overrides:
    if not override.startswith('--config.') or '=' not in override:
      raise InputError(f'unknown argument {override!r}: overrides are --config.KEY=VALUE')
  config = _run(file, path, kind)
  if kind is not None:
    overrides = _rename_keys(overrides, kind)
  for override in overrides:
    _check_key(config, override, file, path)
  try:
    if overrides:
      config = _rename_fields(_override(config, overrides), kind)
  except Exception as error:
    wrong, error = _wrong(file, path, kind, overrides) or (' '.join(overrides), error)
    raise InputError(f'{wrong}: {_innermost(error)}') from error
  return config


def _run(file: str, path: pathlib.Path, kind: type | None) -> ml_collections.ConfigDict:
  """What get_config() of the file returns, with old names replaced."""
  try:
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # Dataclasses in the file look their module up.
    spec.loader.exec_module(module)
    config = module.get_config(*file.split(':', 1)[1:])
  except (Exception, SystemExit) as error:  # The user's Python may raise anything.
    text = f'{type(error).__name__}: {error}'.replace(f"module '{_MODULE}'", 'the file')
    raise InputError(f'config {path}: {" ".join(text.split())}') from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise InputError(f'config {path}: get_config() must return a ConfigDict')
  return _rename_fields(config, kind)


def _rename_fields(
  config: ml_collections.ConfigDict, kind: type | None
) -> ml_collections.ConfigDict:
  if kind is not None:
    with config.unlocked(), config.ignore_type():
      use_new_names(kind, config, where='config')
  return config


def _rename_keys(overrides: Sequence[str], kind: type) -> list[str]:
  """The overrides, with old names replaced."""
  result, given = [], {}
  for override in overrides:
    key, _, value = override.removeprefix('--config.').partition('=')
    new = new_path(kind, key, where='config')
    first = given.setdefault(new, override)
    if first != override and first.split('=')[0] != override.split('=')[0]:
      if first.partition('=')[2] != value:
        raise InputError(f'{first} and {override} are the same field: give only config.{new}')
    result.append(f'--config.{new}={value}')
  return result


def _override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
  arguments, values = ['painformer', *overrides], flags.FlagValues()
  config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
  values(arguments)
  return values.config


def _wrong(
  file: str, path: pathlib.Path, kind: type | None, overrides: Sequence[str]
) -> tuple[str, Exception] | None:
  """The first override that fails when it is applied alone, and the error."""
  for override in overrides:
    try:
      _override(_run(file, path, kind), [override])
    except Exception as error:
      return override, error
  return None


def _check_key(
  config: ml_collections.ConfigDict, override: str, file: str, path: pathlib.Path
) -> None:
  """Asserts that the config has the key of '--config.KEY=VALUE'."""
  key = override.removeprefix('--config.').split('=')[0]
  if key in _PRESETS:
    raise InputError(
      f'{override}: the preset cannot be overridden, because the other fields of {path} would '
      'stay those of its own preset: change the preset in the file, or give it as FILE:PRESET '
      'if the file takes one'
    )
  missing = _missing_part(config, key)
  if missing is not None:
    part, known = missing
    option = _option_with(key, file, path)
    advice = f': {option} has it' if option else hint(part, known)
    raise InputError(f'{override}: {file} has no config.{key}{advice}')


def _missing_part(
  config: ml_collections.ConfigDict, key: str
) -> tuple[str, tuple[str, ...]] | None:
  """The part of a key that a config lacks, and the keys beside it; None if it has all."""
  for part in re.sub(r'\[.*?\]', '', key).split('.'):
    if not isinstance(config, ml_collections.ConfigDict) or part not in config:
      return part, tuple(config.keys()) if isinstance(config, ml_collections.ConfigDict) else ()
    config = config[part]
  return None


def _option_with(key: str, file: str, path: pathlib.Path) -> str:
  """FILE:OPTION, of the file's own OPTIONS, whose config has the key; '' for none."""
  given = file.partition(':')[2]
  options = getattr(sys.modules.get(_MODULE), 'OPTIONS', ())
  beside = [f':{given},{option}' for option in options if given]
  for option in ('', *beside, *(f':{option}' for option in options)):
    try:
      config = _run(f'{path}{option}', path, None)
    except InputError:
      continue
    if _missing_part(config, key) is None:
      return f'{path}{option}'
  return ''


# Keys that name a preset; the fields of the preset are keys of the same table.
_PRESETS = ('model.name', 'mixer.name', 'encoder.name')

# The name under which every config file is loaded.
_MODULE = 'painformer_config_file'


def _innermost(error: Exception) -> str:
  """The message of the error that flag parsing wraps, in one line."""
  while error.__cause__ or error.__context__:
    error = error.__cause__ or error.__context__
  kind = '' if isinstance(error, flags.Error) else f'{type(error).__name__}: '
  return ' '.join(f'{kind}{error}'.split())
