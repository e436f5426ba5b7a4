"""`assess --check` of a study with every fault once: each is named, nothing else is."""

import shutil

import numpy as np
import pytest
from assessment_layouts import (
  biovid_rows,
  biovid_signal,
  biovid_table_path,
  write_biovid,
  write_biovid_table,
  write_list,
)
from command_line import run_command
from repository import ROOT

N = 2816
COLUMNS = ('gsr', 'ecg', 'emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')
PEOPLE = tuple(f'{number:06d}_w_{number}' for number in range(1, 12))


def with_holes(part: slice) -> dict[str, np.ndarray]:
  values = biovid_signal('holes', 'ecg')
  values[part] = np.nan
  return {'ecg': values}


def repeated(seconds: np.ndarray, at: int) -> np.ndarray:
  """The clock begins again."""
  return np.concatenate([seconds[:at], seconds[: len(seconds) - at]])


SECONDS = np.arange(N) / 512
# Fault -> options of `write_biovid_table`.
TABLES = {
  'blank at the start': dict(replace=with_holes(slice(0, 2540))),
  'blank at the end': dict(replace=with_holes(slice(280, None))),
  'a few holes': dict(replace=with_holes(slice(700, 740))),
  'far too short': dict(length=280),
  'far too long': dict(length=28160),
  'half the rate': dict(times=np.arange(N) / 256),
  'a jump in time': dict(times=SECONDS + 2.0 * (SECONDS > 3)),
  'time runs backwards': dict(times=SECONDS[::-1]),
  'the clock begins again': dict(times=repeated(SECONDS, 1500)),
  'an electrode off': dict(replace={'ecg': np.full(N, 1.5) + 1e-3 * (np.arange(N) % 2)}),
  'one odd value': dict(replace={'ecg': np.where(np.arange(N) == 1000, 9.0, 3.0)}),
  'a constant': dict(replace={'ecg': np.full(N, 1.5)}),
  'held at the end': dict(replace={'ecg': np.where(SECONDS > 1, 0.7, biovid_signal('h', 'ecg'))}),
  'zeros for half': dict(replace={'ecg': np.where(SECONDS > 2.7, 0, biovid_signal('z', 'ecg'))}),
  'a spike': dict(replace={'ecg': np.where(np.arange(N) == 9, 1e6, biovid_signal('s', 'ecg'))}),
  'blanks as -9999': dict(replace={'ecg': np.where(SECONDS < 1, -9999, biovid_signal('n', 'ecg'))}),
  'clipped fast': dict(replace={'ecg': np.clip(biovid_signal('f', 'ecg'), -0.5, 0.8)}),
  'an electrode off, noise of the converter': dict(
    replace={'ecg': np.round(5 + 5e-4 * np.random.default_rng(8).normal(size=N), 4)}
  ),
  'two columns alike': dict(
    replace=dict.fromkeys(('ecg', 'emg_trapezius'), biovid_signal('w', 'ecg'))
  ),
  'no column': dict(columns=('gsr', *COLUMNS[2:])),
  'clipped': dict(
    replace={'ecg': np.clip(np.random.default_rng(0).normal(size=N).cumsum(), -9, 9)}
  ),
}
# What is read all the same.
READ = ('semicolons', 'commas', 'other names')
# What is no fault.
SOUND = {
  'a row less': dict(length=N - 1),
  'a weak one': dict(
    replace={'ecg': 5e-3 * np.sin(SECONDS) + 1e-3 * np.random.default_rng(9).normal(size=N)}
  ),
  'a row more': dict(length=N + 1),
  'coarse digits': dict(replace={'gsr': np.round(np.sin(SECONDS) * 20) / 10}),
}


@pytest.fixture(scope='module')
def listed(stored, tmp_path_factory):
  """What `--check` says of the study, and fault -> name of the sample that has it."""
  root = tmp_path_factory.mktemp('study') / 'BioVid'
  write_biovid(root, people=PEOPLE)
  shutil.rmtree(root / 'video')
  rows, paths, having = biovid_rows(PEOPLE), {}, {}
  rest = iter(rows)

  def sample(fault):
    row = next(rest)
    having[fault], paths[fault] = row[5], biovid_table_path(root, row)
    return row

  for fault, options in TABLES.items():
    row = sample(fault)
    write_biovid_table(paths[fault], f'{fault} {row[5]}', **options)
  for fault, options in SOUND.items():
    sample(fault)
    write_biovid_table(paths[fault], fault, **options)
  for fault in (
    'missing',
    'empty',
    'text',
    'no table',
    'original',
    'copy',
    'copy in another unit',
    'double',
    'class',
    'link to nothing',
    'upper case',
    'column twice',
    *READ,
  ):
    sample(fault)
  paths['missing'].unlink()
  paths['empty'].write_bytes(b'')
  paths['text'].write_text(paths['text'].read_text().replace('\n1953\t', '\nnow\t', 1))
  paths['no table'].write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(100))
  shutil.copy(paths['original'], paths['copy'])
  changed = {c: -1000 * biovid_signal(having['original'], c) + 3 for c in COLUMNS}
  write_biovid_table(paths['copy in another unit'], 'x', replace=changed)
  (paths['original'].parent / 'stranger_bio.csv').write_text('gsr\n1\n')
  (paths['original'].parent / '._hidden_bio.csv').write_text('gsr\n1\n')
  (root / 'biosignals_filtered' / '000099_m_99').mkdir()
  shutil.copy(paths['original'], root / 'biosignals_filtered' / '000099_m_99' / 'x_bio.csv')
  paths['link to nothing'].unlink()
  paths['link to nothing'].symlink_to('nowhere')
  paths['upper case'].rename(paths['upper case'].with_suffix('.CSV'))
  lines = paths['column twice'].read_text().splitlines()
  paths['column twice'].write_text(
    '\n'.join(f'{line}\t{line.split(chr(9))[1] if n else "gsr"}' for n, line in enumerate(lines))
  )
  for fault, mark in (('semicolons', ';'), ('commas', ',')):
    paths[fault].write_text(paths[fault].read_text().replace('\t', mark))
  text = paths['other names'].read_text()
  paths['other names'].write_text(text.replace('gsr', 'GSR [uS]', 1).replace('ecg', 'ECG', 1))
  lines = [list(row) for row in rows]
  lines.append(next(row for row in lines if row[5] == having['double']))
  next(row for row in lines if row[5] == having['class'])[2] = '9'
  write_list(root, lines)
  config = f'{ROOT}/configs/assess_biovid.py:signals'
  where = (f'--config.data_dir={root}', f'--config.weights={stored}', '--check')
  workdir = root.parent / 'work'
  done = run_command('assess', '--config', config, '--workdir', workdir, *where)
  return done, having, [row[5] for row in rows]


def test_each_fault_is_named_once_and_nothing_else(listed):
  done, having, names = listed
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  tables = [line for line in done.stdout.splitlines() if '_bio.csv' in line]
  found = {name: sum(f'{name}_bio.csv' in line for line in tables) for name in names}
  # The copy is named in the line of the other, the sample of no class in that of the list.
  faulty = {having[f] for f in having if f not in (*SOUND, *READ, 'original', 'double', 'class')}
  assert found == {name: int(name in faulty) for name in names}
  assert [line for line in tables if 'stranger_bio.csv: ' in line]
  assert len(tables) == len(faulty) + 1
  assert [line for line in done.stdout.splitlines() if '000099_m_99: 1 file of nobody' in line]
  (copies,) = (line for line in tables if f'{having["copy"]} is' in line)
  assert having['original'] in copies
  rest = [line for line in done.stdout.splitlines() if line.startswith('starting_point/')]
  assert [name for name in ('double', 'class') if any(having[name] in r for r in rest)] == [
    'double'
  ]
  assert any('class_id 9' in line for line in rest)


def test_the_count_is_that_of_the_lines(listed):
  done, *_ = listed
  lines = done.stdout.splitlines()
  (summary,) = (k for k, line in enumerate(lines) if ' findings' in line)
  assert f'{summary} findings' in lines[summary]
  assert f'{summary} findings' in done.stderr.splitlines()[-1]
