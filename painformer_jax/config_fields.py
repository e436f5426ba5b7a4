"""Tables of a config file as dataclasses, strictly: a typo is one clear line."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from painformer_jax.errors import InputError

T = TypeVar('T')


def build(kind: type[T], values: Mapping, *, where: str) -> T:
  """A dataclass, nested ones included, from a table whose keys are its fields.

  Whole numbers serve as floats, lists as tuples.

  Args:
    kind: the dataclass.
    values: the table.
    where: what errors call it, such as 'config.fit'.

  Raises:
    InputError: an unknown or missing field, a value of another type, or what the
      dataclass itself refuses.
  """
  if not isinstance(values, Mapping):
    raise InputError(f'{where} is {values!r}, not a table of fields')
  hints = typing.get_type_hints(kind)
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for name in values:
    if name not in fields:
      raise InputError(f'{where} has no field {name!r}{hint(name, fields)}')
  for name, field in fields.items():
    if name not in values and field.default is dataclasses.MISSING and (
        field.default_factory is dataclasses.MISSING):
      raise InputError(f'{where}.{name} is missing')
  typed = {name: _typed(value, hints[name], where=f'{where}.{name}')
           for name, value in values.items()}
  try:
    return kind(**typed)
  except (InputError, ValueError) as error:
    raise InputError(f'{where}: {error}') from error


def hint(name: object, known: Iterable[str]) -> str:
  """What an unknown name may have been meant to be, and what there is."""
  known = list(known)
  near = difflib.get_close_matches(str(name), known, n=1)
  meant = f'; did you mean {near[0]}?' if near else ''
  return f'{meant} (known: {", ".join(known)})'


def leaves(tree: Mapping, prefix: str = '') -> dict[str, Any]:
  """'path.of.names' -> value, of nested tables."""
  found = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      found |= leaves(value, f'{prefix}{name}.')
    else:
      found[f'{prefix}{name}'] = value
  return found


def _typed(value, kind, *, where: str):
  """The value as that type."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if kind is Any:
    return value
  if dataclasses.is_dataclass(kind):
    return build(kind, value, where=where)
  if origin is Literal:
    if value not in arguments:
      raise InputError(f'{where} is {value!r}{hint(value, map(str, arguments))}')
    return value
  if origin in (typing.Union, types.UnionType):
    if value is None and types.NoneType in arguments:
      return None
    return _typed(value, next(a for a in arguments if a is not types.NoneType), where=where)
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      raise InputError(f'{where} is {value!r}, not a list')
    return tuple(_typed(part, arguments[0], where=where) for part in value)
  if origin is Mapping:
    if not isinstance(value, Mapping):
      raise InputError(f'{where} is {value!r}, not a table of fields')
    return {name: _typed(part, arguments[1], where=f'{where}.{name}')
            for name, part in value.items()}
  if kind is float and type(value) is int:
    return float(value)
  if kind in (int, float, str, bool) and type(value) is not kind:
    raise InputError(f'{where} is {value!r}, not of type {kind.__name__}')
  return value
