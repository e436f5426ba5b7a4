"""DigiFace-1M: 1.22 M rendered faces of 110,000 people who do not exist.

    SOURCE/<identity>/0.png                              or, as the archives unpack,
    SOURCE/subjects_0-1999_72_imgs/<identity>/0.png

Identities have 72 images (0 to 9999) or 5 (100000 and above). The release
has no split; a share of each identity's images is held out (reconstructed).
"""

import os
from pathlib import Path

from painformer_jax.core.errors import InputError, counted
from painformer_jax.data.builders.image_files import (
  Report,
  StoredAs,
  check_fraction,
  list_files,
  named,
  require_folder,
  unreadable,
)
from painformer_jax.data.builders.people import in_number_order, people_task
from painformer_jax.data.task_source import TaskSource

# What the names of the eight archives add up to.
PEOPLE = 109_999
LICENCE = 'DigiFace-1M: non-commercial research (Microsoft)'


def digiface_task(
  source: str | Path,
  name: str = 'digiface',
  *,
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  test_fraction: float = 0.05,
  split_seed: int = 0,
  report: Report = print,
) -> TaskSource:
  """Lists DigiFace-1M as one class per identity, named by its folder.

  An identity is a folder that holds images, at any depth below the source.

  Args:
    source: the folder that the archives were unpacked in.
    name: the task's name.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    test_fraction: share of each identity's images held out, one at least.
    split_seed: of the hold-out.
    report: takes a line for each thing that is not as in the release.

  Raises:
    InputError: the folder has another layout, cannot be read, or has two folders of
      the same identity.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  check_fraction(test_fraction)
  source = require_folder(source)
  try:
    keys = list_files(source)
  except OSError as error:
    raise unreadable(source, error) from error
  by_identity = _group(source, keys, report)
  return people_task(
    by_identity,
    source=source,
    name=name,
    released=PEOPLE,
    order=in_number_order,
    stored=stored,
    test_fraction=test_fraction,
    split_seed=split_seed,
    what='rendered people (DigiFace-1M)',
    remarks='; their accessories are on both sides',
    licence=LICENCE,
    report=report,
  )


def _group(source: Path, keys: list[str], report: Report) -> dict[str, list[str]]:
  """Identity -> keys of its images."""
  by_identity, folders, loose = {}, {}, []
  for key in keys:
    folder = os.path.dirname(key)
    if not folder:
      loose.append(key)
      continue
    identity = os.path.basename(folder)
    if folders.setdefault(identity, folder) != folder:
      raise InputError(
        f"{source}: identity '{identity}' is in two folders, "
        f'{folders[identity]} and {folder}; an identity of the release is in '
        'one, so a part was unpacked twice or renamed: remove one'
      )
    by_identity.setdefault(identity, []).append(key)
  if loose:
    report(f'left out: {counted(len(loose), "image")} outside a folder: {named(loose)}')
  if len(by_identity) < 2:
    raise InputError(
      f'{source} has {len(by_identity)} folders with images; expected one for '
      'each identity, such as 0/0.png'
    )
  return by_identity
