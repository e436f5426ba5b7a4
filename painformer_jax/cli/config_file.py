"""Config files: plain Python with `get_config()`, and overrides by flag."""

import pathlib

import ml_collections
from absl import flags
from ml_collections import config_flags

from painformer_jax.errors import InputError


def load_config(file: str, *, overrides: list[str] | tuple[str, ...] = ()) -> ml_collections.ConfigDict:
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
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  try:
    rest = values(['painformer', f'--config={file}', *overrides])
    if rest[1:]:
      raise InputError(f'unknown argument {rest[1]!r}: overrides are --config.KEY=VALUE')
    config = values.config
  except InputError:
    raise
  except flags.Error as error:
    raise InputError(f'config {path}: {error}') from error
  except (AttributeError, KeyError) as error:
    if not overrides:
      raise InputError(f'config {path}: {type(error).__name__}: {error}') from error
    raise InputError(
        f'config {path} has no key {error.args[0]} '
        f'(overrides: {" ".join(overrides)})') from error
  except Exception as error:  # Whatever the user's own Python raises.
    raise InputError(f'config {path}: {type(error).__name__}: {error}') from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise InputError(f'config {path}: get_config() must return a ConfigDict')
  return config
