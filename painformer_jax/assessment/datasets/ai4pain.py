"""The AI4Pain challenges: what their editions (2024, 2025, 2026) have in common.

Splits are the organisers', one folder each. Test labels may be withheld: such samples have
no level. The case of folder and column names varies and is ignored.
"""

import os
from pathlib import Path

from painformer_jax.assessment.datasets.recordings import Finding, Sample, Study
from painformer_jax.core.errors import InputError

SPLITS = ('train', 'validation', 'test')
# Subjects of each split in every edition, as its organisers say. The test split is
# published later than the others, or never.
SUBJECTS = {'train': 41, 'validation': 12, 'test': 12}
RATE = 100.0
SIGNALS = ('bvp', 'eda', 'resp', 'spo2')
FNIRS = 'fnirs'
# Oxygen saturation in percent that may stay constant without being a fault; a value of
# this project.
SATURATION = (50.0, 100.0)

# Edition -> names of its levels.
_LEVELS = {
  2024: ('no pain', 'low pain', 'high pain'),
  2025: ('no pain', 'low pain', 'high pain'),
  2026: ('no pain', 'arm', 'hand'),
}


def expected_subjects(root: str | os.PathLike, *, protocol: str) -> dict[str, int]:
  """The number of subjects that each split should have.

  Args:
    root: folder of any edition.
    protocol: a name in `protocols.PROTOCOLS`; 'test' needs the test split.

  Returns:
    `SUBJECTS`, without 'test' where that split is neither there nor needed.

  Raises:
    InputError: `root` is no AI4Pain folder.
  """
  there = split_folders(Path(root))
  return {split: count for split, count in SUBJECTS.items() if split in there or split == protocol}


def make_study(
  edition: int, root: Path, *, samples: list[Sample], findings: list[Finding]
) -> Study:
  """The study of an edition.

  Raises:
    InputError: no sample has a label.
  """
  if not any(s.level is not None for s in samples):
    raise InputError(
      f'{root} has no labelled sample of AI4Pain {edition}'
      + (f'; the first finding: {findings[0]}' if findings else '')
    )
  return Study(
    name=f'AI4Pain {edition}',
    root=root,
    samples=tuple(samples),
    levels=_LEVELS[edition],
    findings=tuple(findings),
  )


def split_folders(root: Path) -> dict[str, Path]:
  """Split -> its folder; 'test' may be missing.

  Raises:
    InputError: `root` is no AI4Pain folder.
  """
  if not root.is_dir():
    raise InputError(f'there is no folder {root}')
  found = {split: folder for split in SPLITS if (folder := child_folder(root, split))}
  missing = [split for split in ('train', 'validation') if split not in found]
  if missing:
    raise InputError(f'{root} is no AI4Pain folder: there is no {missing[0]}/ in it')
  return found


def subfolders(folder: Path) -> list[Path]:
  """The folders in a folder, sorted."""
  return sorted(p for p in folder.iterdir() if p.is_dir())


def child_folder(folder: Path, name: str) -> Path | None:
  """The folder of that lower-case name in `folder`, in whatever case; None if missing."""
  return next((p for p in subfolders(folder) if p.name.lower() == name), None)
