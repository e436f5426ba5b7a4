"""Tables of a config file as dataclasses, strictly: a typo is one clear line.

A dataclass whose fields or values were renamed says so in an attribute `RENAMED`; config
files, overrides and stored records may then use the old names.
"""

import copy
import dataclasses
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Literal, TypeVar

from painformer_jax.core.errors import InputError, did_you_mean
from painformer_jax.core.progress import log

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renamed:
  """What a dataclass's fields and values were called in older releases.

  Attributes:
    fields: old name -> name now.
    values: name of the field now -> {old value: value now}. In a text of several words
      joined by hyphens each word is replaced.
    tables: name of a field that is a plain table -> the dataclass that names its keys.
  """

  fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
  values: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
  tables: Mapping[str, type] = dataclasses.field(default_factory=dict)


# Old names that a line was printed about: one line a process is enough.
_WARNED: set[tuple[type, str]] = set()


def use_new_names(kind: type, table: MutableMapping, *, where: str, warn: bool = True) -> None:
  """Replaces old names of fields and values in a table and in those nested in it.

  Args:
    kind: the dataclass whose fields the table holds.
    table: changed in place; a dict or a ConfigDict.
    where: what messages call it, such as 'config'.
    warn: print a line on stderr about each old name, once a process.

  Raises:
    InputError: a field is given under its old and its new name, with different values.
      A value equal to the field's default counts as not given, since config files start
      from a table of defaults.
  """
  names = getattr(kind, 'RENAMED', Renamed())
  for old, new in names.fields.items():
    if old not in table:
      continue
    if new in table and _plain(table[new]) not in (_plain(table[old]), _default(kind, new)):
      raise InputError(
        f'{where}.{old} is {table[old]!r} and {where}.{new} is {table[new]!r}: {old} is the '
        f'old name of {new}, so give only {new}'
      )
    table[new] = table[old]
    del table[old]
    if warn:
      _warn(kind, old, f'{where}.{old} is now called {where}.{new}')
  for name, values in names.values.items():
    value = table[name] if name in table else None
    if not isinstance(value, str):
      continue
    now = values.get(value) or '-'.join(values.get(word, word) for word in value.split('-'))
    if now != value:
      table[name] = now
      if warn:
        _warn(kind, f'{name}={value}', f'{where}.{name}: {value!r} is now called {now!r}')
  for name, nested in names.tables.items():
    if hasattr(table[name] if name in table else None, 'keys'):
      use_new_names(nested, table[name], where=f'{where}.{name}', warn=warn)
  for name, hint in typing.get_type_hints(kind).items():
    nested, value = _dataclass_of(hint), table[name] if name in table else None
    if nested is None or not hasattr(value, 'keys'):
      continue
    if typing.get_origin(hint) is not Mapping:
      use_new_names(nested, value, where=f'{where}.{name}', warn=warn)
      continue
    for key in value:
      if hasattr(value[key], 'keys'):
        use_new_names(nested, value[key], where=f'{where}.{name}.{key}', warn=warn)


def new_path(kind: type, path: str, *, where: str) -> str:
  """The path of a field, such as 'tasks.pain.batch_size', with old names replaced.

  Args:
    kind: the dataclass at the root.
    path: names with dots between; an index such as '[0]' may follow a name.
    where: what the warning calls the root, such as 'config'.
  """
  result = []
  for part in path.split('.'):
    if not dataclasses.is_dataclass(kind):  # The key of a table in a table of tables.
      kind = _dataclass_of(kind)
      result.append(part)
      continue
    name, bracket, index = part.partition('[')
    names = getattr(kind, 'RENAMED', Renamed())
    new = names.fields.get(name, name)
    if new != name:
      table = '.'.join([where, *result])
      _warn(kind, name, f'{table}.{name} is now called {table}.{new}')
    result.append(new + bracket + index)
    hint = typing.get_type_hints(kind).get(new)
    kind = hint if typing.get_origin(hint) is Mapping else _dataclass_of(hint)
    kind = names.tables.get(new, kind)
  return '.'.join(result)


def _warn(kind: type, name: str, line: str) -> None:
  if (kind, name) not in _WARNED:
    _WARNED.add((kind, name))
    log(line)


def _plain(value: object) -> object:
  """The value, a ConfigDict as a dict: a ConfigDict is never equal to a dict."""
  return value.to_dict() if hasattr(value, 'to_dict') else value


def _default(kind: type, name: str) -> object:
  """The default of a dataclass's field; MISSING where it has none."""
  field = next(f for f in dataclasses.fields(kind) if f.name == name)
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default


def _dataclass_of(hint) -> type | None:
  """The dataclass in a field's type: itself, of a Mapping's values, or beside None."""
  if isinstance(hint, type) and dataclasses.is_dataclass(hint):
    return hint
  if typing.get_origin(hint) in (Mapping, typing.Union, types.UnionType):
    return next(filter(None, map(_dataclass_of, typing.get_args(hint))), None)
  return None


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
  values = copy.deepcopy(dict(values))
  use_new_names(kind, values, where=where)
  hints = typing.get_type_hints(kind)
  fields = {f.name: f for f in dataclasses.fields(kind)}
  check_known(values, fields, where=where)
  for name in fields:
    if name not in values and _default(kind, name) is dataclasses.MISSING:
      raise InputError(f'{where}.{name} is missing')
  fitting = {
    name: typed(value, hints[name], where=f'{where}.{name}') for name, value in values.items()
  }
  try:
    return kind(**fitting)
  except (InputError, ValueError) as error:
    raise InputError(f'{where}: {error}') from error


def read_settings(
  kind: type[T],
  path: str | os.PathLike | None = None,
  *,
  defaults: Mapping[str, Any] = types.MappingProxyType({}),
  **options,
) -> T:
  """A dataclass from a JSON file, as `build` makes it, and from options.

  Args:
    kind: the dataclass.
    path: of the file; None for defaults alone.
    defaults: fields -> values in place of the dataclass's own defaults.
    **options: fields that replace those of the file, where they are not None.

  Raises:
    InputError: the file cannot be read or is not JSON; what `build` or the dataclass refuses.
  """
  values = {}
  try:
    if path is not None:
      with open(path, encoding='utf-8') as file:
        values = json.load(file)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except ValueError as error:
    raise InputError(f'{path} is not JSON: {error}') from error
  if isinstance(values, Mapping):
    values = {**defaults, **values}
  settings = build(kind, values, where=f'{path}: settings')
  given = {name: value for name, value in options.items() if value is not None}
  return dataclasses.replace(settings, **given)


def hint(name: object, known: Iterable[str]) -> str:
  """What an unknown name may have been meant to be, and what there is."""
  known = list(known)
  return f'{did_you_mean(name, known)} (known: {", ".join(known)})'


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
  """A dataclass's stored record as this release would write it.

  Old names of fields and values are replaced, without a warning, since nobody need act on
  them; fields that an older release did not have are at their defaults.

  Args:
    kind: the dataclass; those nested in it are treated alike.
    stored: its fields, as JSON gives them.
  """
  result = copy.deepcopy(dict(stored))
  use_new_names(kind, result, where='record', warn=False)
  return _filled(kind, result)


def _filled(kind, value):
  """The value with the default of each field that is not there, in nested tables too."""
  if not isinstance(value, Mapping):
    return value
  if typing.get_origin(kind) is Mapping:
    return {name: _filled(typing.get_args(kind)[1], part) for name, part in value.items()}
  if not dataclasses.is_dataclass(kind):
    return value
  hints, result = typing.get_type_hints(kind), dict(value)
  for field in dataclasses.fields(kind):
    default = _default(kind, field.name)
    if field.name in result:
      result[field.name] = _filled(hints[field.name], result[field.name])
    elif default is not dataclasses.MISSING:
      plain = dataclasses.asdict(default) if dataclasses.is_dataclass(default) else default
      result[field.name] = json.loads(json.dumps(plain))
  return result


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
