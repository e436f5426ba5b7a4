"""What a checkpoint holds beside the state: a JSON record, and a checksum of everything."""

import json
import pathlib
import zlib
from collections.abc import Mapping

import orbax.checkpoint as ocp
from etils import epath

# Folders within the folder of a checkpoint.
STATE, RECORD = 'state', 'record'


class DamagedError(Exception):
  """A checkpoint cannot be read, by this process or another; says why in one line."""


def seal(record: dict, sums: Mapping[str, int]) -> dict:
  """The content of the record's file.

  Args:
    record: of plain JSON values.
    sums: from `checksums.checksums` of the state.
  """
  content = json.dumps([record, sums])
  return {'content': content, 'checksum': zlib.crc32(content.encode())}


def read(folder: pathlib.Path, step: int) -> tuple[dict, dict[str, int]]:
  """The record of a checkpoint, and the checksums of its state.

  Args:
    folder: of all checkpoints of a run.
    step: of the checkpoint.

  Raises:
    Exception: of many kinds, where the record is missing or damaged.
  """
  sealed = read_json(folder, step)
  if zlib.crc32(sealed['content'].encode()) != sealed['checksum']:
    raise ValueError(f'the checksum of the {RECORD} does not match')
  record, sums = json.loads(sealed['content'])
  return record, sums


def read_json(folder: pathlib.Path, step: int) -> dict:
  path = epath.Path(folder.absolute() / str(step) / RECORD)
  return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore())


def compare(found: Mapping[str, int], stored: Mapping[str, int]) -> None:
  """Asserts that the checksums of what was read are those that were stored.

  Raises:
    ValueError: one differs, or was not stored.
  """
  if unknown := sorted(found.keys() - stored.keys()):
    raise ValueError(f'it keeps no checksum of {unknown[0]}')
  for path in found:
    if found[path] != stored[path]:
      raise ValueError(f'the checksum of {path} does not match')
