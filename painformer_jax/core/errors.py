"""The one exception for input that a user can mend."""

import importlib


class InputError(Exception):
  """Bad input or usage: says in one line what is wrong, where, what to do.

  The command line prints it after `painformer: ` and exits with status 2;
  library code raises it wherever a file, a folder, a config or an argument is
  at fault. Anything else that escapes is a defect of this package.
  """


def import_extra(module: str, *, extra: str):
  """Imports an optional dependency, or says which extra installs it.

  Raises:
    InputError: `module` is not installed.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name and not module.startswith(error.name):
      raise
    raise InputError(
      f'this needs the package {module.split(".")[0]}: '
      f"pip install '.[{extra}]' in the clone of painformer_jax"
    ) from error
