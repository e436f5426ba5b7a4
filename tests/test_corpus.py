"""The table of 14 tasks, and all of them in small: prepared, checked, trained."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT, environment
from corpus_layouts import TASKS
from painformer_jax.cli.main import main
from painformer_jax.data import augment, corpus
from painformer_jax.data.builders.catalog import PAGES, READERS
from painformer_jax.data.prepared import PreparedTask, open_task
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES


def test_the_table():
  assert len(corpus.CORPUS) == 14
  assert len({task.name for task in corpus.CORPUS}) == 14
  # As facts about the corpus are stated: rounded, and a little below the paper's total.
  assert sum(task.samples for task in corpus.CORPUS) == 10_755_000
  assert abs(sum(t.samples for t in corpus.CORPUS) / corpus.PUBLISHED_SAMPLES - 1) < 0.02


@pytest.mark.parametrize('task', corpus.CORPUS, ids=lambda task: task.name)
def test_a_row_holds_together(task):
  assert task.reader in READERS and (PAGES / f'{task.page}.md').is_file()
  assert task.evidence in ('V', 'S', 'M') and task.licence and task.access
  augment.policy(task.augment, modality=task.modality)


def prepared_as(task: corpus.CorpusTask, **changes) -> PreparedTask:
  fields = dict(
      name=task.name, path=None, classes=tuple(map(str, range(task.classes))),
      modality=task.modality, description='', licence='',
      sizes={'train': task.samples - 1000, 'test': 1000}, shards={}, sha256={}, settings='',
      listing={})
  return PreparedTask(**fields | changes)


def verdicts(**changes):
  task = corpus.CORPUS[0]
  return {c.task.name: c.verdict for c in corpus.compare(
      {task.name: prepared_as(task, **changes)})}


@pytest.mark.parametrize('changes,verdict', [
    ({}, 'as published'),
    ({'sizes': {'train': 3_280_000}}, 'as published'),
    ({'sizes': {'train': 331_000}}, '10.0% of the samples'),
    ({'classes': ('a', 'b')}, '2 classes, not 9,131'),
    ({'modality': 'image'}, "modality 'image', not 'face'"),
    ({'modality': 'image', 'classes': ('a', 'b')},
     "2 classes, not 9,131, modality 'image', not 'face'"),
])
def test_verdicts(changes, verdict):
  found = verdicts(**changes)
  assert found.pop('vggface2') == verdict
  assert set(found.values()) == {'missing'}


def test_a_whole_corpus_stands_beside_the_published_total():
  text = corpus.table(corpus.compare({t.name: prepared_as(t) for t in corpus.CORPUS}))
  lines = text.splitlines()
  assert len(lines) == 17 and sum('as published' in line for line in lines) == 14
  assert lines[-2].split()[:5] == ['14', 'of', '14', '10,755,000', '10,755,000']
  assert '10.9 M' in lines[-2]


# In small.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """All 14 miniatures, through the command line."""
  folder = tmp_path_factory.mktemp('corpus')
  for name, task in TASKS.items():
    source = task.write(folder / 'sources' / name)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in task.options.items()]
    assert main([
        'data', 'prepare', task.reader, '--source', str(source), '--name', name,
        '--data-dir', str(folder / 'data'), '--image-size', '32', '--max-unreadable', '0.02',
        *options]) == 0
  return folder / 'data'


def test_the_check_stands_beside_the_published_corpus(data_dir, capsys):
  status = main(['data', 'check', '--data-dir', str(data_dir)])
  found = capsys.readouterr()
  assert status == 0, found.err
  for task in corpus.CORPUS:
    assert f'{task.samples:,}' in found.out
  total = sum(sum(open_task(data_dir, name).sizes.values()) for name in TASKS)
  assert '14 of 14' in found.out and f'{total:,}' in found.out
  assert found.out.count('ok\n') == 28


def test_all_14_train_at_once(data_dir, tmp_path):
  overrides = [f'--config.{name}={value}' for name, value in SMALL_OVERRIDES.items()]
  done = subprocess.run(
      [sys.executable, '-m', 'painformer_jax', 'pretrain', '--config',
       str(ROOT / 'configs/pretrain_tiny_corpus.py'), '--workdir', str(tmp_path / 'run'),
       f'--config.data_dir={data_dir}', '--config.steps=3', *overrides],
      env=environment(JAX_PLATFORMS='cpu', XLA_FLAGS=QUICK_COMPILE), capture_output=True,
      text=True, timeout=600)
  assert done.returncode == 0, done.stderr
  report = json.loads((tmp_path / 'run/report.json').read_text())
  assert set(report['tasks']) == set(TASKS)
  assert report['steps'] == 3 and report['images'] == 3 * 28
  rows = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
  for name in TASKS:
    assert any(f'task/{name}/loss' in row for row in rows)
    assert report['tasks'][name]['classes'] == TASKS[name].classes
