"""The table of 14 tasks, and all of them in small: prepared, checked, trained."""

import argparse
import dataclasses
import json
import re
import shlex
import subprocess
import sys

import pytest
from corpus_layouts import TASKS
from repository import ROOT, environment
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES

from painformer_jax.cli.commands import _parser
from painformer_jax.cli.config_file import load_config
from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.data import augment, corpus
from painformer_jax.data.builders.catalog import PAGES, READERS
from painformer_jax.data.prepared import PreparedTask, open_task
from painformer_jax.training.config import from_config_dict

PREPARE = re.compile(r'^painformer data prepare (?:.*\\\n)*.*$', re.MULTILINE)


def test_the_table():
  assert len(corpus.CORPUS) == 14
  assert len({task.name for task in corpus.CORPUS}) == 14
  # As facts about the corpus are stated: rounded, and a little below the paper's total.
  assert sum(task.samples for task in corpus.CORPUS) == 10_755_000
  assert abs(sum(t.samples for t in corpus.CORPUS) / corpus.PUBLISHED_SAMPLES - 1) < 0.02


@pytest.mark.parametrize('task', corpus.CORPUS, ids=lambda task: task.name)
def test_a_row_holds_together(task):
  assert task.reader in READERS and (PAGES / f'{task.page}.md').is_file()
  assert task.evidence in ('verified', 'secondary', 'assumed') and task.licence and task.access
  augment.policy(task.augment, modality=task.modality)


def prepared_as(task: corpus.CorpusTask, **changes) -> PreparedTask:
  fields = dict(
    name=task.name,
    path=None,
    classes=tuple(map(str, range(task.classes))),
    modality=task.modality,
    description='',
    licence='',
    sizes={'train': task.samples - 1000, 'test': 1000},
    shards={},
    sha256={},
    settings='',
    listing={},
  )
  return PreparedTask(**fields | changes)


def verdicts(**changes):
  task = corpus.CORPUS[0]
  return {c.task.name: c.verdict for c in corpus.compare({task.name: prepared_as(task, **changes)})}


@pytest.mark.parametrize(
  'changes,verdict',
  [
    ({}, 'as published'),
    ({'sizes': {'train': 3_280_000}}, 'as published'),
    ({'sizes': {'train': 331_000}}, '10.0% of the samples'),
    ({'sizes': {'train': 3_420_000}}, '103.3% of the samples'),
    ({'classes': ('a', 'b')}, '2 classes, not 9,131'),
    ({'modality': 'image'}, "modality 'image', not 'face'"),
    (
      {'modality': 'image', 'classes': ('a', 'b')},
      "2 classes, not 9,131, modality 'image', not 'face'",
    ),
  ],
)
def test_verdicts(changes, verdict):
  found = verdicts(**changes)
  assert found.pop('vggface2') == verdict
  assert set(found.values()) == {'missing'}


def test_datasets_as_they_were_released_are_as_published():
  released = {
    'vggface2': (3_141_890, 169_396),
    'rafdb_basic': (12_271, 3_068),
    'digiface': (1_219_995, 0),
  }
  tasks = {
    t.name: prepared_as(t, sizes=dict(zip(('train', 'test'), released[t.name])))
    for t in corpus.CORPUS
    if t.name in released
  }
  tasks['digiface'] = dataclasses.replace(
    tasks['digiface'], classes=tasks['digiface'].classes[:109_999]
  )
  found = {c.task.name: c.verdict for c in corpus.compare(tasks)}
  assert {found[name] for name in released} == {'as published'}


def test_a_whole_corpus_stands_beside_the_published_total():
  text = corpus.table(corpus.compare({t.name: prepared_as(t) for t in corpus.CORPUS}))
  lines = text.splitlines()
  assert len(lines) == 17 and sum('as published' in line for line in lines) == 14
  assert lines[-2].split()[:5] == ['14', 'of', '14', '10,755,000', '10,755,000']
  assert '10.9 M' in lines[-2]


# In small.


# What the commands of docs/data.md need besides, since miniatures are small: a missing file is a
# larger share of them, and the miniature table of heartbeats has no column of rates.
BESIDES = {
  'affectnet': ['--max-missing=0.05'],
  'ecg_hbc_waveform': ['--rate=125'],
  'ecg_hbc_psd': ['--rate=125'],
}


def commands(file) -> dict[str, argparse.Namespace]:
  """Task -> the command of a Markdown page that prepares it."""
  found = {}
  for command in PREPARE.findall(file.read_text(encoding='utf-8')):
    words = shlex.split(command.replace('\\\n', ' '), comments=True)
    args = _parser('data').parse_args(words[1:])
    found[args.name] = argparse.Namespace(words=words[1:], **vars(args))
  return found


def test_the_pages_have_the_commands_of_the_docs():
  ours = commands(ROOT / 'docs/data.md')
  assert set(TASKS) <= set(ours)
  for task in corpus.CORPUS:
    page = commands(PAGES / f'{task.page}.md')[task.name]
    for option in READERS[task.reader].options:
      assert getattr(page, option.name) == getattr(ours[task.name], option.name)
    assert (page.reader, page.source) == (ours[task.name].reader, ours[task.name].source)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """All 14 miniatures, through the commands of docs/data.md."""
  folder = tmp_path_factory.mktemp('corpus')
  for name, given in commands(ROOT / 'docs/data.md').items():
    if name in TASKS:
      words = list(given.words)
      words[words.index('--source') + 1] = str(TASKS[name].write(folder / 'sources' / name))
      words[words.index('--data-dir') + 1] = str(folder / 'data')
      assert main([*words, '--image-size=32', *BESIDES.get(name, [])]) == 0, words
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


def test_a_team_with_fewer_datasets_trains_on_those():
  whole, some = (
    from_config_dict(load_config(f'{ROOT}/configs/pretrain_painformer.py{tasks}'))
    for tasks in ('', ':rafdb_basic,vggface2')
  )
  assert set(whole.tasks) == set(TASKS) and whole.batch_size == 126
  assert set(some.tasks) == {'vggface2', 'rafdb_basic'} and some.batch_size == 18
  assert some.tasks['vggface2'] == whole.tasks['vggface2']
  # As many epochs: of 3.325 M images, 18 a step, instead of 10.9 M, 126 a step.
  assert abs(some.steps / (200 * 3_325_000 / 18) - 1) < 1e-6
  for file in ('pretrain_painformer', 'pretrain_tiny_corpus'):
    for tasks, message in (('vggface', 'did you mean vggface2'), ('affectnet,affectnet', 'twice')):
      with pytest.raises(InputError, match=message):
        load_config(f'{ROOT}/configs/{file}.py:{tasks}')
  assert load_config(f'{ROOT}/configs/pretrain_tiny_corpus.py:affectnet').batch_size == 2
  small = load_config(f'{ROOT}/configs/pretrain_painformer.py:painformer_small')
  assert small.model.image_size == 96 and small.batch_size == 126


def test_all_14_train_at_once(data_dir, tmp_path):
  overrides = [f'--config.{name}={value}' for name, value in SMALL_OVERRIDES.items()]
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'painformer_jax',
      'pretrain',
      '--config',
      str(ROOT / 'configs/pretrain_tiny_corpus.py'),
      '--workdir',
      str(tmp_path / 'run'),
      f'--config.data_dir={data_dir}',
      '--config.steps=3',
      *overrides,
    ],
    env=environment(JAX_PLATFORMS='cpu', XLA_FLAGS=QUICK_COMPILE),
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((tmp_path / 'run/report.json').read_text())
  assert set(report['tasks']) == set(TASKS)
  assert report['steps'] == 3 and report['images'] == 3 * 28
  rows = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
  for name in TASKS:
    assert any(f'task/{name}/loss' in row for row in rows)
    assert report['tasks'][name]['classes'] == TASKS[name].classes
