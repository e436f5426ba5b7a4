"""The record of a model that travels in its weights: preset, config, and name of the head.

Shapes do not say how many heads attention has, what size and statistics the images have, or
how the model computes. A .pth file has the record as a second key beside the state dict, a
.safetensors file as JSON in its metadata, and a weights folder in painformer.json.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from painformer_jax.core.errors import printable
from painformer_jax.models.config import PainFormerConfig

# Key of .pth files and of the metadata of .safetensors files.
KEY = 'painformer_config'

_MAX_TEXT = 1 << 16
# Of a model: each takes a tenth of a second to describe, and the largest known have 36.
MOST_BLOCKS = 100


class UnknownFieldsError(ValueError):
  """A config is of a newer version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
  """What a file says about the model whose weights it holds.

  Attributes:
    config: of the model, with its head.
    model: name of the preset that it is, '' for none.
    head: name of the task that the head was trained on; '' for no head, or one without a name.
    initialised: released names of the arrays that have initial values, see `WeightsSource`.
  """

  config: PainFormerConfig
  model: str = ''
  head: str = ''
  initialised: tuple[str, ...] = ()


def to_json(record: ModelRecord) -> dict[str, Any]:
  """The record as plain values: dicts, lists, strings and numbers."""
  fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record)))
  return fields


def from_text(text: str, *, tensors: int) -> ModelRecord | None:
  """Reads what `to_json` gave, as JSON; None of ''.

  Raises:
    ValueError: see `from_json`.
  """
  if len(text) > _MAX_TEXT:
    raise ValueError(f'it has {len(text):,} characters')
  try:
    return from_json(json.loads(text), tensors=tensors) if text else None
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error


def from_json(content: Any, *, tensors: int) -> ModelRecord:
  """Reads what `to_json` gave.

  Args:
    content: plain values, which may be anything.
    tensors: how many the file holds: a model of more blocks is none of its own, and would take
      long to describe.

  Raises:
    ValueError: it is something else, or of a newer version.
  """
  if not isinstance(content, Mapping) or not isinstance(content.get('config'), Mapping):
    raise ValueError('it does not say what the model is')
  names = {key: content.get(key, '') for key in ('model', 'head')}
  for key, name in names.items():
    if not isinstance(name, str):
      raise ValueError(f'{key} is {type(name).__name__}, not a name')
    if not name.isprintable() or len(name) > 100:
      raise ValueError(f'{key} is no name of one short line: {printable(name)}')
  initialised = content.get('initialised', [])
  if not isinstance(initialised, list) or not all(isinstance(name, str) for name in initialised):
    raise ValueError('initialised is no list of names')
  config = config_from_fields(content['config'])
  blocks = config.depth + config.post_blocks
  if blocks > min(max(tensors, 1), MOST_BLOCKS):
    raise ValueError(f'it has {blocks:,} blocks for {tensors:,} tensors')
  return ModelRecord(config=config, initialised=tuple(initialised), **names)


def config_from_fields(fields: Mapping) -> PainFormerConfig:
  """A config from its stored fields; those of older versions lack some, which get defaults.

  Raises:
    UnknownFieldsError: it has a field that this version does not know.
    ValueError: a value cannot be.
  """
  known = {field.name for field in dataclasses.fields(PainFormerConfig)}
  if unknown := sorted(map(str, fields.keys() - known)):
    raise UnknownFieldsError(
      f'its config has fields that this version does not know ({", ".join(unknown)[:200]}): '
      'upgrade painformer_jax'
    )
  try:
    return PainFormerConfig(
      **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    )
  except ValueError as error:
    raise ValueError(str(error)[:300]) from error
  except TypeError as error:  # Of values that cannot be compared or hashed.
    raise ValueError(f'a field has a value of another type ({str(error)[:200]})') from error
