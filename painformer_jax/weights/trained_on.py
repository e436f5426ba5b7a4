"""The record of whose recordings weights were fine-tuned on, which goes wherever they go."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Key in the metadata of files; member of .pth archives; file beside weights of older releases.
KEY, MEMBER = 'trained_on', 'trained_on.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedOn:
  """One fine-tuning.

  Attributes:
    study: its name, such as 'BioVid Part A'.
    subjects: whom the weights were trained on.
    start: name of the weights that it started from.
    start_sha256: of their arrays, in hexadecimal; '' where it is not known.
  """

  study: str
  subjects: tuple[str, ...]
  start: str = ''
  start_sha256: str = ''


def to_text(records: Sequence[TrainedOn]) -> str:
  """The records as JSON; '' for none."""
  return json.dumps([dataclasses.asdict(record) for record in records]) if records else ''


def from_text(text: str | bytes) -> tuple[TrainedOn, ...]:
  """Reads what `to_text` wrote; none of ''.

  Raises:
    ValueError: it is something else.
  """
  return from_json(json.loads(text)) if text else ()


def from_json(content: Any) -> tuple[TrainedOn, ...]:
  """The records in a list of JSON objects, or in the single one of an older release.

  Raises:
    ValueError: it holds something else.
  """
  try:
    entries = [content] if isinstance(content, Mapping) else list(content)
    return tuple(
      TrainedOn(
        study=str(entry['study']),
        subjects=tuple(map(str, entry['subjects'])),
        start=str(entry.get('start', entry.get('from', ''))),
        start_sha256=str(entry.get('start_sha256', entry.get('from_sha256', ''))),
      )
      for entry in entries
    )
  except (TypeError, KeyError, AttributeError) as error:
    raise ValueError(f'it does not say whom the weights were trained on: {error}') from error
