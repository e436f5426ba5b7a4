"""VGGFace2: 3.31 M photographs of 9,131 people, as closed-set identification.

    SOURCE/{train,test}/n000001/0001_01.jpg
    SOURCE/identity_meta.csv     optional; also in SOURCE/meta/

The dataset's own folders hold different people (8,631 and 500), for
verification. Here all are classes of one task and a share of each person's
images is held out: how PainFormer's authors split them is not public, this is
reconstructed.
"""

import re
from pathlib import Path

from painformer_jax.core.delimited import read_rows
from painformer_jax.core.errors import InputError, counted
from painformer_jax.data.builders.image_files import (
  Report,
  StoredAs,
  check_fraction,
  find_child,
  list_files,
  list_folders,
  named,
  require_folder,
  unreadable,
)
from painformer_jax.data.builders.people import people_task
from painformer_jax.data.task_source import TaskSource

PEOPLE = 9131
LICENCE = 'VGGFace2: research; no longer published by its authors, photographs found on the web'
_IDENTITY = re.compile(r'n\d+', re.IGNORECASE)
_META_COLUMNS = ('Class_ID', 'Name', 'Sample_Num', 'Flag', 'Gender')


def vggface2_task(
  source: str | Path,
  name: str = 'vggface2',
  *,
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  test_fraction: float = 0.05,
  split_seed: int = 0,
  report: Report = print,
) -> TaskSource:
  """Lists VGGFace2 as one class per identity, named by its folder ('n000001').

  Names of people are not kept: they are not unique. Where `identity_meta.csv`
  is there, the identities it lists are compared with those found.

  Args:
    source: the folder that has train/ and test/, or one of them.
    name: the task's name.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    test_fraction: share of each identity's images held out, one at least.
    split_seed: of the hold-out.
    report: takes a line for each thing that is not as in the release.

  Raises:
    InputError: the folder has another layout, or cannot be read.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  check_fraction(test_fraction)
  source = require_folder(source)
  try:
    by_identity = _list_identities(source, report)
    _check_against_meta(source, by_identity, report)
  except OSError as error:
    raise unreadable(source, error) from error
  return people_task(
    by_identity,
    source=source,
    name=name,
    released=PEOPLE,
    order=str,
    stored=stored,
    test_fraction=test_fraction,
    split_seed=split_seed,
    what='people, from photographs (VGGFace2, loosely cropped faces)',
    licence=LICENCE,
    report=report,
  )


def _list_identities(source: Path, report: Report) -> dict[str, list[str]]:
  """Identity -> keys of its images, of both folders together."""
  by_identity = {}
  strangers, empty = [], []
  parts = [p for p in (find_child(source, 'train'), find_child(source, 'test')) if p]
  if not parts:
    raise InputError(
      f'{source} has neither train/ nor test/; name the folder that holds '
      'train/n000001/... and test/n000001/...'
    )
  for part in parts:
    for folder in list_folders(part):
      if not _IDENTITY.fullmatch(folder):
        strangers.append(f'{part.name}/{folder}')
        continue
      files = list_files(part / folder)
      if files:
        by_identity.setdefault(folder.lower(), []).extend(
          f'{part.name}/{folder}/{file}' for file in files
        )
      else:
        empty.append(f'{part.name}/{folder}')
  if strangers:
    report(
      f'left out: {counted(len(strangers), "folder")} not named as an identity: {named(strangers)}'
    )
  if empty:
    report(f'left out: {counted(len(empty), "identity")} without an image: {named(empty)}')
  if len(by_identity) < 2:
    raise InputError(
      f'{source} has {counted(len(by_identity), "identity")} with images; '
      'expected folders such as train/n000001'
    )
  return by_identity


def _check_against_meta(source: Path, by_identity: dict[str, list[str]], report: Report) -> None:
  """Reports where identities and images differ from identity_meta.csv.

  Nothing else depends on the file, so a malformed one is only reported.
  """
  folders = (source, find_child(source, 'meta'))
  found = [p for f in folders if f and (p := find_child(f, 'identity_meta.csv'))]
  if not found:
    return
  listed = {}
  # Names, which may be of any encoding, are not read.
  try:
    for row in read_rows(
      found[0], required=('Class_ID',), header=_META_COLUMNS, encoding_errors='replace'
    ):
      listed[row.required('Class_ID').lower()] = row.number_of('Sample_Num')
  except InputError as error:
    report(f'folders are not compared with the list: {error}')
    return
  absent = sorted(set(listed) - set(by_identity))
  unknown = sorted(set(by_identity) - set(listed))
  fewer = sorted(
    identity
    for identity, count in listed.items()
    if count is not None and 0 < len(by_identity.get(identity, ())) < count
  )
  for what, names in (
    ('that it lists without a folder', absent),
    ('that it does not list', unknown),
    ('with fewer images than it says', fewer),
  ):
    if names:
      report(f'{found[0].name}: {counted(len(names), "identity")} {what}: {named(names)}')
