"""`painformer assess` from a planted folder to its tables; interrupted, checked, misused."""

import csv
import json
import shutil
import signal
import subprocess
import sys

import assessment_layouts as layouts
import numpy as np
import pytest
from assess_runs import PLAN, assess, read_results
from command_line import assert_refused
from repository import ROOT, environment

from painformer_jax.assessment.datasets import planted


def test_results_hold_every_row_with_intervals(finished):
  workdir, done = finished
  found = read_results(workdir)
  assert found.keys() == {'gsr, BL1-PA4', 'both, BL1-PA4'}
  for each in found.values():
    assert each['samples'] == 4 * 2 * PLAN.per_level and each['subjects'] == 4
    score = each['scores']['accuracy']
    assert score['low'] <= score['estimate'] <= score['high']
    assert each['settings']['folds'] == 4 and len(each['settings']['shuffled']['accuracy']) == 2
    assert any('best possible accuracy is 97.7 %' in note for note in each['notes'])
    assert any('shuffled within each subject' in note for note in each['notes'])
  assert found['both, BL1-PA4']['modality'] == 'GSR+ECG'


def test_predictions_are_of_subjects_left_out(finished):
  workdir, _ = finished
  with open(workdir / 'predictions.csv') as file:
    rows = [row for row in csv.DictReader(file) if row['experiment'] == 'gsr, BL1-PA4']
  assert len(rows) == len({row['sample'] for row in rows}) == 32
  assert {row['label'] for row in rows} == {'no pain', 'PA4'}
  assert all(row['sample'].startswith(row['subject']) for row in rows)


def test_cost_comes_before_work_and_notice_at_the_end(finished):
  _, done = finished
  lines = done.stderr.splitlines()
  cost = next(i for i, line in enumerate(lines) if 'TFLOP altogether' in line)
  assert cost < next(i for i, line in enumerate(lines) if 'embeddings ready' in line)
  assert 'no medical device' in done.stdout and 'claims no accuracy on BioVid' in done.stdout
  assert 'GSR+ECG' in done.stdout and 'chance' in done.stdout.splitlines()[0]


def test_same_command_again_trains_nothing_and_gives_the_same(finished, small):
  workdir, _ = finished
  before = read_results(workdir)
  again = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    workdir,
    '--config.shuffled=2',
    '--config.assessor=True',
  )
  assert again.returncode == 0, again.stderr[-2000:]
  assert 'embeddings found' in again.stderr and 'is there already' in again.stderr
  assert '4 of 4 runs are in the cache' in again.stderr and 'steps/s' not in again.stderr
  assert read_results(workdir) == before


def test_a_run_is_tested_against_another_and_its_rows_against_one(finished, small):
  workdir, _ = finished
  done = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    workdir,
    '--config.shuffled=2',
    '--config.assessor=True',
    '--config.reference=gsr',
    '--against',
    workdir,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert f'gsr, BL1-PA4 against gsr, BL1-PA4 of {workdir}: +0.0 points' in done.stdout
  assert 'both, BL1-PA4 against gsr, BL1-PA4: ' in done.stdout
  comparisons = json.loads((workdir / 'results.json').read_text())['comparisons']
  assert [c['run'] for c in comparisons] == ['', str(workdir), str(workdir)]
  none = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    workdir,
    '--config.shuffled=2',
    '--config.assessor=True',
    '--against',
    small,
  )
  assert none.returncode == 2 and 'holds no finished assessment' in none.stderr


def test_another_configuration_is_refused(finished, small):
  workdir, _ = finished
  refused = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    workdir,
    '--config.shuffled=2',
    '--config.fit.epochs=4',
  )
  assert refused.returncode == 2
  assert 'fit.epochs: 3 -> 4' in refused.stderr and refused.stderr.count('\n') == 1


def test_killed_and_started_again_ends_with_the_same(finished, small, tmp_path):
  workdir, _ = finished
  command = [
    sys.executable,
    '-m',
    'painformer_jax',
    'assess',
    '--config',
    str(small / 'config.py'),
    '--workdir',
    str(tmp_path / 'work'),
    '--config.shuffled=2',
  ]
  process = subprocess.Popen(
    command,
    env=environment(JAX_PLATFORMS='cpu'),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  for line in process.stderr:
    if line.startswith('gsr, BL1-PA4'):  # Folds begin.
      break
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not (tmp_path / 'work' / 'results.json').exists()
  done = assess(*command[4:])
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'embeddings found' in done.stderr
  for name, each in read_results(tmp_path / 'work').items():
    first = read_results(workdir)[name]
    assert each['confusion'] == first['confusion']
    assert each['settings']['shuffled'] == first['settings']['shuffled']


def test_check_lists_everything_and_writes_nothing(small, tmp_path):
  data = shutil.copytree(small / 'data', tmp_path / 'data')
  tables = sorted(data.glob('biosignals_filtered/*/*_bio.csv'))
  tables[0].unlink()
  tables[5].write_text('')
  listed = assess(
    '--config',
    small / 'config.py',
    '--workdir',
    tmp_path / 'work',
    '--check',
    f'--config.data_dir={data}',
  )
  assert listed.returncode == 2
  assert f'{tables[0]}: no such file' in listed.stdout
  assert f'{tables[5]}: the file is empty' in listed.stdout
  assert 'gsr, BL1-PA4: 32 samples, 4 folds' in listed.stdout
  assert listed.stderr.splitlines()[-1] == 'painformer: 2 findings, listed above'
  assert not (tmp_path / 'work').exists()
  stopped = assess(
    '--config', small / 'config.py', '--workdir', tmp_path / 'work', f'--config.data_dir={data}'
  )
  assert_refused(stopped, 'config.findings')
  assert not (tmp_path / 'work' / 'embeddings').exists()


def test_a_recording_on_both_sides_of_a_fold_is_an_error(small, tmp_path):
  """One person's tables under another's names; ECG then tells the level without any effect."""
  data = shutil.copytree(small / 'data', tmp_path / 'data')
  one, other, *_ = sorted((data / 'biosignals_filtered').iterdir())
  for level in ('BL1', 'PA4'):
    source, target = (next(folder.glob(f'*-{level}-001_bio.csv')) for folder in (one, other))
    lines = source.read_text().splitlines(keepends=True)
    # In another format, a row shorter.
    target.write_text(''.join(lines[:-1]).replace('\n', '\r\n'))
  options = ('--config', small / 'config.py', f'--config.data_dir={data}')
  options = (*options, '--workdir', tmp_path / 'work', '--config.fit.epochs=1')
  listed = assess(*options, '--check')
  *found, error = (line for line in listed.stdout.splitlines() if 'the same recording as' in line)
  assert error.startswith(('error: both, BL1-PA4: ', 'error: gsr, BL1-PA4: '))
  assert len(found) == 2 and all(one.name in line and other.name in line for line in found)
  for findings in ('stop', 'continue', 'missing,length'):
    refused = assess(*options, f'--config.findings={findings}')
    assert_refused(refused, 'the same recording as')
  left_out = assess(*options, '--config.findings=duplicate', '--config.max_left_out=0.5')
  assert left_out.returncode == 0, left_out.stderr[-2000:]
  assert 'gsr: 80 samples x 1 embeddings of 32 numbers; 4 left out' in left_out.stderr
  assert read_results(tmp_path / 'work')['gsr, BL1-PA4']['samples'] == 28


def test_findings_are_accepted_by_their_kinds(small, tmp_path):
  data = shutil.copytree(small / 'data', tmp_path / 'data')
  first, second, *_ = sorted(data.glob('biosignals_filtered/*/*-BL1-*_bio.csv'))
  first.unlink()
  lines = second.read_text().splitlines(keepends=True)
  second.write_text(''.join(lines[:2000]))
  options = ('--config', small / 'config.py', f'--config.data_dir={data}')
  options = (*options, '--workdir', tmp_path / 'work', '--config.fit.epochs=1')
  refused = assess(*options)
  assert_refused(refused, '2 findings')
  assert 'missing,length' in refused.stderr and '1999 rows, not 2816' in refused.stderr
  assert_refused(assess(*options, '--config.findings=missing'), '1999 rows, not 2816')
  assert_refused(assess(*options, '--config.findings=lengths'), 'did you mean length?')
  done = assess(*options, '--config.findings=missing,length')
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'gsr: 80 samples x 1 embeddings of 32 numbers; 2 left out' in done.stderr


@pytest.mark.parametrize(
  'config, write, words',
  [
    ('assess_biovid.py', layouts.write_biovid, ('gsr, BL1-PA4: ', '2 subjects, not 87')),
    ('assess_ai4pain.py:2024', layouts.write_ai4pain_2024, ('face, 3-class: ', 'subjects, not 41')),
    ('assess_ai4pain.py:2025', layouts.write_ai4pain_2025, ('fusion-1, 3-class: ', 'AI4Pain 2025')),
    ('assess_ai4pain.py:2026', layouts.write_ai4pain_2026, ('bvp, 3-site: ', 'AI4Pain 2026')),
  ],
)
def test_check_of_every_dataset(small, tmp_path, config, write, words):
  write(tmp_path / 'data')
  done = assess(
    '--config',
    ROOT / 'configs' / config,
    '--workdir',
    tmp_path / 'work',
    '--check',
    f'--config.data_dir={tmp_path / "data"}',
    f'--config.weights={small / "weights"}',
  )
  for text in words:
    assert text in done.stdout, done.stderr


def test_check_of_a_sound_folder_ends_well(small, tmp_path):
  done = assess('--config', small / 'config.py', '--workdir', tmp_path / 'work', '--check')
  assert done.returncode == 0, done.stderr
  assert '4 subjects, 80 samples, 0 findings' in done.stdout


def test_what_is_odd_but_usable_ends_well_and_needs_no_weights(small, tmp_path):
  data = shutil.copytree(small / 'data', tmp_path / 'data')
  first, *_ = sorted(data.glob('biosignals_filtered/*/*_bio.csv'))
  lines = first.read_text().splitlines()
  cells = lines[100].split('\t')
  lines[100] = '\t'.join([cells[0], *[''] * (len(cells) - 1)])
  first.write_text('\n'.join(lines) + '\n')
  options = ('--config', small / 'config.py', f'--config.data_dir={data}', '--config.weights=')
  options = (*options, '--workdir', tmp_path / 'work')
  done = assess(*options, '--check')
  assert done.returncode == 0, done.stderr
  assert f'{first}: gsr: 1 of 2816 values' in done.stdout and 'weights: none given' in done.stdout
  assert_refused(assess(*options), 'config.weights is empty')


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('--config.fit.epoch=3',), 'did you mean epochs?'),
    (('--config.weights=nowhere',), 'nowhere'),
    (('--config.data_dir=nowhere/data', '--config.dataset=biovid'), 'no BioVid folder'),
    (('--config.protocol=validation',), 'fixed splits'),
    (('--config.modalities.gsr.source=pulse',), 'BioVid has gsr, ecg'),
  ],
)
def test_mistakes_end_with_one_line(small, tmp_path, arguments, words):
  done = assess('--config', small / 'config.py', '--workdir', tmp_path / 'work', *arguments)
  assert_refused(done, words)


def test_advice_about_findings_can_be_followed_and_embeddings_shared(small, tmp_path):
  """In the folder that the advice was given for; a second table embeds nothing."""
  data = tmp_path / 'data'
  shutil.copytree(small / 'data', data)
  next(data.glob('biosignals_filtered/*/*.csv')).unlink()
  options = (
    '--config',
    small / 'config.py',
    f'--config.data_dir={data}',
    '--config.dataset=biovid',
    f'--config.embeddings={tmp_path / "shared"}',
    '--config.fit.epochs=1',
    '--config.max_left_out=0.9',
  )
  first = assess(*options, '--workdir', tmp_path / 'one')
  assert first.returncode == 2 and '--config.findings=continue' in first.stderr
  followed = assess(*options, '--workdir', tmp_path / 'one', '--config.findings=continue')
  assert followed.returncode == 0, followed.stderr[-2000:]
  assert not (tmp_path / 'one' / 'embeddings').exists()
  second = assess(
    *options, '--workdir', tmp_path / 'two', '--config.findings=go on', '--config.seeds=(1,)'
  )
  assert second.returncode == 0, second.stderr[-2000:]
  assert 'gsr: embeddings found' in second.stderr and 'ecg: embeddings found' in second.stderr


def test_rows_whose_files_would_be_named_alike_are_refused_at_once(small, tmp_path):
  text = (
    (small / 'config.py')
    .read_text()
    .replace('      both=dict(', "      **{'gsr!': dict(")
    .replace("label='GSR+ECG'))", "label='GSR+ECG')})")
  )
  (tmp_path / 'config.py').write_text(text)
  done = assess('--config', tmp_path / 'config.py', '--workdir', tmp_path / 'work', '--check')
  assert_refused(done, 'gsr!', alone=True)


@pytest.mark.slow
def test_hyper_parameters_that_do_not_learn_are_not_chosen(small, tmp_path):
  text = (
    (small / 'config.py')
    .read_text()
    .replace(
      '  config.figures = False',
      '  config.figures = False\n  config.rows = dict(gsr=config.rows.gsr)\n'
      '  config.grid = dict(learning_rate=(1e-9, 1e-2))\n  config.inner_folds = 2',
    )
  )
  (tmp_path / 'config.py').write_text(text)
  done = assess(
    '--config', tmp_path / 'config.py', '--workdir', tmp_path / 'work', '--config.fit.epochs=12'
  )
  assert done.returncode == 0, done.stderr[-2000:]
  record = read_results(tmp_path / 'work')['gsr, BL1-PA4']
  chosen = record['settings']['chosen']
  assert len(chosen) == 4
  # A network that does not learn cannot be the better one where the effect is large.
  assert np.mean([p['learning_rate'] for p in chosen.values()]) > 5e-3, chosen
  assert any('inner folds' in note for note in record['notes'])


def test_workdir_of_something_else_is_refused(small, tmp_path):
  (tmp_path / 'work').mkdir()
  (tmp_path / 'work' / 'notes.txt').write_text('mine')
  done = assess('--config', small / 'config.py', '--workdir', tmp_path / 'work')
  assert_refused(done, tmp_path / 'work', alone=True)
  assert json.dumps(sorted(p.name for p in (tmp_path / 'work').iterdir())) == '["notes.txt"]'


@pytest.mark.slow
def test_the_planted_accuracy_is_recovered_and_shuffled_labels_are_chance(small, tmp_path):
  """The config as it is, with a backbone that was never trained."""
  done = assess(
    '--config',
    ROOT / 'configs' / 'assess_planted.py',
    '--workdir',
    tmp_path / 'work',
    f'--config.weights={small / "weights"}',
    '--config.figures=False',
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = read_results(tmp_path / 'work')
  gsr, ecg = found['gsr, BL1-PA4'], found['ecg, BL1-PA4']
  planted_accuracy = planted.PlantedPlan(subjects=40, effect=2.0, subject_spread=0.5).accuracy(
    'BL1-PA4'
  )
  score, chance = gsr['scores']['accuracy'], ecg['scores']['accuracy']
  assert score['low'] <= planted_accuracy <= score['high'], score
  assert chance['low'] <= 0.5 <= chance['high'], chance
  assert gsr['settings']['shuffled']['p'] <= 0.05 < ecg['settings']['shuffled']['p']
  for each in (gsr, ecg):
    assert abs(np.mean(each['settings']['shuffled']['accuracy']) - 0.5) < 0.05
