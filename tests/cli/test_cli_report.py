"""`painformer report` on a run made by `painformer pretrain`."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from command_line import assert_refused, run_command
from PIL import Image
from repository import environment
from tiny_tasks import encode, store_tiny
from training_runs import SMALL_MODEL

from painformer_jax.checkpoints.read import read_record, restore_arrays
from painformer_jax.data.builders.base import store
from painformer_jax.data.prepared import open_task
from painformer_jax.data.task_source import Item, TaskSource
from painformer_jax.models import functional, registry
from painformer_jax.training.config import from_record
from painformer_jax.training.data import open_training_data
from painformer_jax.training.state import BACKBONE, group

SHAPE = SMALL_MODEL | {'image_size': 32}

CONFIG = f"""
from painformer_jax.training.config import defaults

def get_config():
  config = defaults('painformer_nano')
  config.model.update({SHAPE})
  config.data_dir = 'data'
  config.batch_size = 8
  config.tasks = dict(bright=dict(epochs=20), coin=dict())
  config.steps = 6
  config.log_every = 2
  config.optimizer.learning_rate = 1e-3
  config.eval_batch_size = 8
  return config
"""


def _coin_task(train=30, test=60) -> TaskSource:
  """Noise whose label nothing tells; a class of twice the other's size."""

  def items(start, stop):
    for i in range(start, stop):
      rng = np.random.default_rng([1, i])
      image = encode(rng.integers(0, 256, (32, 32, 3), np.uint8))
      yield Item(key=f'c{i}', label=int(rng.random() < 1 / 3), source=f'coin {i}', detail=image)

  return TaskSource(
    name='coin',
    classes=('heads', 'tails'),
    modality='noise',
    description='Heads or <tails>, from noise.',
    licence='CC0',
    splits={'train': list(items(0, train)), 'test': list(items(train, train + test))},
    read=lambda item: item.detail,
  )


def _painformer(*arguments, cwd, **variables):
  return subprocess.run(
    [sys.executable, '-m', 'painformer_jax', *map(str, arguments)],
    cwd=cwd,
    env=environment(JAX_PLATFORMS='cpu', **variables),
    capture_output=True,
    text=True,
    timeout=600,
  )


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with prepared tasks, a finished run, and what its report printed."""
  place = tmp_path_factory.mktemp('report')
  store_tiny(place / 'data', 'bright', train=30, test=15, classes=3, image_size=32)
  store(_coin_task(), place / 'data', progress=lambda line: None)
  (place / 'config.py').write_text(CONFIG)
  done = run_command('pretrain', '--config', 'config.py', '--workdir', 'run', cwd=place)
  assert done.returncode == 0, done.stderr
  shutil.copytree(place / 'run', place / 'bare')
  shutil.copy(place / 'run/report.json', place / 'trained.json')
  done = _painformer('report', 'run', cwd=place)
  assert done.returncode == 0, done.stderr
  (place / 'stdout').write_text(done.stdout)
  (place / 'stderr').write_text(done.stderr)
  return place


@pytest.fixture
def report(place):
  """Runs `painformer report` in this process."""
  return lambda *arguments: run_command('report', *arguments, cwd=place)


def _error(done) -> str:
  return assert_refused(done, alone=True)


def _read(path):
  return json.loads(path.read_text())


def test_a_record_gives_the_data_of_its_run(place, monkeypatch):
  """Whether the run's config named each task's batch size or divided a batch."""
  monkeypatch.chdir(place)
  record = _read(place / 'run/config.json')
  divided = open_training_data(from_record(record))
  named = open_training_data(from_record({**record, 'batch_size': 0}))
  assert divided.config.batch_sizes == {'bright': 4, 'coin': 4}
  assert [part.epochs for part in divided.mixture] == [20, 0]
  trained_on = read_record(place / 'run/checkpoints', 6)['position']['fingerprint']
  assert divided.fingerprint() == named.fingerprint() == trained_on


def test_the_page_in_the_terminal(place):
  text = (place / 'stdout').read_text()
  assert max(map(len, text.splitlines())) <= 100
  assert text.startswith('run: step 6 of 6\npainformer_nano, 32 x 32 pixels, 8,340')
  assert 'UNFINISHED' not in text
  assert re.search(r'^bright +30 \+ 15  Noise in 3 levels of brightness\.$', text, re.M)
  assert re.search(r'^At chance: coin \(', text, re.M)
  assert 'not an assessment of pain' in ' '.join(text.split())
  assert ' images/s on 1 x cpu' in text
  assert 'embeds 135 images of 2 tasks' in (place / 'stderr').read_text()


def test_report_json_keeps_the_training_and_adds_the_results(place):
  before, after = _read(place / 'trained.json'), _read(place / 'run/report.json')
  for key in ('environment', 'backbone_parameters', 'steps', 'images', 'model'):
    assert after[key] == before[key]
  assert after['train_seconds'] == pytest.approx(before['train_seconds'])
  for name, n_test in (('bright', 15), ('coin', 60)):
    task = after['tasks'][name]
    assert before['tasks'][name].items() <= task.items()
    assert task['head_accuracy'] == pytest.approx(before['tasks'][name]['test_accuracy'])
    assert task['n_test'] == n_test
    low, high = task['probe_interval']
    assert 0 <= low <= task['probe_accuracy'] <= high <= 1
    assert {'untrained_probe_accuracy', 'pixel_baseline_accuracy', 'chance'} <= task.keys()
  bright, coin = after['tasks']['bright'], after['tasks']['coin']
  assert bright['probe_accuracy'] > 0.8 and bright['pixel_baseline_accuracy'] == 1.0
  assert bright['chance'] == pytest.approx(1 / 3)
  assert (bright['probe_verdict'], coin['probe_verdict']) == ('above chance', 'at chance')
  assert (bright['unbalanced'], coin['unbalanced']) == (False, True)
  assert after['report']['finished'] is True
  assert after['report']['checkpoint_step'] == 6


def test_embeddings_are_those_of_the_checkpoint(place):
  config = registry.make_config('painformer_nano', **SHAPE)
  _, arrays = restore_arrays(place / 'run/checkpoints')
  backbone = {**group(arrays['params'], BACKBONE), **arrays['stats']}
  network = jax.jit(lambda images: functional.from_variables(config, backbone)(images))
  for task, split, row in (('bright', 'train', 7), ('coin', 'test', 59)):
    record = open_task(place / 'data', task).records(split)[row]
    with np.load(place / f'run/embeddings/{task}.npz') as file:
      (index,) = np.flatnonzero(file['key'] == record['key'])
      assert file['split'][index] == split
      assert file['label'][index] == record['label']
      found, untrained = file['embedding'], file['untrained']
    image = np.asarray(Image.open(io.BytesIO(record['image'])), np.float32) / 255
    image = (image - np.float32(config.mean)) / np.float32(config.std)
    expected = np.asarray(network(image[None]).embedding[0])
    assert found.dtype == np.float32 and found.shape[1] == config.embedding_width
    assert np.abs(found[index] - expected).max() < 1e-4
    assert np.abs(untrained[index] - expected).max() > 1e-2


def test_embeddings_hold_every_image_once(place):
  for task, train, test in (('bright', 30, 15), ('coin', 30, 60)):
    with np.load(place / f'run/embeddings/{task}.npz') as file:
      assert list(file['split']) == ['train'] * train + ['test'] * test
      assert len(set(file['key'])) == train + test
      assert file['grey'].shape == (train + test, 32, 32)


def test_the_html_page_holds_the_figures(place):
  text = (place / 'run/report.html').read_text()
  loads = re.findall(r'(?:src|href)="([^"]*)"', text)
  files = [base64.b64decode(load.removeprefix('data:image/png;base64,')) for load in loads]
  assert files == [(place / 'run' / name).read_bytes() for name in ('curves.png', 'embeddings.png')]
  assert 'Heads or &lt;tails&gt;, from noise.' in text
  for png in files:
    image = np.asarray(Image.open(io.BytesIO(png)).convert('L'))
    assert image.shape[1] > 800 and image.min() < 100 and image.std() > 5


def test_a_second_report_is_the_same_and_embeds_nothing(place, report):
  names = ('report.html', 'curves.png', 'embeddings.png')
  before = {name: (place / 'run' / name).read_bytes() for name in names}
  numbers = _read(place / 'run/report.json')
  times = [os.stat(place / f'run/embeddings/{t}.npz').st_mtime_ns for t in ('bright', 'coin')]
  done = report('run', '-o', 'other.html')
  assert done.returncode == 0
  assert 'uses the embeddings of step 6' in done.stderr
  assert times == [
    os.stat(place / f'run/embeddings/{t}.npz').st_mtime_ns for t in ('bright', 'coin')
  ]
  assert (place / 'run/report.html').read_bytes() == before['report.html']
  for name in names[1:]:
    assert (place / 'run' / name).read_bytes() == before[name]
  assert _read(place / 'run/report.json')['tasks'] == numbers['tasks']

  def without_times(page):
    return re.sub(r'<p class="note">Embeddings:.*?</p>', '', page)

  assert without_times((place / 'other.html').read_text()) == without_times(
    before['report.html'].decode()
  )


def test_an_unfinished_run_and_damaged_embeddings(place, report):
  """As after a kill: the checkpoint is not that of the last step."""
  shutil.copytree(place / 'run', place / 'part')
  (place / 'part/report.json').unlink()
  config = _read(place / 'part/config.json') | {'steps': 60}
  (place / 'part/config.json').write_text(json.dumps(config))
  shutil.copytree(place / 'part/checkpoints/6', place / 'part/checkpoints/9.orbax-checkpoint-tmp-1')
  # One task's file is cut short, the other's is of another checkpoint.
  file = place / 'part/embeddings/bright.npz'
  file.write_bytes(file.read_bytes()[:-100])
  with np.load(place / 'part/embeddings/coin.npz') as npz:
    arrays = dict(npz) | {'origin': np.array('other'), 'embedding': npz['embedding'] + 1}
  np.savez(place / 'part/embeddings/coin.npz', **arrays)
  done = report('part')
  assert done.returncode == 0, done.stderr
  assert 'embeds 135 images of 2 tasks' in done.stderr
  assert 'UNFINISHED: 54 steps are to come' in done.stdout
  assert 'UNFINISHED: 54 steps are to come' in (place / 'part/report.html').read_text()
  for task in ('bright', 'coin'):
    with (
      np.load(place / f'run/embeddings/{task}.npz') as whole,
      np.load(place / f'part/embeddings/{task}.npz') as again,
    ):
      np.testing.assert_array_equal(whole['embedding'], again['embedding'])
  found, whole = _read(place / 'part/report.json'), _read(place / 'run/report.json')
  assert found['report']['finished'] is False
  assert found['images'] == whole['images']
  assert found['tasks']['coin']['probe_accuracy'] == whole['tasks']['coin']['probe_accuracy']
  assert not list((place / 'part').rglob('*.partial'))


def test_not_a_run(report):
  assert 'is not the folder of a run' in _error(report('data'))
  assert 'is not the folder of a run' in _error(report('nowhere'))


def test_no_checkpoint_yet(place, report):
  shutil.copytree(place / 'bare', place / 'early')
  shutil.rmtree(place / 'early/checkpoints/6')
  assert 'holds no finished checkpoint yet' in _error(report('early'))


def test_damaged_files(place, report):
  shutil.copytree(place / 'bare', place / 'damaged')
  config = (place / 'damaged/config.json').read_text()
  for content in (config[:100], '[]', '{}', '{"model": 3}'):
    (place / 'damaged/config.json').write_text(content)
    assert 'config.json is damaged' in _error(report('damaged'))
  other = json.loads(config)
  other['model']['stem_width'] = 16
  (place / 'damaged/config.json').write_text(json.dumps(other))
  assert 'does not have the arrays' in _error(report('damaged'))
  (place / 'damaged/config.json').write_text(config)
  for content in ('{', '[]', '3', 'null'):
    (place / 'damaged/report.json').write_text(content)
    assert 'report.json is damaged' in _error(report('damaged'))


def test_data_gone_or_changed(place, report):
  assert '--data-dir' in _error(report('bare', '--data-dir', 'nowhere'))
  shutil.copytree(place / 'data', place / 'fewer')
  shutil.rmtree(place / 'fewer/coin')
  assert "no task 'coin'" in _error(report('bare', '--data-dir', 'fewer'))
  store_tiny(place / 'fewer', 'coin', train=8, test=8, classes=2)
  line = _error(report('bare', '--data-dir', 'fewer'))
  assert 'is not that which bare was trained on' in line
  assert not (place / 'bare/embeddings').exists()


def test_moved_data_is_found(place, report):
  shutil.copytree(place / 'data', place / 'moved')
  done = report('run', '--data-dir', 'moved', '-o', 'moved.html')
  assert done.returncode == 0 and 'uses the embeddings' in done.stderr


@pytest.mark.parametrize('package', ['sklearn', 'matplotlib', 'jinja2'])
def test_missing_extra(package, report, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  error = _error(report('bare'))
  assert error.endswith("pip install '.[demo]' in the clone of painformer_jax")


def test_page_that_cannot_be_written(place, report):
  assert 'no/such' in _error(report('bare', '-o', 'no/such/page.html'))
  assert 'is a folder' in _error(report('bare', '-o', 'data'))
  assert not (place / 'bare/embeddings').exists()


def test_help_shows_an_example(painformer):
  done = painformer('report', '--help')
  assert done.returncode == 0
  assert 'painformer report runs/demo' in done.stdout
