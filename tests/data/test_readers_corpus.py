"""The catalogue of readers, the pages, and all 14 tasks of the corpus in small."""

import inspect
import re
import shlex
import subprocess
import sys

import corpus_layouts as layouts
import numpy as np
import pytest

from painformer_jax.data.builders.base import store
from painformer_jax.data.builders.catalog import PAGES, READERS
from painformer_jax.data.corpus import CORPUS
from painformer_jax.data.decode import decode_rgb
from painformer_jax.modalities.signal_files import read_span

COMMAND = re.compile(r'^painformer data prepare (?:.*\\\n)*.*$', re.MULTILINE)
# What `painformer data prepare` takes beside the readers' own options.
COMMON = {'--source', '--name', '--data-dir', '--max-unreadable'}


def test_the_miniatures_are_the_corpus():
  assert list(layouts.TASKS) == [task.name for task in CORPUS]
  for task in CORPUS:
    assert layouts.TASKS[task.name].reader == task.reader


@pytest.mark.parametrize('name', layouts.TASKS)
def test_every_task_of_the_corpus_is_prepared(tmp_path, name):
  said = []
  task = layouts.corpus_task(name, tmp_path / 'sources', report=said.append)
  again = layouts.corpus_task(name, tmp_path / 'again')
  assert again.splits == task.splits and again.settings == task.settings
  assert task.name == name and len(task.classes) == layouts.TASKS[name].classes
  row = next(row for row in CORPUS if row.name == name)
  assert task.modality == row.modality and task.checked
  assert all('\n' not in line for line in said)
  prepared = store(task, tmp_path / 'data', progress=said.append, max_unreadable=0.02)
  damaged = name == 'vggface2'
  assert sum(prepared.sizes.values()) == sum(len(of) for of in task.splits.values()) - damaged
  assert ('n000001/0006_01.jpg' in '\n'.join(said)) == damaged
  for split in ('train', 'test'):
    records = prepared.records(split)
    assert decode_rgb(records[0]['image']).shape == (32, 32, 3)
  labels = {prepared.records('train')[i]['label'] for i in range(prepared.sizes['train'])}
  assert labels == set(range(len(task.classes)))


@pytest.mark.parametrize('name', READERS)
def test_options_are_the_arguments_of_the_reader(name):
  reader = READERS[name]
  parameters = inspect.signature(reader.load()).parameters
  options = {
    p.name: p.default
    for p in parameters.values()
    if p.kind is p.KEYWORD_ONLY and p.name not in {'report', *reader.fixed}
  }
  assert {o.name: o.default for o in reader.options} == options
  assert list(parameters)[:2] == ['source', 'name']
  assert parameters['name'].default in (inspect.Parameter.empty, reader.task)
  assert set(reader.fixed) <= set(parameters)
  for option in reader.options:
    assert option.type(str(option.default)) == option.default
    assert option.choices is None or option.default in option.choices
    # argparse would take it for a format.
    assert '%' not in option.help


def test_the_catalogue_costs_no_import():
  script = (
    'import sys, painformer_jax.data.builders.catalog as c; '
    "print([m for m in ('cv2', 'scipy', 'pyarrow', 'PIL') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
  assert done.stdout.strip() == '[]', done.stderr


def test_a_reader_without_a_usual_name_needs_one(tmp_path):
  with pytest.raises(TypeError, match='needs a name'):
    READERS['manifest'].build(tmp_path)


def test_every_page_is_somebodys():
  pages = {path.stem for path in PAGES.glob('*.md')}
  assert pages == {r.page for r in READERS.values()} | {t.page for t in CORPUS}
  assert all((PAGES / f'{reader.page}.md').is_file() for reader in READERS.values())


def test_the_script_on_the_page_writes_the_manifest_of_heartbeats(tmp_path):
  given = layouts.corpus_task('ecg_hbc_waveform', tmp_path)
  source = tmp_path / 'ecg_hbc_waveform'
  (source / 'manifest.parquet').unlink()
  (script,) = re.findall(r'```python\n(.*?)```', (PAGES / 'ecg_hbc.md').read_text(), re.S)
  subprocess.run([sys.executable, '-c', script], cwd=source, check=True)
  written = READERS['manifest'].build(source, name='mine', classes='N,S,V,F,Q')
  for split in ('train', 'test'):
    assert [(i.key, i.label) for i in written.splits[split]] == [
      (i.key, i.label) for i in given.splits[split]
    ]


def test_the_script_on_the_page_writes_the_manifest_of_eeg(tmp_path):
  (tmp_path / 'demographic.csv').write_text(
    'subject, group, gender, age, education\n1, 0, M, 44, 16\n2, 1, F, 39, 17\n'
    '3, 1, M, 50, 12\n4, 0, M, 31, 15\n'
  )
  for person in (1, 2, 3):  # The fourth was not downloaded.
    (tmp_path / f'{person}.csv').mkdir()
    rows = np.arange(2 * 3072)[:, None] % 3072 * np.ones(70, int) + np.arange(70)
    rows[:, 5] += 100_000 * person
    np.savetxt(tmp_path / f'{person}.csv/{person}.csv', rows, fmt='%d', delimiter=',')
  (script,) = re.findall(r'```python\n(.*?)```', (PAGES / 'eeg_bst_sz.md').read_text(), re.S)
  subprocess.run([sys.executable, '-c', script], cwd=tmp_path, check=True)
  task = READERS['manifest'].build(
    tmp_path, name='mine', test_fraction=0.4, report=lambda line: None
  )
  assert task.classes == ('control', 'patient')
  items = [item for of in task.splits.values() for item in of]
  assert len(items) == 3 * 2 * 64
  assert {(i.identity, i.label) for i in items} == {('1', 0), ('2', 1), ('3', 1)}
  assert len({i.identity for i in task.splits['test']}) == 1
  item = next(
    i for i in items if i.identity == '2' and i.detail.column == '5' and i.detail.start == 3
  )
  np.testing.assert_array_equal(
    read_span(str(tmp_path), item.detail), np.arange(3072) + 5 + 200_000
  )


@pytest.mark.parametrize('page', sorted(PAGES.glob('*.md')), ids=lambda p: p.stem)
def test_pages_say_what_is_needed_and_what_is_true(page):
  text = page.read_text(encoding='utf-8')
  for heading in ('## Getting it', '## What is expected', '## Command', '## Time and disk'):
    assert heading in text, heading
  commands = COMMAND.findall(text)
  assert commands
  tasks = set()
  for command in commands:
    words = shlex.split(command.replace('\\\n', ' '), comments=True)
    reader = READERS[words[3]]
    flags = {w.partition('=')[0] for w in words if w.startswith('--')}
    assert '--source' in flags
    assert flags <= COMMON | {o.flag for o in reader.options}
    tasks.add(words[words.index('--name') + 1] if '--name' in flags else reader.task)
  # The tasks that the corpus's table expects of this page.
  assert {t.name for t in CORPUS if t.page == page.stem} <= tasks
