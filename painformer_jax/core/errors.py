"""The one exception for input that a user can mend, and parts of its messages."""

import difflib
import importlib
import itertools
import types
from collections.abc import Collection, Iterable


class InputError(Exception):
  """Bad input or usage; the message is one line: what is wrong, where, what to do.

  The command line prints it after `painformer: ` and exits with status 2. Library code
  raises it if a file, a folder, a config or an argument is wrong. Any other exception is a
  defect of this package.
  """


class ArgumentError(InputError, ValueError):
  """Bad input in an argument of a Python function, which callers may expect as a ValueError."""


def printable(text: str) -> str:
  """Text from a file that is not trusted, made fit for one line of a message."""
  # A cut before `ascii`, so that a name of megabytes costs nothing.
  text = ascii(text[:200])[1:-1]
  return text if len(text) <= 120 else text[:117] + '...'


def listed(names: Collection[object], *, most: int = 10) -> str:
  """'a, b, c and 7 more': the first names of many, for one line of a message.

  Args:
    names: of which at most the first `most` are read.
    most: how many are listed.
  """
  shown = ', '.join(printable(str(name)) for name in itertools.islice(names, most))
  rest = len(names) - most
  return f'{shown} and {rest:,} more' if rest > 0 else shown


def counted(count: int, noun: str) -> str:
  """'1 image', '2 images', '1,000 identities'."""
  if count != 1:
    noun = f'{noun[:-1]}ies' if noun.endswith('y') else f'{noun}s'
  return f'{count:,} {noun}'


def did_you_mean(name: object, known: Iterable[str]) -> str:
  """'; did you mean NAME?' with the known name that is most like an unknown one; or ''."""
  near = difflib.get_close_matches(str(name), list(known), n=1)
  return f'; did you mean {near[0]}?' if near else ''


def import_extra(module: str, *, extra: str) -> types.ModuleType:
  """Imports an optional dependency; the error names the extra that installs it.

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
