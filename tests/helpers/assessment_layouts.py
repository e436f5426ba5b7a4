"""Miniature dataset folders, in the layouts of the real ones, quirks included."""

from pathlib import Path

import numpy as np
import pyarrow.csv

from painformer_jax.assessment.datasets.recordings import load_channels

# Arrow writes millions of cells in a second.
_PLAIN = pyarrow.csv.WriteOptions(include_header=False)
LEVELS = ('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
BIOVID_SIGNALS = ('gsr', 'ecg', 'emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')
BIOVID_LIST = ('subject_id', 'subject_name', 'class_id', 'class_name', 'sample_id', 'sample_name')
# In this order a sorted listing would not pair with the list of samples.
PEOPLE = ('120614_w_61', '071309_w_21')


def load_signal(sample, modality):
  """A modality of one channel: float64 [n], and its rate in Hz."""
  (values,), rate = load_channels(sample, modality)
  return values, rate


def write_table(path: Path, columns, rows, *, delimiter: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(delimiter.join(map(str, row)) for row in (columns, *rows)) + '\n')


def biovid_rows(people=PEOPLE, *, per_level: int = 1) -> list[list[str]]:
  """Rows of samples.csv, the highest level first."""
  rows = []
  for subject_id, person in enumerate(people, 1):
    for level in (4, 0, 2, 1, 3):
      for number in range(per_level):
        rows.append(
          [
            str(subject_id),
            person,
            str(level),
            LEVELS[level],
            str(len(rows) + 1),
            f'{person}-{LEVELS[level]}-{number + 30:03d}',
          ]
        )
  return rows


def biovid_signal(name: str, column: str, *, length: int = 2816) -> np.ndarray:
  """Different for every sample and column."""
  rng = np.random.default_rng([*name.encode(), *column.encode()])
  return rng.normal(rng.normal(), 1, length).round(4)


def write_list(root: Path, rows) -> None:
  write_table(root / 'starting_point' / 'samples.csv', BIOVID_LIST, rows, delimiter='\t')


def biovid_table_path(root: Path, row) -> Path:
  return root / 'biosignals_filtered' / row[1] / f'{row[5]}_bio.csv'


def biovid_video_path(root: Path, row) -> Path:
  return root / 'video' / row[1] / f'{row[5]}.mp4'


def write_biovid_table(
  path: Path, name: str, *, length: int = 2816, columns=BIOVID_SIGNALS, replace=None, times=None
) -> None:
  """One sample's signals; `replace` maps columns to other values, `times` are in any unit."""
  times = np.arange(length) * 1953 if times is None else times
  values = {c: biovid_signal(name, c, length=length) for c in columns} | (replace or {})
  write_table(
    path,
    ('time', *columns),
    zip(times.tolist(), *(values[c].tolist() for c in columns)),
    delimiter='\t',
  )


def write_biovid(root: Path, *, people=PEOPLE, per_level: int = 1) -> list[list[str]]:
  """A sound folder; tables of 2815 and 2817 rows are. Videos hold no pictures."""
  rows = biovid_rows(people, per_level=per_level)
  write_list(root, rows)
  for number, row in enumerate(rows):
    write_biovid_table(biovid_table_path(root, row), row[5], length=2815 + number % 3)
    video = biovid_video_path(root, row)
    video.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(b'no real video')
  return rows


def segment(name: str, length: int) -> np.ndarray:
  rng = np.random.default_rng([*name.lower().encode()])
  return rng.normal(size=length).round(4)


def write_segments(
  path: Path, lengths: dict[str, int], *, empty: str = 'nan', replace=None
) -> None:
  """One AI4Pain table: a column a segment, shorter ones filled up with NaN."""
  signals = {name: segment(path.parent.name + name, length) for name, length in lengths.items()} | (
    replace or {}
  )
  longest = max(map(len, signals.values()))
  write_table(
    path,
    tuple(signals),
    ([str(s[i]) if i < len(s) else empty for s in signals.values()] for i in range(longest)),
    delimiter=',',
  )


def write_whole_ai4pain(
  root: Path,
  edition: int,
  *,
  rows: int = 1000,
  splits=('train', 'validation', 'test'),
  withheld: bool = True,
) -> None:
  """All people and segments of 2025 or 2026, each segment as long as is used."""
  counts = {
    2025: {'Baseline': 1, 'LOW': 12, 'HIGH': 12, 'REST': 3},
    2026: {'Baseline': 12, 'ARM': 12, 'HAND': 12},
  }[edition]
  named = [f'{condition}_{k}' for condition, count in counts.items() for k in range(1, count + 1)]
  people = {'train': range(1, 42), 'validation': range(42, 54), 'test': range(54, 66)}
  rng = np.random.default_rng(edition)
  for split in splits:
    for person in people[split]:
      hidden = split == 'test' and withheld
      columns = [f'{person}_{k if hidden else name}' for k, name in enumerate(named, 1)]
      for modality in ('Bvp', 'Eda', 'Resp', 'SpO2'):
        path = root / split / modality / f'{person}.csv'
        path.parent.mkdir(parents=True, exist_ok=True)
        values = rng.integers(-9999, 9999, (len(columns), rows), dtype=np.int16)
        with open(path, 'wb') as file:
          file.write((','.join(columns) + '\n').encode())
          pyarrow.csv.write_csv(pyarrow.table(list(values), names=columns), file, _PLAIN)


def leave_out_columns(path: Path, *wanted: str) -> None:
  """Rewrites a table of one person without the columns that end so."""
  cells = [line.split(',') for line in path.read_text().splitlines()]
  kept = [k for k, name in enumerate(cells[0]) if name.partition('_')[2] not in wanted]
  path.write_text('\n'.join(','.join(row[k] for k in kept) for row in cells) + '\n')


def write_ai4pain_2025(root: Path, *, withheld: bool = True) -> None:
  """Two people to train on, one of each other split; case varies throughout."""
  for split, people in (('train', ('1', '12')), ('Validation', ('30',)), ('test', ('41',))):
    for number, person in enumerate(people):
      for modality in ('Bvp', 'EDA', 'Resp', 'SpO2'):
        if split == 'test' and withheld:
          lengths = {f'{person}_{k}': 1000 for k in (1, 2, 3)}
        else:
          low = 'LOW' if number == 0 else 'Low'
          lengths = {
            f'{person}_Baseline_1': 6010,
            f'{person}_{low}_1': 1000,
            f'{person}_HIGH_1': 1018,
            f'{person}_REST_1': 995,
            f'{person}_{low}_2': 1003,
          }
        # Spreadsheets leave the padding empty, pandas writes nan.
        write_segments(
          root / split / modality / f'{person}.csv',
          lengths,
          empty='' if modality == 'EDA' else 'nan',
        )


def write_ai4pain_2026(root: Path) -> None:
  """Lengths of 990, 1022 and 1118 samples, a steady SpO2, and one of a sensor that fell off."""
  for split, person in (('train', '3'), ('train', '4'), ('validation', '50'), ('test', '60')):
    for modality in ('Bvp', 'Eda', 'Resp', 'SpO2'):
      lengths = {
        f'{person}_{where}_{k}': (990, 1022, 1118)[(k + shift) % 3]
        for shift, where in enumerate(('Baseline', 'ARM', 'HAND'))
        for k in (1, 2, 3)
      }
      flat = {f'{person}_ARM_2': np.zeros(1022), f'{person}_ARM_3': np.full(1118, 97.0)}
      write_segments(
        root / split / modality / f'{person}.csv',
        lengths,
        replace=flat if (modality, person) == ('SpO2', '4') else None,
      )


SOME_2024 = {'Train': ('P01', 'P02'), 'Validation': ('P50',)}
# What was released: 41 and 12 people.
RELEASED_2024 = {
  'Train': tuple(f'P{k:02d}' for k in range(1, 42)),
  'Validation': tuple(f'P{k}' for k in range(50, 62)),
}


def write_ai4pain_2024(root: Path, *, channels: int = 4, people=SOME_2024) -> tuple[str, ...]:
  """Clips and a table of fNIRS for each; returns the names of the HbO channels."""
  oxygenated = tuple(f'CH{k} HbO2' for k in range(1, channels + 1))
  columns = ('sample', *(c for k in range(1, channels + 1) for c in (f'CH{k} HbO2', f'CH{k} HHb')))
  for split, person in ((split, person) for split, own in people.items() for person in own):
    for number, condition in enumerate(('Baseline', 'Low_Pain', 'HIGH-pain', 'No Pain')):
      clip = root / split / 'video' / person / f'{number:02d}_{condition}.mp4'
      clip.parent.mkdir(parents=True, exist_ok=True)
      clip.write_bytes(b'no real video')
      values = segment(f'{person}{condition}', 80 * 2 * channels).reshape(80, -1)
      write_table(
        root / split / 'fnirs' / person / f'{clip.stem}.csv',
        columns,
        ([i, *row] for i, row in enumerate(values.tolist())),
        delimiter=';',
      )
  return oxygenated
