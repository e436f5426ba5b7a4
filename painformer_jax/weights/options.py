"""How the user says what to take from a file of weights."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
  """Options of reading a .pth or .safetensors file; the defaults find everything themselves.

  Attributes:
    key: where the state dict is in the file, such as 'state_dict' or 'ema.module'; None to
      find it.
    prefix: what every name of the model begins with, such as 'model.'; other names are left
      out. '.' for nothing; None to find it.
    rename: 'REGEX=REPLACEMENT' each; applied in turn to the names, before the prefix is
      taken off.
    allow_missing: regular expression, searched for anywhere in a released name; it must
      not match the empty string. A tensor that it matches may be missing or misshapen,
      and its variable then gets the release's initial values (seed 0); or unexpected, and
      is then left out. None allows nothing.
    heads: attention heads of each stage, and after them of the class attention if it has others
      than the last stage; None for what the file says, or for those of the preset that has its
      shapes.
  """

  key: str | None = None
  prefix: str | None = None
  rename: tuple[str, ...] = ()
  allow_missing: str | None = None
  heads: tuple[int, ...] | None = None

  @property
  def given(self) -> list[str]:
    """Names of the options that differ from the defaults, as on the command line."""
    return [
      f'--{field.name.replace("_", "-")}'
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    ]

  def renamed(self) -> Callable[[str], str]:
    """The function that applies `rename` to a name.

    Raises:
      InputError: an entry is no regular expression with a replacement.
    """
    steps = [_rename(entry) for entry in self.rename]

    def renamed(name: str) -> str:
      for pattern, replacement, entry in steps:
        try:
          name = pattern.sub(replacement, name)
        except (re.error, IndexError) as error:
          raise InputError(f'--rename {entry!r} has a replacement that fails: {error}') from error
      return name

    return renamed

  def allowed(self) -> Callable[[str], bool]:
    """The function that tells whether `allow_missing` names a tensor.

    Raises:
      InputError: it is no regular expression or matches the empty string.
    """
    pattern = self.allow_missing
    if pattern is None:
      return lambda name: False
    try:
      compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
      raise InputError(f'--allow-missing {pattern!r} is no regular expression: {error}') from error
    if compiled.search('') is not None:
      raise InputError(
        f'--allow-missing {pattern!r} also matches the empty string, and so every name; '
        "name what may be missing, such as '^head' or 'norm4'"
      )
    return lambda name: compiled.search(name) is not None


DEFAULTS = FileOptions()


def file_options(**given: Any) -> FileOptions:
  """Options from the arguments of a Python function; `rename` may be a single entry.

  Raises:
    InputError: there is no such option.
  """
  known = [field.name for field in dataclasses.fields(FileOptions)]
  if unknown := sorted(given.keys() - set(known)):
    raise InputError(f'there is no option {", ".join(unknown)} (known: {", ".join(known)})')
  rename, heads = given.get('rename', ()), given.get('heads')
  given['rename'] = (rename,) if isinstance(rename, str) else tuple(rename)
  given['heads'] = heads if heads is None or isinstance(heads, str) else tuple(heads)
  return FileOptions(**given)


def _rename(entry: str) -> tuple[re.Pattern, str, str]:
  # Names hold no '=', while a regular expression may: (?=...).
  pattern, equals, replacement = str(entry).rpartition('=')
  if not equals or not pattern:
    raise InputError(f"--rename {entry!r} is not REGEX=REPLACEMENT, such as '^encoder\\.=' ")
  try:
    return re.compile(pattern), replacement, entry
  except re.error as error:
    raise InputError(f'--rename {entry!r} has no regular expression: {error}') from error
