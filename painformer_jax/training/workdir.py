"""Opens the folder of a run or an assessment: its configuration is on record there."""

import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

import jax

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import is_partial, write_json
from painformer_jax.parallel.mesh import is_main, wait_for_all

_SECONDS_UNTIL_VISIBLE = 60  # On NFS, what another machine wrote may be visible only later.


class Config(Protocol):
  """A configuration that can be written."""

  def to_json(self) -> str: ...


C = TypeVar('C', bound=Config)


def open_workdir(
  workdir: str | pathlib.Path,
  config: C,
  *,
  changed_fields: Callable[[C, Mapping], list[str]],
  what: str = 'run',
  ignored: Iterable[str] = (),
) -> pathlib.Path:
  """Makes the folder, or checks that it belongs to this configuration.

  Where several processes train together, each calls it alike; one writes.

  Args:
    workdir: of the run.
    config: of the run; it is written to config.json.
    changed_fields: what of it differs from a record, in ways that may not be.
    what: what the folder holds, for messages.
    ignored: names that a folder may hold before it holds a run.

  Raises:
    InputError: the folder holds a run of another configuration, or something
      else, or cannot be written, or processes have folders of their own.
  """
  if '://' in str(workdir):
    raise InputError(
      f'--workdir {workdir} is no folder: name one of a file system that is mounted, which '
      'all machines share'
    )
  workdir = pathlib.Path(workdir)
  record = workdir / 'config.json'
  ignored = {*ignored, 'config.json.tmp'}  # Older releases left the latter if killed.
  try:
    if record.exists():
      stored = read_record(record, remedy='take another --workdir')
      if changed := changed_fields(config, stored):
        article = 'an' if what[0] in 'aeiou' else 'a'
        raise InputError(
          f'{workdir} holds {article} {what} of another configuration '
          f'({"; ".join(changed)}): take another --workdir, or the first configuration'
        )
    elif workdir.exists() and not all(
      is_partial(p) or p.name in ignored for p in workdir.iterdir()
    ):
      raise InputError(f'{workdir} is not empty and holds no {what}: take another --workdir')
    wait_for_all('configuration compared')
    if is_main():
      workdir.mkdir(parents=True, exist_ok=True)
      write_json(record, json.loads(config.to_json()))
    wait_for_all('configuration written')
    if not _becomes_visible(record):
      raise InputError(
        f'{record}, which the first process wrote, is not there for process '
        f'{jax.process_index()}: --workdir must be a folder that all processes share'
      )
  except OSError as error:
    raise InputError(f'{workdir} cannot be used: {error.strerror}') from error
  return workdir


def read_record(path: pathlib.Path, *, remedy: str) -> dict:
  """A JSON object from a file.

  Args:
    path: of the file.
    remedy: what to do where it is damaged, for the message.

  Raises:
    InputError: the file holds something else.
  """
  try:
    stored = json.loads(path.read_text())
  except ValueError:
    stored = None
  if not isinstance(stored, dict):
    raise InputError(f'{path} is damaged: {remedy}')
  return stored


def _becomes_visible(path: pathlib.Path) -> bool:
  end = time.monotonic() + _SECONDS_UNTIL_VISIBLE
  while not path.exists():
    if time.monotonic() > end:
      return False
    time.sleep(0.2)
  return True
