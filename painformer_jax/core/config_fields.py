"""Tables of a config file as dataclasses, strictly: a typo is one clear line."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from painformer_jax.core.errors import InputError

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
  check_known(values, fields, where=where)
  for name, field in fields.items():
    if (
      name not in values
      and field.default is dataclasses.MISSING
      and (field.default_factory is dataclasses.MISSING)
    ):
      raise InputError(f'{where}.{name} is missing')
  fitting = {
    name: typed(value, hints[name], where=f'{where}.{name}') for name, value in values.items()
  }
  try:
    return kind(**fitting)
  except (InputError, ValueError) as error:
    raise InputError(f'{where}: {error}') from error


def hint(name: object, known: Iterable[str]) -> str:
  """What an unknown name may have been meant to be, and what there is."""
  known = list(known)
  near = difflib.get_close_matches(str(name), known, n=1)
  meant = f'; did you mean {near[0]}?' if near else ''
  return f'{meant} (known: {", ".join(known)})'


def check_known(names: Iterable[str], known: Iterable[str], *, where: str) -> None:
  """Asserts that all names are known ones.

  Raises:
    InputError: one is not.
  """
  known = list(known)
  for name in names:
    if name not in known:
      raise InputError(f'{where} has no field {name!r}{hint(name, known)}')


def changes(now: Mapping, stored: Mapping, *, free: Iterable[str] = ()) -> list[str]:
  """Where a table differs from its record, as 'path.of.names: stored -> now'.

  Args:
    now, stored: nested tables of what JSON can hold.
    free: paths and first names of paths that may differ.
  """
  now, stored, free = dict(_leaves(now)), dict(_leaves(stored)), set(free)
  return [
    f'{path}: {stored.get(path, "not there")} -> {now.get(path, "not there")}'
    for path in sorted(now.keys() | stored.keys())
    if not {path, path.split('.')[0]} & free and now.get(path) != stored.get(path)
  ]


def with_defaults(kind: type, stored: Mapping) -> dict[str, Any]:
  """A dataclass's record with what an older release did not have, at its default.

  Args:
    kind: the dataclass; those nested in it are filled too.
    stored: its fields, as JSON gives them.
  """
  hints, result = typing.get_type_hints(kind), dict(stored)
  for field in dataclasses.fields(kind):
    if field.name in result:
      result[field.name] = _filled(hints[field.name], result[field.name])
      continue
    if field.default is not dataclasses.MISSING:
      value = field.default
    elif field.default_factory is not dataclasses.MISSING:
      value = field.default_factory()
    else:
      continue
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    result[field.name] = json.loads(json.dumps(plain))
  return result


def _filled(kind, value):
  if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
    return with_defaults(kind, value)
  if typing.get_origin(kind) is Mapping and isinstance(value, Mapping):
    return {name: _filled(typing.get_args(kind)[1], part) for name, part in value.items()}
  return value


def _leaves(tree: Mapping, prefix: str = '') -> Iterator[tuple[str, str]]:
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', json.dumps(value)


def typed(value, kind, *, where: str):
  """The value as that type, as `build` takes fields.

  Raises:
    InputError: it is of another one.
  """
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
    return typed(value, next(a for a in arguments if a is not types.NoneType), where=where)
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      raise InputError(f'{where} is {value!r}, not a list')
    return tuple(typed(part, arguments[0], where=where) for part in value)
  if origin is Mapping:
    if not isinstance(value, Mapping):
      raise InputError(f'{where} is {value!r}, not a table of fields')
    return {
      name: typed(part, arguments[1], where=f'{where}.{name}') for name, part in value.items()
    }
  if kind is float and type(value) is int:
    return float(value)
  if kind in (int, float, str, bool) and type(value) is not kind:
    raise InputError(f'{where} is {value!r}, not of type {kind.__name__}')
  return value
