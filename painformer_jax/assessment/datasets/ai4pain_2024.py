"""AI4Pain 2024: videos and fNIRS.

  {Train,Validation,Test}/video/<subject>/*.mp4

The names of clips and the fNIRS files are not documented publicly. So the level of a clip
comes from a table of labels or from words in its name, and `FnirsTables` says where the
fNIRS is. That baseline and rest are "no pain" is reconstructed.
"""

import dataclasses
import os
import re
from pathlib import Path

from painformer_jax.assessment.datasets.ai4pain import (
  FNIRS,
  child_folder,
  make_study,
  split_folders,
  subfolders,
)
from painformer_jax.assessment.datasets.recordings import VIDEO, Finding, Locator, Sample, Study
from painformer_jax.core.delimited import read_rows
from painformer_jax.core.errors import InputError

# Lower-case word of a clip's name -> level; names are split at everything but letters.
WORDS = {'no': 0, 'nopain': 0, 'baseline': 0, 'rest': 0, 'low': 1, 'high': 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FnirsTables:
  """Where the fNIRS tables of AI4Pain 2024 are, one per clip; there are none without a path.

  Attributes:
    path: below the dataset's folder, with {split} (the name of its folder), {subject} and
      {sample} (the clip's name without .mp4).
    columns: of the channels, in the order in which they are used.
    rate: sampling rate in Hz.
    delimiter: between the cells of a table.

  Raises:
    InputError: there is a path but no columns or rate, or it holds other names in braces.
  """

  path: str = ''
  columns: tuple[str, ...] = ()
  rate: float = 0.0
  delimiter: str = ','

  def __post_init__(self):
    if self.path and not (self.columns and self.rate > 0):
      raise InputError(
        'fNIRS tables need the names of their columns and a positive '
        f'sampling rate, not {self.columns} and {self.rate}'
      )
    try:
      self.path.format(split='', subject='', sample='')
    except (KeyError, IndexError, ValueError) as error:
      raise InputError(
        f'the fNIRS path {self.path!r} may hold {{split}}, {{subject}} and {{sample}} only'
      ) from error


def open_study(
  root: str | os.PathLike,
  *,
  fnirs: FnirsTables = FnirsTables(),
  labels: str | os.PathLike | None = None,
) -> Study:
  """Lists the 2024 challenge: one sample per clip.

  Args:
    root: folder with Train/, Validation/ and perhaps Test/.
    fnirs: where the fNIRS table of each clip is.
    labels: a CSV with columns subject, sample, level (0, 1, 2); None to find the level in
      the clip's name, by `WORDS`.

  Raises:
    InputError: `root` is no AI4Pain folder, or no clip has a label.
  """
  root = Path(root)
  table = _read_labels(labels) if labels else None
  samples, findings = [], []
  for split, folder in split_folders(root).items():
    videos = child_folder(folder, 'video')
    if videos is None:
      raise InputError(f'there is no folder {folder / "video"}')
    for person in subfolders(videos):
      for path in sorted(p for p in person.iterdir() if p.suffix.lower() == '.mp4'):
        if table is not None:
          level = table.get((person.name, path.stem))
        else:
          level = _level_by_words(path.stem)
        if level is None and split != 'test':
          findings.append(
            Finding(
              where=str(path),
              what='it is not in the table of labels'
              if table is not None
              else 'its name does not contain its level; give a table of labels',
              kind='list',
            )
          )
          continue
        data = {VIDEO: Locator(path=path)}
        if fnirs.path:
          data[FNIRS] = Locator(
            path=root / fnirs.path.format(split=folder.name, subject=person.name, sample=path.stem),
            columns=fnirs.columns,
            rate=fnirs.rate,
            delimiter=fnirs.delimiter,
          )
        samples.append(
          Sample(
            subject=person.name,
            name=f'{split}/{person.name}/{path.stem}',
            level=level,
            data=data,
            split=split,
            folder=folder.name,
          )
        )
  return make_study(2024, root, samples=samples, findings=findings)


def _level_by_words(name: str) -> int | None:
  """The level of the only word of `WORDS` in a clip's name, else None."""
  found = {WORDS[w] for w in re.split('[^a-z]+', name.lower()) if w in WORDS}
  return found.pop() if len(found) == 1 else None


def _read_labels(path: str | os.PathLike) -> dict[tuple[str, str], int]:
  """(subject, name of the clip) -> level."""
  labels = {}
  for row in read_rows(path, required=('subject', 'sample', 'level')):
    if row['level'] not in ('0', '1', '2'):
      raise InputError(f'{row.where}: the level must be 0, 1 or 2')
    labels[row['subject'], row['sample']] = int(row['level'])
  return labels
