"""BioVid Heat Pain Database, part A: 87 subjects, 5 levels, 20 clips of each.

  starting_point/samples.csv                                   the list of clips
  biosignals_filtered/<subject_name>/<sample_name>_bio.csv     2816 rows, 512 Hz
  video/<subject_name>/<sample_name>.mp4                       5.5 s, 25 frames/s

Tables are separated by tabs. Which files belong together is read from the list alone,
never from the order of a folder. The layout is the one that public readers of the dataset
expect.
"""

import dataclasses
import functools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from painformer_jax.assessment.datasets import signal_check
from painformer_jax.assessment.datasets.copies import CopyFinder
from painformer_jax.assessment.datasets.copies import findings as copies_of
from painformer_jax.assessment.datasets.recordings import VIDEO, Finding, Locator, Sample, Study
from painformer_jax.core.delimited import TableRow, column_names, read_rows
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log
from painformer_jax.modalities.quality import QualityRules

NAME = 'BioVid Part A'
# Marks a folder of synthetic signals (`planted`), which must not pass for the dataset.
PLANTED = 'planted.json'
SYNTHETIC_NAME = f'{NAME}, synthetic copy'
LEVELS = ('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
SIGNALS = ('gsr', 'ecg', 'emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')
MODALITIES = (*SIGNALS, VIDEO)
LIST_COLUMNS = ('subject_id', 'subject_name', 'class_id', 'class_name', 'sample_id', 'sample_name')
RATE, ROWS, ROWS_TOLERANCE = 512.0, 2816, 56  # 2 % of the rows.
FRAME_RATE = 25.0
SUBJECTS, PER_LEVEL = 87, 20

_LIST = Path('starting_point', 'samples.csv')
_WITHOUT_VIDEOS = '; configs/assess_biovid.py:signals does without videos'
_FOLDERS = {'signals': ('biosignals_filtered', '_bio.csv'), VIDEO: ('video', '.mp4')}
_SUBJECT = re.compile(r'\d{6}_[mw]_\d+')


def open_study(root: str | os.PathLike, *, modalities: Sequence[str] = MODALITIES) -> Study:
  """Lists a BioVid folder by its samples.csv; opens no signal and no video.

  Rows of the list that contradict themselves become findings of the study instead of
  samples.

  Args:
    root: folder with starting_point/, biosignals_filtered/ and video/.
    modalities: the ones that will be used, of `MODALITIES`; files of others need not
      exist.

  Raises:
    InputError: the list is missing, lacks a column or has no usable row; or BioVid does
      not have a modality.
  """
  root = Path(root)
  unknown = [m for m in modalities if m not in MODALITIES]
  if unknown:
    raise InputError(f'BioVid has {", ".join(MODALITIES)}, not {", ".join(unknown)}')
  path = root / _LIST
  if not path.is_file():
    raise InputError(f'{root} is no BioVid folder: there is no {path}')
  header = column_names(path, delimiter='\t')
  spelt = {name.casefold(): name for name in header}
  missing = [name for name in LIST_COLUMNS if name not in spelt]
  if missing:
    raise InputError(
      f'{path} has no column {", ".join(missing)}; its columns must '
      f'be {" ".join(LIST_COLUMNS)}, separated by tabs'
    )
  samples, findings, ids = {}, [], {}
  required = [spelt[name] for name in LIST_COLUMNS]
  for row in read_rows(path, required=required, delimiter='\t', ragged=True):
    row = dataclasses.replace(row, values={k.casefold(): v for k, v in row.values.items()})
    problem = _row_problem(row, columns=len(header))
    if not problem and row['sample_name'] in samples:
      problem = f'{row["sample_name"]} is listed twice'
    if (
      not problem
      and ids.setdefault(row['subject_id'], row['subject_name']) != (row['subject_name'])
    ):
      problem = (
        f'subject_id {row["subject_id"]} is {ids[row["subject_id"]]} above, '
        f'{row["subject_name"]} here'
      )
    if problem:
      where = f'{_LIST}, line {row.number}'
      name = row['sample_name']
      findings.append(Finding(where=where, what=problem, kind='list', samples=(name,)))
    else:
      samples[row['sample_name']] = _sample(root, row, modalities)
  if not samples:
    raise InputError(
      f'{path} lists no usable sample' + (f'; the first finding: {findings[0]}' if findings else '')
    )
  synthetic = (root / PLANTED).is_file()
  return Study(
    name=SYNTHETIC_NAME if synthetic else NAME,
    root=root,
    samples=tuple(samples.values()),
    levels=LEVELS,
    findings=tuple(findings),
    synthetic=synthetic,
  )


def _row_problem(row: TableRow, *, columns: int) -> str:
  """What is wrong with a row of the list, or ''."""
  if row.cells != columns:
    return f'{row.cells} cells, not {columns}'
  level, subject, sample = row['class_name'], row['subject_name'], row['sample_name']
  if level not in LEVELS:
    return f'class_name {level!r} is none of {", ".join(LEVELS)}'
  if row['class_id'] != str(LEVELS.index(level)):
    return f'class_id {row["class_id"]} is not that of {level}, {LEVELS.index(level)}'
  if not _SUBJECT.fullmatch(subject):
    return f'subject_name {subject!r} is not like 071309_w_21'
  if not re.fullmatch(re.escape(f'{subject}-{level}-') + r'\d+', sample):
    return f'sample_name {sample!r} is not like {subject}-{level}-034'
  return ''


def _sample(root: Path, row: TableRow, modalities: Sequence[str]) -> Sample:
  subject, name = row['subject_name'], row['sample_name']

  def place(kind: str) -> Path:
    folder, suffix = _FOLDERS[kind]
    return root / folder / subject / f'{name}{suffix}'

  return Sample(
    subject=subject,
    name=name,
    level=LEVELS.index(row['class_name']),
    data={
      m: Locator(path=place(VIDEO), rate=FRAME_RATE)
      if m == VIDEO
      else _signals_place(place('signals'), (m,))
      for m in modalities
    },
  )


def _signals_place(path: Path, columns: tuple[str, ...]) -> Locator:
  return Locator(
    path=path, columns=columns, rate=RATE, delimiter='\t', rows=ROWS, tolerance=ROWS_TOLERANCE
  )


def check(
  study: Study,
  *,
  whole: bool,
  subjects: int | None = SUBJECTS,
  per_level: int | None = PER_LEVEL,
  rules: Mapping[str, QualityRules] = MappingProxyType({}),
  log: Log = lambda line: None,
) -> list[Finding]:
  """Lists everything missing or odd in a study, before any work starts.

  A folder that is missing is one finding, not one per file.

  Args:
    study: from `open_study`; only its modalities are looked for.
    whole: whether to read every table (1-2 GB in the whole dataset): are its columns and
      rows there, do its times fit the rate, are values missing, flat or clipped, is a
      recording there twice? Otherwise only whether every file is there and not empty.
    subjects: how many subjects there should be; None for any number.
    per_level: how many clips of each level each subject should have; None for any number.
    rules: modality -> what makes a signal unusable; the defaults where there are none.
    log: gets one line per subject.

  Returns:
    Findings, those of samples.csv first, then by subject in its order; none if all is
    well.
  """
  findings = list(study.findings)
  people = study.subjects
  if subjects is not None and len(people) != subjects:
    what = f'{len(people)} subjects, not {subjects}'
    findings.append(Finding(where=str(_LIST), what=what, kind='count'))
  by_subject = defaultdict(list)
  for sample in study.samples:
    by_subject[sample.subject].append(sample)
  if per_level is not None:
    findings += _count_findings(by_subject, per_level)
  absent, copies, amplitudes = set(), CopyFinder(), signal_check.Amplitudes()
  refused = {name for finding in study.findings for name in finding.samples}
  for kind in ('signals', VIDEO):
    wanted = [s for s in study.samples if _modality(s, kind)]
    folder = study.root / _FOLDERS[kind][0]
    if wanted and not folder.is_dir():
      absent.add(kind)
      findings.append(
        Finding(
          where=str(folder),
          what=f'no such folder; {len(wanted):,} files should be in it'
          + (_WITHOUT_VIDEOS if kind == VIDEO else ''),
          kind='missing',
        )
      )
  for number, person in enumerate(people, 1):
    log(f'{number} of {len(people)}  {person}')
    for kind in ('signals', VIDEO):
      if kind not in absent:
        tables = functools.partial(
          signal_check.table_findings, rules=rules, copies=copies, amplitudes=amplitudes
        )
        findings += _file_findings(
          study.root, by_subject[person], kind, tables if whole else None, refused=refused
        )
  for kind in ('signals', VIDEO):
    if any(_modality(s, kind) for s in study.samples) and kind not in absent:
      findings += _stray_people(study.root, kind, {*people, *(n.split('-')[0] for n in refused)})
  findings += amplitudes.findings()
  return [*findings, *copies_of(copies.copies(), study.samples, beside=findings)]


def _count_findings(by_subject: dict[str, list[Sample]], per_level: int) -> Iterator[Finding]:
  """Subjects without the expected number of clips of each level."""
  for person, samples in by_subject.items():
    counts = Counter(s.level for s in samples)
    odd = [f'{counts[i]} {name}' for i, name in enumerate(LEVELS) if counts[i] != per_level]
    if odd:
      yield Finding(
        where=person,
        what=(
          f'{len(samples)} samples, not {per_level * len(LEVELS)}: {", ".join(odd)} '
          f'instead of {per_level} each'
        ),
        kind='count',
      )


def _modality(sample: Sample, kind: str) -> str | None:
  """A modality of the sample that is stored in that kind of file."""
  return next((m for m in sample.data if (m == VIDEO) == (kind == VIDEO)), None)


def _file_findings(
  root: Path,
  samples: list[Sample],
  kind: str,
  tables: Callable[[Sample, Locator], Iterator[Finding]] | None,
  *,
  refused: Collection[str],
) -> Iterator[Finding]:
  """What is wrong with one subject's files of one kind; `tables` looks into them.

  The list names those of `refused`, too, but contradicts itself there.
  """
  places = {s.data[m].path.name: s for s in samples if (m := _modality(s, kind))}
  if not places:
    return
  folder = root / _FOLDERS[kind][0] / samples[0].subject
  if not folder.is_dir():
    what = f'no such folder; {len(places)} files should be in it'
    yield Finding(where=str(folder), what=what, kind='missing')
    return
  present = {entry.name for entry in os.scandir(folder) if not entry.name.startswith('.')}
  spelt = {name.casefold(): name for name in present}
  for name, sample in places.items():
    if name not in present:
      what = 'no such file'
      if name.casefold() in spelt:
        what = f'no such file, but {spelt[name.casefold()]}: rename it'
      yield Finding(where=str(folder / name), what=what, kind='missing')
    elif not (folder / name).is_file():
      what = 'a link to nothing' if (folder / name).is_symlink() else 'no file'
      yield Finding(where=str(folder / name), what=what, kind='missing')
    elif not (folder / name).stat().st_size:
      yield Finding(where=str(folder / name), what='the file is empty', kind='missing')
    elif kind == 'signals' and tables:
      columns = tuple(m for m, place in sample.data.items() if place.columns)
      for finding in tables(sample, _signals_place(folder / name, columns)):
        yield dataclasses.replace(finding, samples=(sample.name,))
  suffix = _FOLDERS[kind][1]
  # Faulty rows of samples.csv have no sample; they are reported when the list is read.
  known = {name.casefold() for name in (*places, *(f'{name}{suffix}' for name in refused))}
  for name in sorted(n for n in present if n.lower().endswith(suffix)):
    if name.casefold() in known:
      continue
    yield Finding(where=str(folder / name), what='not in the list of samples', kind='stray')


def _stray_people(root: Path, kind: str, people: Collection[str]) -> Iterator[Finding]:
  """Folders of people whom the list does not name."""
  parent, suffix = root / _FOLDERS[kind][0], _FOLDERS[kind][1]
  for folder in sorted(p for p in parent.iterdir() if p.is_dir() and p.name not in people):
    count = sum(1 for name in os.listdir(folder) if name.lower().endswith(suffix))
    if count and not folder.name.startswith('.'):
      what = f'{count} file{"" if count == 1 else "s"} of nobody in the list of samples'
      yield Finding(where=str(folder), what=what, kind='stray')
