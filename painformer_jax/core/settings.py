"""Configs of modalities from JSON: nested dataclasses, strictly."""

import dataclasses
import json
import os
import typing
from collections.abc import Mapping
from typing import TypeVar

from painformer_jax.core.errors import InputError

T = TypeVar('T')


def read_settings(path: str | os.PathLike, kind: type[T]) -> T:
  """A config from a JSON file whose keys are the config's fields.

  Raises:
    InputError: the file cannot be read or is no JSON object; unknown keys, values
      of another type, or what the config itself refuses.
  """
  try:
    with open(path, encoding='utf-8') as file:
      values = json.load(file)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except ValueError as error:
    raise InputError(f'{path} is not JSON: {error}') from error
  return _build(kind, values, where=str(path))


def _build(kind: type[T], values, *, where: str) -> T:
  if not isinstance(values, Mapping):
    raise InputError(
      f'{where} must be an object of {", ".join(f.name for f in dataclasses.fields(kind))}'
    )
  hints = typing.get_type_hints(kind)
  unknown = [key for key in values if key not in hints]
  if unknown:
    raise InputError(f"{where} has no setting '{unknown[0]}'; there are {', '.join(hints)}")
  return kind(
    **{key: _value(hints[key], value, where=f'{where}, {key}') for key, value in values.items()}
  )


def _value(hint, value, *, where: str):
  if dataclasses.is_dataclass(hint):
    return _build(hint, value, where=where)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is tuple:
    if isinstance(value, list):
      return tuple(_value(arguments[0], item, where=where) for item in value)
  elif origin is typing.Literal:
    if value in arguments:
      return value
  elif isinstance(value, bool):  # which Python takes for a number
    if hint is bool:
      return value
  elif hint is float and isinstance(value, int):
    return float(value)
  elif isinstance(value, hint):
    return value
  raise InputError(f'{where}: {json.dumps(value)} is not a {_name(hint)}')


def _name(hint) -> str:
  if typing.get_origin(hint) is typing.Literal:
    return ' or '.join(map(repr, typing.get_args(hint)))
  if typing.get_origin(hint) is tuple:
    return f'list of {typing.get_args(hint)[0].__name__}'
  return {'str': 'text', 'int': 'whole number', 'float': 'number', 'bool': 'true or false'}.get(
    hint.__name__, hint.__name__
  )
