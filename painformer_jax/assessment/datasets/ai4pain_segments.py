"""AI4Pain 2025 and 2026: finger and chest signals at 100 Hz, cut into segments.

  {train,validation,test}/{Bvp,Eda,Resp,SpO2}/<id>.csv

A table has one column per segment, shorter ones padded with NaN:
<id>_{Baseline,LOW,HIGH,REST}_<k> in 2025, <id>_{Baseline,ARM,HAND}_<k> in 2026. Test segments
without labels are <id>_<k> or <k>. That baseline and rest are "no pain" is reconstructed.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from painformer_jax.assessment.datasets.ai4pain import (
  RATE,
  SIGNALS,
  child_folder,
  make_study,
  split_folders,
)
from painformer_jax.assessment.datasets.recordings import Finding, Locator, Sample, Study
from painformer_jax.core.delimited import column_names
from painformer_jax.core.errors import InputError

# Edition -> condition -> level.
LEVEL_OF = {
  2025: {'baseline': 0, 'rest': 0, 'low': 1, 'high': 2},
  2026: {'baseline': 0, 'arm': 1, 'hand': 2},
}
# Edition -> condition -> segments of each subject; unknown for 2025's baseline and rest.
SEGMENTS = {2025: {'low': 12, 'high': 12}, 2026: {'baseline': 12, 'arm': 12, 'hand': 12}}

# Share of the seconds that are used by which a segment may be shorter: those of one condition
# differ. A value of this project, as `QualityRules.max_missing`.
_SHORTER = 0.25

# (subject, segment) -> modality -> where the segment is.
_Segments = Mapping[tuple[str, str], Mapping[str, Locator]]


def open_study(
  root: str | os.PathLike,
  edition: int,
  *,
  modalities: Sequence[str] = SIGNALS,
  max_seconds: float | None = 10.0,
) -> Study:
  """Lists the segments, one sample each; of the tables only column names are read.

  Args:
    root: folder with train/, validation/ and perhaps test/.
    edition: 2025 (no, low, high pain) or 2026 (no pain, arm, hand).
    modalities: of `SIGNALS`.
    max_seconds: how much of a segment is used, from its start. Baselines last about a
      minute, so that their length would give the level away. None for all of it.

  Raises:
    InputError: `root` is no AI4Pain folder, a modality is unknown, a table cannot be read,
      or no segment has a label.
  """
  unknown = [m for m in modalities if m not in SIGNALS]
  if unknown or not modalities:
    raise InputError(
      f'AI4Pain {edition} has {", ".join(SIGNALS)}, not {", ".join(unknown) or "nothing"}'
    )
  root = Path(root)
  stop = None if max_seconds is None else round(max_seconds * RATE)
  samples, findings = [], []
  for split, folder in split_folders(root).items():
    # A folder that is missing is one finding here, and is not looked for in any segment.
    paths = {m: tables for m in modalities if (tables := _tables(folder, m, findings)) is not None}
    segments = _segments(paths, stop, findings, split=split)
    levels = _levels(segments, split, LEVEL_OF[edition], findings)
    for (subject, segment), level in levels.items():
      samples.append(
        Sample(
          subject=subject,
          name=f'{split}/{subject}_{segment}',
          level=level,
          data=segments[subject, segment],
          split=split,
          folder=folder.name,
        )
      )
    _find_missing(split, paths, {key: segments[key] for key in levels}, findings)
  return make_study(edition, root, samples=samples, findings=findings)


def _tables(folder: Path, modality: str, findings: list[Finding]) -> list[Path] | None:
  """A split's tables of a modality, one per subject; None without a folder of them."""
  tables = child_folder(folder, modality)
  if tables is None:
    findings.append(Finding(where=str(folder), what=f'no folder {modality}', kind='missing'))
    return None
  return sorted(p for p in tables.iterdir() if p.suffix.lower() == '.csv')


def _segments(
  paths: Mapping[str, Sequence[Path]], stop: int | None, findings: list[Finding], *, split: str
) -> _Segments:
  """The segments that the tables' columns are named after."""
  segments = defaultdict(dict)
  for modality, tables in paths.items():
    for path in tables:
      columns = _column_names(path)
      if not columns:
        findings.append(Finding(where=str(path), what='names no column', kind='missing'))
      for column in columns:
        segment = column.lower().removeprefix(f'{path.stem.lower()}_')
        # Where labels are withheld, segments are only numbered.
        if segment == column.lower() and not (split == 'test' and column.isdecimal()):
          findings.append(
            Finding(where=str(path), what=f'column {column!r} does not begin with {path.stem}_')
          )
          continue
        places = segments[path.stem, segment]
        if modality in places:
          findings.append(Finding(where=str(path), what=f'two columns {column!r}'))
        places[modality] = Locator(
          path=path,
          columns=(column,),
          rate=RATE,
          stop=stop,
          rows=stop or 0,
          tolerance=round(_SHORTER * (stop or 0)),
          padded=True,
        )
  return segments


def _levels(
  segments: _Segments, split: str, level_of: Mapping[str, int], findings: list[Finding]
) -> dict[tuple[str, str], int | None]:
  """(subject, segment) -> level; None where the label of a test segment is withheld."""
  levels = {}
  for subject, segment in segments:
    condition = segment.rpartition('_')[0]
    if condition in level_of or split == 'test':
      levels[subject, segment] = level_of.get(condition)
    else:
      findings.append(
        Finding(
          where=f'{split}, {subject}', what=f'segment {segment!r} is none of {", ".join(level_of)}'
        )
      )
  return levels


def _find_missing(
  split: str, paths: Mapping[str, Sequence[Path]], segments: _Segments, findings: list[Finding]
) -> None:
  """Adds the modalities that segments lack; a table that is missing is one finding."""
  missing = defaultdict(list)
  for (subject, segment), data in segments.items():
    for modality in paths.keys() - data.keys():
      missing[subject, modality].append(segment)
  for (subject, modality), names in sorted(missing.items()):
    has_table = any(path.stem == subject for path in paths[modality])
    findings.append(
      Finding(
        where=f'{split}, {subject}',
        what=f'{modality} lacks {", ".join(names)}' if has_table else f'no table of {modality}',
        kind='missing',
      )
    )


def _column_names(path: Path) -> tuple[str, ...]:
  """Names of a table's columns; an index without a name is left out."""
  names = [name for name in column_names(path, delimiter=',') if name]
  for other in ';\t':
    if len(names) == 1 and other in names[0]:
      names = [name for name in column_names(path, delimiter=other) if name]
  return tuple(names)
