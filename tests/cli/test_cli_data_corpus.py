"""`painformer data`: pages, previews, people in two splits, readers' options."""

import dataclasses
import time

import corpus_layouts as layouts
import cv2
import pytest
from test_readers_folder import photos
from tiny_tasks import examples_of, store_tiny, tiny_task, with_examples

from painformer_jax.cli.main import main
from painformer_jax.data import preview
from painformer_jax.data.builders.base import store
from painformer_jax.data.builders.catalog import PAGES, READERS, DatasetReader
from painformer_jax.data.check import check_tasks, table
from painformer_jax.data.prepared import open_task


def data(*arguments) -> int:
  try:
    return main(['data', *map(str, arguments)])
  except SystemExit as error:
    return error.code


# Pages.


def test_every_page_is_listed_and_printed(capsys):
  assert data('page') == 0
  listed = capsys.readouterr().out
  for path in PAGES.glob('*.md'):
    assert f'\n{path.stem} ' in f'\n{listed}'
    assert data('page', path.stem) == 0
    assert capsys.readouterr().out == path.read_text()


@pytest.mark.parametrize(
  'name,page',
  [('speakingfaces-rgb', 'speakingfaces'), ('rafdb_compound', 'rafdb'), ('ecg_hbc_psd', 'ecg_hbc')],
)
def test_readers_and_tasks_have_pages(capsys, name, page):
  assert data('page', name) == 0
  assert capsys.readouterr().out == (PAGES / f'{page}.md').read_text()


@pytest.mark.parametrize('options', [['--name', 'My-Faces'], ['--max-unreadable', '1.5']])
def test_what_cannot_be_is_said_before_a_long_listing(tmp_path, capsys, options):
  source = layouts.digiface(tmp_path / 'faces')
  assert (
    data('prepare', 'digiface', '--source', source, '--data-dir', tmp_path / 'data', *options) == 2
  )
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 1 and said[0].startswith('painformer: ') and options[1] in said[0]


@pytest.mark.parametrize('modality,said', [('Thermal', True), ('thermal', False)])
def test_a_modality_without_rules_is_said_to_have_none(tmp_path, capsys, modality, said):
  photos(tmp_path / 'pets', count=2)
  assert (
    data(
      'prepare',
      'folder',
      '--source',
      tmp_path / 'pets',
      '--name',
      'pets',
      '--data-dir',
      tmp_path / 'data',
      '--modality',
      modality,
    )
    == 0
  )
  assert ("modality 'Thermal' is augmented as any image" in capsys.readouterr().err) == said


def test_an_unknown_page(capsys):
  assert data('page', 'vggface') == 2
  error = capsys.readouterr().err
  assert error.startswith("painformer: no page 'vggface', only ") and 'vggface2' in error


# Readers.


@pytest.mark.parametrize('name', READERS)
def test_every_reader_has_help_that_names_its_page(capsys, name):
  assert data('prepare', name, '--help') == 0
  text = capsys.readouterr().out
  assert f'painformer data prepare {name} --source' in text
  assert f'painformer data page {READERS[name].page}' in text
  for option in READERS[name].options:
    assert option.flag in text


def test_options_reach_the_reader(tmp_path, capsys):
  source = layouts.vggface2(tmp_path / 'VGGFace2')
  prepare = ['prepare', 'vggface2', '--source', source, '--max-unreadable', '0.05']
  assert (
    data(*prepare, '--data-dir', tmp_path / 'a', '--image-size', '48', '--encoding', 'png') == 0
  )
  assert (
    data(
      *prepare,
      '--data-dir',
      tmp_path / 'b',
      '--short-side',
      '20',
      '--test-fraction',
      '0.5',
      '--split-seed',
      '3',
      '--threads',
      '1',
      '--name',
      'faces',
    )
    == 0
  )
  a, b = open_task(tmp_path / 'a', 'vggface2'), open_task(tmp_path / 'b', 'faces')
  assert a.records('train')[0]['image'].startswith(b'\x89PNG')
  assert b.records('train')[0]['image'].startswith(b'\xff\xd8')
  assert sum(a.sizes.values()) == sum(b.sizes.values()) and b.sizes['test'] > a.sizes['test']
  assert 'skipped' in capsys.readouterr().err


@pytest.mark.parametrize(
  'options,message',
  [
    (['--max-unreadable', '0'], 'n000001/0006_01.jpg'),
    (['--max-unreadable', '1.5'], 'the share of unreadable images, 1.5, is not in [0, 1)'),
    (['--threads', '0'], '--threads must be at least 1'),
    (['--encoding', 'gif'], 'invalid choice'),
    (['--test-fraction', '2'], '2'),
  ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, message):
  source = layouts.vggface2(tmp_path / 'VGGFace2')
  assert (
    data('prepare', 'vggface2', '--source', source, '--data-dir', tmp_path / 'data', *options) == 2
  )
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('painformer: ') and message in error
  assert not (tmp_path / 'data').exists() or not list((tmp_path / 'data').rglob('*record*'))


# People.


def of_people(**splits):
  """split -> who is on each image."""
  task = tiny_task('people', train=6, test=3)
  return with_examples(
    task,
    **{
      split: [
        dataclasses.replace(example, identity=who)
        for example, who in zip(examples_of(task, split), people, strict=True)
      ]
      for split, people in splits.items()
    },
  )


def test_people_in_two_splits_are_found(tmp_path, capsys):
  store(of_people(train='aabbcc', test='dbb'), tmp_path, progress=lambda line: None)
  train, test = check_tasks(tmp_path)
  assert (train.identities, test.identities) == (3, 2)
  assert train.problems == ()
  assert test.problems == ('identities that are in train too: b',)
  assert data('check', '--data-dir', tmp_path) == 2
  assert 'people test: identities that are in train too: b' in capsys.readouterr().out


@pytest.mark.parametrize(
  'people', [{'train': 'aabbcc', 'test': 'ddd'}, {'train': [''] * 6, 'test': [''] * 3}]
)
def test_people_kept_apart_or_unknown_are_sound(tmp_path, people):
  store(of_people(**people), tmp_path, progress=lambda line: None)
  assert all(report.problems == () for report in check_tasks(tmp_path))


@pytest.mark.parametrize('threads', [1, 5])
def test_threads_change_no_finding(tmp_path, monkeypatch, threads):
  monkeypatch.setattr('painformer_jax.data.builders.base.IMAGES_PER_SHARD', 4)
  task = tiny_task(train=12, test=6)
  train, test = examples_of(task, 'train'), examples_of(task, 'test')
  copied = dataclasses.replace(test[5], image=train[11].image)
  store(
    with_examples(task, train=train, test=[*test[:5], copied]), tmp_path, progress=lambda line: None
  )
  said = []
  reports = check_tasks(tmp_path, threads=threads, progress=said.append)
  assert [r.images for r in reports] == [12, 6]
  assert reports[1].leaked == 1 and 'leakage' in reports[1].problems[0]
  assert reports[1].problems[0].endswith(': 17')
  assert 'WRONG' in table(reports)


# Previews.


def test_a_sheet_of_every_task(tmp_path, capsys):
  for name, modality in (('faces', 'face'), ('waves', 'waveform'), ('noise', 'noise')):
    store_tiny(tmp_path / 'data', name, modality=modality)
  out = tmp_path / 'sheet.png'
  assert (
    data(
      'preview',
      '--data-dir',
      tmp_path / 'data',
      '--out',
      out,
      '--image-size',
      '32',
      '--images',
      '2',
    )
    == 0
  )
  assert capsys.readouterr().out == f'{out}\n'
  whole = cv2.imread(str(out))
  assert (
    data(
      'preview',
      'waves',
      '--data-dir',
      tmp_path / 'data',
      '--out',
      out,
      '--image-size',
      '32',
      '--images',
      '2',
      '--augment',
      'noise(20)',
    )
    == 0
  )
  one = cv2.imread(str(out))
  assert whole.shape[0] > 2 * one.shape[0] and whole.shape[1] == one.shape[1]


def test_a_sheet_shows_what_the_14_task_run_does(tmp_path, monkeypatch, capsys):
  for name, modality in (('affectnet', 'face'), ('faces', 'face')):
    store_tiny(tmp_path, name, modality=modality)
  policies = {}
  monkeypatch.setattr(
    preview,
    'write_contact_sheet',
    lambda path, data_dir, tasks, *, augment, **options: policies.update(augment),
  )
  assert data('preview', '--data-dir', tmp_path) == 0
  assert policies == {'affectnet': 'paper', 'faces': 'face'}


def test_a_long_listing_says_that_it_goes_on(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr('painformer_jax.core.progress.SECONDS_BETWEEN_LINES', 0.01)
  build = DatasetReader.build

  def slowly(*args, **options):
    time.sleep(0.3)
    return build(*args, **options)

  monkeypatch.setattr(DatasetReader, 'build', slowly)
  source = layouts.digiface(tmp_path / 'faces')
  assert (
    data(
      'prepare',
      'digiface',
      '--source',
      source,
      '--data-dir',
      tmp_path / 'data',
      '--image-size',
      '16',
    )
    == 0
  )
  said = capsys.readouterr().err.splitlines()
  assert said[0] == f'digiface: lists {source}'
  assert said[1] == f'digiface: lists {source}, for 0s'
  assert sum(line.endswith(', for 0s') for line in said) < 100


@pytest.mark.parametrize(
  'arguments,message',
  [
    (['nobody'], "no task 'nobody'"),
    (['waves', '--augment', 'flip@0.5'], 'flip'),
    (['waves', '--augment', 'twist'], 'twist'),
    (['waves', '--out', 'sheet.gif'], '.png'),
    (['waves', '--images', '0'], 'images'),
    (['waves', '--image-size', '0'], '--image-size'),
  ],
)
def test_sheets_that_cannot_be_drawn(tmp_path, monkeypatch, capsys, arguments, message):
  monkeypatch.chdir(tmp_path)
  store_tiny(tmp_path / 'data', 'waves', modality='waveform')
  assert data('preview', '--data-dir', tmp_path / 'data', *arguments) == 2
  error = capsys.readouterr().err
  assert error.startswith('painformer: ') and message in error and error.count('\n') == 1
  assert not list(tmp_path.glob('*.png')) and not list(tmp_path.glob('*.gif'))
