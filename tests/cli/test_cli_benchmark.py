"""`painformer benchmark` through its real entry point."""

import json

import pytest
from command_line import assert_refused, run_command


@pytest.mark.parametrize('work', [['forward', 'train']])
def test_measures_every_variant(tmp_path, work):
  out = tmp_path / 'speed.json'
  done = run_command(
    'benchmark',
    '--model',
    'painformer_nano',
    '--batch',
    '2',
    '--rounds',
    '2',
    '--json',
    str(out),
    '--work',
    *work,
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())['measurements']
  assert [
    (r['variant']['work'], r['variant']['gate'], r['variant']['depthwise']) for r in rows
  ] == [(w, g, d) for w in work for g, d in (('fft', 'auto'), ('dft', 'auto'), ('fft', 'conv'))]
  for row in rows:
    assert row['images_per_second'] > 0 and row['temporary_bytes'] > 0
  # A ratio is to the first row of the same work.
  for row, first in zip(rows, [rows[i - i % 3] for i in range(len(rows))]):
    assert row['ratio'] == pytest.approx(
      row['images_per_second'] / first['images_per_second'], rel=1.0
    )
  # The products of the written-out transform are arithmetic that the FFT saves.
  flops = {
    tuple(r['variant'][k] for k in ('work', 'gate', 'depthwise')): r['flops_per_image']
    for r in rows
  }
  assert flops[work[0], 'dft', 'auto'] > flops[work[0], 'fft', 'auto']
  if 'train' in work:
    assert flops['train', 'fft', 'auto'] > 2 * flops['forward', 'fft', 'auto']
  assert 'images/s' in done.stdout and 'painformer_nano' in done.stdout


@pytest.mark.parametrize(
  'args, message',
  [
    (['--model', 'painformer_nono'], 'did you mean painformer_nano'),
    (['--batch', '0'], 'at least 1'),
    (['--json', 'no/such/folder/x.json'], 'no/such/folder'),
    (['--work', 'backward'], 'invalid choice'),
  ],
)
def test_bad_input_is_one_line(args, message):
  assert_refused(run_command('benchmark', *args), message, alone=True)


# Data.


def test_data_stages_are_timed(tmp_path, painformer):
  out = tmp_path / 'data.json'
  done = painformer(
    'benchmark',
    'data',
    '--image-size',
    '32',
    '--batches',
    '2',
    '--rounds',
    '2',
    '--threads',
    '2',
    '--memory-minutes',
    '0.05',
    '--json',
    str(out),
  )
  assert done.returncode == 0, done.stderr
  figures = json.loads(out.read_text())
  rows = {row['name']: row for row in figures['stages']}
  assert set(rows) == {
    'bare decode',
    'read',
    'decode to RGB',
    'pipeline',
    'pipeline, trivial_augment',
    'pipeline, paper',
  }
  assert rows['bare decode']['ratio'] == 1
  for row in rows.values():
    assert row['images_per_second'] == pytest.approx(2 * row['per_core']) and row['ratio'] > 0
  memory = figures['memory']
  assert memory['images'] > 0 and memory['largest'] >= memory['early'] > 50
  assert 'photo_crops' in done.stdout and 'of bare decode' in done.stdout


@pytest.mark.slow
def test_data_stages_with_workers():
  done = run_command(
    'benchmark', 'data', '--image-size', '32', '--batches', '3', '--rounds', '1', '--workers', '2'
  )
  assert done.returncode == 0, done.stderr
  assert '2 thread(s) of ' in done.stdout and 'pipeline in 2 process(es)' in done.stdout
  assert done.stdout.count('%') == 6


def test_data_at_scale(tmp_path):
  done = run_command(
    'benchmark',
    'data',
    '--records',
    '10000',
    '20000',
    '--scratch',
    str(tmp_path),
    '--json',
    str(tmp_path / 'scale.json'),
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads((tmp_path / 'scale.json').read_text())['scale']
  assert [(row['records'], row['files'], row['repeats']) for row in rows] == [
    (10_000, 1, 0),
    (20_000, 2, 0),
  ]
  for row in rows:
    assert row['random_read'] > 0 and row['next_batch'] > 0 and row['open_seconds'] > 0
  # A whole epoch is spread perfectly; half of one as chance would, and never in order.
  assert rows[0]['shuffle'] == 0 and 0 < rows[1]['shuffle'] < 5


def test_a_corpus_half_written_is_written_again(tmp_path):
  half = tmp_path / 'records-500/tiny_records/.incomplete'
  half.mkdir(parents=True)
  (half / 'train-00000.ab.tmp').touch()
  done = run_command('benchmark', 'data', '--records', '500', '--scratch', str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert 'writes 500 records' in done.stderr and ' 500 ' in done.stdout


@pytest.mark.parametrize(
  'args, message',
  [
    (['--data-dir', 'x'], 'go together'),
    (['--data-dir', 'nowhere', '--task', 'x'], 'no data folder nowhere'),
    (['--batches', '0'], 'must be at least 1'),
    (['--memory-minutes', '-1'], '--memory-minutes at least 0'),
    (['--workers', '-1'], '--workers and --memory-minutes at least 0'),
    (['--records', '10', '0'], 'a corpus of 0 records cannot be measured'),
    (['--records', '10', '--scratch', 'nowhere'], 'nowhere'),
  ],
)
def test_bad_data_arguments(args, message, tmp_path):
  assert_refused(run_command('benchmark', 'data', *args, cwd=tmp_path), message)
