"""W&B: what it is told, over restarts; with a stand-in, and with the package where it is.

The stand-in records calls. The package writes offline, without a network.
"""

import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
import types

import pytest
from repository import environment
from training_runs import shared_folder, small_config

from painformer_jax.core.errors import InputError
from painformer_jax.training import loop, setup
from painformer_jax.training.config import from_config_dict
from painformer_jax.training.metrics import MetricsWriter, read_metrics
from painformer_jax.training.tracking import Tracker


class StandIn:
  """The module wandb, as far as it is used; every run there ever was."""

  def __init__(self):
    self.runs, self.fails = [], None
    self.Settings = types.SimpleNamespace
    self.errors = types.SimpleNamespace(Error=type('Error', (Exception,), {}))

  def init(self, **arguments):
    if self.fails:
      raise self.errors.Error(self.fails)
    run = StandInRun(arguments)
    self.runs.append(run)
    return run

  def rows(self, project):
    """What all runs of a project were told, in order."""
    return [row for run in self.runs if run.arguments['project'] == project for row in run.rows]


class StandInRun:
  offline = False
  url = 'https://example.org/run'

  def __init__(self, arguments):
    self.arguments, self.rows, self.axes, self.ended = arguments, [], [], None
    self.breaks = False

  def define_metric(self, name, **options):
    self.axes.append((name, options))

  def log(self, row):
    if self.breaks:
      raise ConnectionError('gone')
    self.rows.append(row)

  def finish(self, *, exit_code):
    self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
  module = StandIn()
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return module


def start(workdir, start_step=0, *, project='pain', evaluation_due=False):
  """The files and the mirror of a run that (re)starts."""
  writer = MetricsWriter(workdir, start_step=start_step, evaluation_due=evaluation_due)
  tracker = Tracker(project, workdir, config={'steps': 30}, sent=writer.found)
  writer.mirror(tracker)
  return writer, tracker


def test_a_run_is_told_and_ended(wandb, tmp_path, capfd):
  (tmp_path / 'my_run').mkdir()
  writer, tracker = start(tmp_path / 'my_run', project='team/pain')
  with tracker:
    writer.write(5, {'loss': 0.5})
    writer.write(5, {'eval/a/accuracy': 1.0})
  (run,) = wandb.runs
  record = json.loads((tmp_path / 'my_run/wandb.json').read_text())
  assert run.arguments['id'] == record['id'] and len(record['id']) == 8
  assert {
    k: run.arguments[k] for k in ('project', 'entity', 'resume', 'name', 'dir', 'config')
  } == {
    'project': 'pain',
    'entity': 'team',
    'resume': 'allow',
    'name': 'my_run',
    'dir': str(tmp_path / 'my_run'),
    'config': {'steps': 30},
  }
  assert run.axes == [('step', {}), ('*', {'step_metric': 'step'})]
  assert run.rows == [{'step': 5, 'loss': 0.5}, {'step': 5, 'eval/a/accuracy': 1.0}]
  assert run.ended == 0
  assert capfd.readouterr().err == (
    f'W&B run {record["id"]} of team/pain: https://example.org/run\n'
  )


def test_a_restart_continues_the_same_run_and_sends_nothing_twice(wandb, tmp_path):
  """Killed after step 15, with a checkpoint of step 10; again after 20; and once more."""
  for start_step, steps in ((0, (5, 10, 15)), (10, ()), (10, (15, 20)), (10, (15, 20, 25))):
    writer, _ = start(tmp_path, start_step)
    for step in steps:
      writer.write(step, {'loss': step / 8})
    writer.close()
  assert len({run.arguments['id'] for run in wandb.runs}) == 1
  assert [row['step'] for row in wandb.rows('pain')] == [5, 10, 15, 20, 25]
  assert [row['step'] for row in read_metrics(tmp_path)] == [5, 10, 15, 20, 25]


@pytest.mark.parametrize('evaluated', [False, True])
def test_an_evaluation_that_is_due_again(wandb, tmp_path, evaluated):
  """Killed before or after it: it is sent once."""
  writer, _ = start(tmp_path)
  writer.write(5, {'loss': 0.5})
  if evaluated:
    writer.write(5, {'eval/a/loss': 1.0})
  writer.close()
  writer, _ = start(tmp_path, 5, evaluation_due=True)
  writer.write(5, {'eval/a/loss': 1.0})
  writer.write(10, {'loss': 0.25})
  writer.close()
  assert wandb.rows('pain') == [
    {'step': 5, 'loss': 0.5},
    {'step': 5, 'eval/a/loss': 1.0},
    {'step': 10, 'loss': 0.25},
  ]


def test_another_project_gets_a_run_of_its_own(wandb, tmp_path):
  for project in ('pain', 'other', 'other'):
    writer, _ = start(tmp_path, project=project)
    writer.write(5, {'loss': 0.5})
    writer.close()
  assert [len(wandb.rows(p)) for p in ('pain', 'other')] == [1, 1]
  ids = [run.arguments['id'] for run in wandb.runs]
  assert ids[0] != ids[1] == ids[2]


def test_a_run_that_fails_is_marked(wandb, tmp_path):
  with pytest.raises(KeyboardInterrupt), start(tmp_path)[1]:
    raise KeyboardInterrupt
  assert wandb.runs[0].ended == 1


def test_when_it_takes_no_more_training_goes_on(wandb, tmp_path, capfd):
  writer, tracker = start(tmp_path)
  with tracker:
    wandb.runs[0].breaks = True
    for step in (5, 10):
      writer.write(step, {'loss': 0.5})
  assert capfd.readouterr().err.count('W&B takes no more figures (gone); training continues') == 1
  assert len(read_metrics(tmp_path)) == 2


def test_when_it_does_not_start(wandb, tmp_path):
  wandb.fails = 'api_key not configured'
  with pytest.raises(
    InputError,
    match=(r"^config.wandb is 'pain', but W&B does not start \(api_key not configured\): "),
  ):
    start(tmp_path)
  assert not (tmp_path / 'wandb.json').exists()


def test_without_the_package(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(InputError, match=r"pip install '.\[wandb\]'"):
    start(tmp_path)


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"project": "pain", "id": "a"}'])
def test_a_damaged_record(wandb, tmp_path, content):
  (tmp_path / 'wandb.json').write_text(content)
  with pytest.raises(InputError, match='wandb.json is damaged .*: remove it'):
    start(tmp_path)


# In a run.


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on(wandb, tmp_path_factory, tmp_path):
  """Each row of metrics.jsonl is there once, of two starts."""
  folder = shared_folder(tmp_path_factory)
  config = from_config_dict(small_config(folder / 'data', wandb='pain', log_every=1))

  def breaking(*args, **kwargs):
    step = real(*args, **kwargs)

    def call(state, batch):
      if int(state.step) == 5 and len(wandb.runs) == 1:
        raise OSError('the machine dies')
      return step(state, batch)

    return call

  with pytest.MonkeyPatch.context() as patch:
    real = setup.make_train_step
    patch.setattr(setup, 'make_train_step', breaking)
    with pytest.raises(OSError, match='the machine dies'):
      loop.pretrain(config, tmp_path / 'run')
    assert [row['step'] for row in wandb.runs[0].rows] == [1, 2, 3, 4, 5]
    loop.pretrain(config, tmp_path / 'run')
  assert [run.ended for run in wandb.runs] == [1, 0]
  assert wandb.runs[1].arguments['config']['steps'] == 6
  sent, kept = wandb.rows('pain'), read_metrics(tmp_path / 'run')
  assert [(row['step'], 'loss' in row) for row in sent] == [
    (row['step'], 'loss' in row) for row in kept
  ]
  assert [row.get('loss') for row in sent] == [row.get('loss') for row in kept]


# The package itself.


def train_offline(workdir, start_step, steps):
  writer, tracker = start(pathlib.Path(workdir), start_step)
  with tracker:
    for step in steps:
      writer.write(step, {'loss': step / 8})
    writer.write(step, {'eval/a/accuracy': 0.5})
  writer.close()


def records(file):
  """What W&B wrote: records in blocks of 32 KB, as LevelDB's logs are laid out."""
  from wandb.proto import wandb_internal_pb2

  content, position, parts = file.read_bytes(), 7, []
  while position < len(content):
    if 32768 - position % 32768 < 7:
      position += 32768 - position % 32768
      continue
    length, kind = struct.unpack_from('<HB', content, position + 4)
    parts.append(content[position + 7 : position + 7 + length])
    position += 7 + length
    if kind in (1, 4):  # Whole, or the last part.
      yield wandb_internal_pb2.Record.FromString(b''.join(parts))
      parts = []


@pytest.mark.skipif(not importlib.util.find_spec('wandb'), reason='wandb is not installed')
def test_the_package_offline(tmp_path):
  """Two starts of one run, the second from before the end of the first."""
  ids, steps, axes = set(), [], set()
  for start_step, some in ((0, (5, 10, 15)), (10, (15, 20))):
    call = (
      f'import test_tracking; test_tracking.train_offline({str(tmp_path)!r}, {start_step}, {some})'
    )
    done = subprocess.run(
      [sys.executable, '-c', call],
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
      env=environment(
        JAX_PLATFORMS='cpu', WANDB_MODE='offline', WANDB_BASE_URL='http://127.0.0.1:9'
      ),
    )
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
    assert f'written to {tmp_path}/wandb (offline)' in done.stderr
  files = sorted((tmp_path / 'wandb').glob('offline-run-*/run-*.wandb'))
  assert len(files) == 2
  for record in (record for file in files for record in records(file)):
    if record.HasField('run'):
      ids.add(record.run.run_id)
      assert record.run.project == 'pain'
    if record.HasField('metric'):
      axes.add((record.metric.name or record.metric.glob_name, record.metric.step_metric))
    if record.HasField('history'):
      row = {
        (item.key or '/'.join(item.nested_key)): json.loads(item.value_json)
        for item in record.history.item
      }
      steps.append((row['step'], row.get('loss'), row.get('eval/a/accuracy')))
  assert ids == {json.loads((tmp_path / 'wandb.json').read_text())['id']}
  assert steps == [
    (5, 0.625, None),
    (10, 1.25, None),
    (15, 1.875, None),
    (15, None, 0.5),
    (20, 2.5, None),
    (20, None, 0.5),
  ]
  assert ('*', 'step') in axes


@pytest.mark.skipif(not importlib.util.find_spec('wandb'), reason='wandb is not installed')
def test_the_package_without_a_login(tmp_path):
  call = f'import test_tracking, pathlib; test_tracking.start(pathlib.Path({str(tmp_path)!r}))'
  done = subprocess.run(
    [sys.executable, '-c', call],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    stdin=subprocess.DEVNULL,
    env={
      **environment(
        JAX_PLATFORMS='cpu',
        WANDB_MODE='online',
        HOME=str(tmp_path),
        WANDB_BASE_URL='http://127.0.0.1:9',
      ),
      'WANDB_API_KEY': '',
    },
  )
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith(
    "painformer_jax.core.errors.InputError: config.wandb is 'pain', but W&B does not start ("
  )
