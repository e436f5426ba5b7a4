"""`painformer pretrain`: what it refuses, what stops it, what it leaves behind."""

import json
import re
import resource
import shutil
import subprocess

import jax
import numpy as np
import pytest
from command_line import assert_refused, finished_command
from tiny_tasks import store_tiny
from training_runs import (
  QUICK_COMPILE,
  SMALL_OVERRIDES,
  TASKS,
  CommandLine,
  rows,
  shared_folder,
  small_config,
)

from painformer_jax.checkpoints import read as checkpoints
from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.training import loop, setup
from painformer_jax.training.config import from_config_dict
from painformer_jax.training.metrics import NonFiniteLoss, read_metrics


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return shared_folder(tmp_path_factory)


@pytest.fixture
def data(folder):
  return folder / 'data'


@pytest.fixture
def refused(folder, capfd, tmp_path):
  """Runs the command in this process; returns the one line of its refusal."""

  def call(*arguments, workdir=tmp_path / 'run', config='configs/tiny.py:alpha,beta'):
    line = CommandLine(folder=folder).arguments(workdir, *map(str, arguments))[3:]
    line[line.index('--config') + 1] = str(config)
    try:
      status = main(line)
    except SystemExit as error:
      status = error.code
    out, err = capfd.readouterr()
    assert status == 2 and out == '', err
    assert err.startswith('painformer: ') and err.count('\n') == 1, err
    assert not (workdir / 'metrics.jsonl').exists()
    return err.removeprefix('painformer: ').rstrip('\n')

  return call


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, request):
  monkeypatch.chdir(request.config.rootpath)


# Usage.


def test_help_has_an_example(capsys):
  with pytest.raises(SystemExit) as stop:
    main(['pretrain', '--help'])
  text = capsys.readouterr().out
  assert stop.value.code == 0
  assert 'example:\n  painformer pretrain --config configs/' in text
  for option in ('--config FILE', '--workdir DIR', '--config.KEY=VALUE', '--distributed'):
    assert option in text
  example = re.search(r'painformer (pretrain .*)', text.split('example:')[1])[1].split()
  assert '--workdir' in example and example[example.index('--config') + 1] == 'configs/demo.py'


@pytest.mark.parametrize(
  'arguments,message',
  [
    ([], 'required: --config, --workdir'),
    (['--config', 'configs/tiny.py'], 'required: --workdir'),
    (['--config'], 'expected one argument'),
  ],
)
def test_usage(arguments, message, capsys):
  with pytest.raises(SystemExit) as stop:
    main(['pretrain', *arguments])
  assert stop.value.code == 2
  line = capsys.readouterr().err
  assert line.startswith('painformer: ') and message in line
  assert line.endswith('(see: painformer pretrain --help)\n') and line.count('\n') == 1


@pytest.mark.parametrize(
  'argument,message',
  [
    ('--nonsense', "unknown argument '--nonsense': overrides are --config.KEY=VALUE"),
    ('--steps=3', "unknown argument '--steps=3': overrides are --config.KEY=VALUE"),
    ('extra', "unknown argument 'extra'"),
    ('--config.steps', "unknown argument '--config.steps': overrides are --config.KEY=VALUE"),
    (
      '--config.steps=abc',
      "--config.steps=abc: ValueError: invalid literal for int() with base 10: 'abc'",
    ),
    (
      '--config.stepz=3',
      '--config.stepz=3: configs/tiny.py:alpha,beta has no config.stepz; did you mean steps?',
    ),
    ('--config.optimizer.learning_rat=3', 'config.optimizer.learning_rat'),
    (
      '--config.tasks.gamma.batch_size=3',
      'configs/tiny.py:alpha,beta has no config.tasks.gamma.batch_size',
    ),
    ('--config.steps=-5', 'config.steps is -5, below 1'),
    ('--config.model.gate=ftt', "config.model.gate is 'ftt'; did you mean fft?"),
    (
      '--config.tasks.alpha.augment=fce',
      "config.tasks.alpha.augment: no augmentation 'fce'; did you mean face?",
    ),
    ('--config.data_dir=nowhere', 'there is no data folder nowhere; `painformer data prepare'),
    ('--config.initial_weights=nowhere.pth', 'nowhere.pth'),
  ],
)
def test_bad_arguments(refused, argument, message):
  assert message in refused(argument)


def test_no_other_processes(painformer, folder, tmp_path):
  """In a process of its own, since JAX looks for the others only before it starts."""
  command = CommandLine(folder=folder).arguments(tmp_path / 'run', '--distributed')[3:]
  assert_refused(painformer(*command), '--distributed: the processes do not find each other')


CONFIGS = {
  'syntax.py': ('def get_config(:\n  pass\n', 'SyntaxError: invalid syntax'),
  'raises.py': ('def get_config():\n  return 1 / 0\n', 'ZeroDivisionError: division by zero'),
  'imports.py': ('import not_a_module\n', "No module named 'not_a_module'"),
  'exits.py': ('import sys\nsys.exit(3)\n', 'SystemExit: 3'),
  'empty.py': ('', "the file has no attribute 'get_config'"),
  'number.py': ('def get_config():\n  return 5\n', 'get_config() must return a ConfigDict'),
  'nothing.py': ('def get_config():\n  pass\n', 'get_config() must return a ConfigDict'),
}


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('overrides', [[], ['--config.steps=3']])
def test_bad_config_files(refused, tmp_path, name, overrides):
  content, message = CONFIGS[name]
  (tmp_path / name).write_text(content)
  line = refused(*overrides, config=tmp_path / name)
  assert str(tmp_path / name) in line and message in line


def test_a_typo_in_a_config_file(refused, tmp_path):
  (tmp_path / 'typo.py').write_text(
    'from configs.tiny import get_config as tiny\ndef get_config():\n'
    '  config = tiny()\n  config.optimizer.learning_rat = 1\n  return config\n'
  )
  assert "'learning_rat'" in refused(config=tmp_path / 'typo.py')


def test_a_config_file_that_is_not_there(refused, tmp_path):
  assert refused(config='configs/nope.py') == 'there is no config file configs/nope.py'
  assert 'there is no config file' in refused(config=tmp_path)


def test_a_task_that_is_not_there(refused):
  line = refused(config='configs/tiny.py:alpha,gamma')
  assert "no task 'gamma' in " in line and '(there: alpha, beta)' in line


def test_a_task_without_held_out_images(refused, tmp_path):
  """Known before training, not after."""
  store_tiny(tmp_path / 'data', 'alpha', test=0)
  line = refused(f'--config.data_dir={tmp_path / "data"}', config='configs/tiny.py:alpha')
  assert "task 'alpha' in " in line and "has no split 'test', only train" in line


def test_rows_that_do_not_split_over_the_devices(folder, tmp_path, on_devices):
  command = CommandLine(folder=folder, overrides={'tasks.alpha.batch_size': 12})
  found = on_devices(8, finished_command, arguments=command.arguments(tmp_path / 'run')[3:])
  done = subprocess.CompletedProcess(*found)
  assert_refused(done, 'alpha', '12', '8 devices', 'config.tasks.alpha.batch_size')
  assert not (tmp_path / 'run').exists()


def test_workdirs(refused, tmp_path):
  (tmp_path / 'thesis').mkdir()
  (tmp_path / 'thesis' / 'chapter.tex').write_text('')
  assert 'is not empty and holds no run' in refused(workdir=tmp_path / 'thesis')
  assert 'Not a directory' in refused(workdir=tmp_path / 'thesis' / 'chapter.tex')
  assert 'chapter.tex/run' in refused(workdir=tmp_path / 'thesis' / 'chapter.tex' / 'run')


def test_traceback_on_request(folder, tmp_path, capfd):
  line = CommandLine(folder=folder).arguments(tmp_path, '--config.data_dir=nowhere')[3:]
  assert main([*line, '--traceback']) == 2
  error = capfd.readouterr().err
  assert 'Traceback (most recent call last):' in error and 'in open_task' in error
  assert error.splitlines()[-1].startswith('painformer: there is no data folder nowhere')


# Runs of the small model in this process.


@pytest.fixture(scope='module')
def finished(folder, tmp_path_factory):
  """A run of six steps with checkpoints of steps 3 and 6."""
  workdir = tmp_path_factory.mktemp('finished')
  report = loop.pretrain(from_config_dict(small_config(folder / 'data')), workdir)
  return workdir, report


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of that run."""
  return shutil.copytree(finished[0], tmp_path / 'run')


def again(workdir, data, **changes):
  return loop.pretrain(from_config_dict(small_config(data, **changes)), workdir)


def test_a_run_and_its_report(finished, data):
  workdir, report = finished
  assert {p.name for p in workdir.iterdir()} == {
    'config.json',
    'checkpoints',
    'metrics.jsonl',
    'tensorboard',
    'report.json',
    'parameters.txt',
  }
  assert sorted(p.name for p in (workdir / 'checkpoints').iterdir()) == ['3', '6']
  assert [row['step'] for row in read_metrics(workdir) if 'loss' in row] == [2, 4, 6]
  assert report['steps'] == 6 and report['images'] == 6 * 16
  last, evaluated = rows(workdir)[-2:]
  for name, classes in TASKS.items():
    assert report['tasks'][name] == {
      'classes': classes,
      'modality': 'noise',
      'train_images': 24,
      'test_images': 7,
      'train_loss': last[f'task/{name}/loss'],
      'train_accuracy': last[f'task/{name}/accuracy'],
      'test_accuracy': evaluated[f'eval/{name}/accuracy'],
    }
  assert report['environment']['jax'] == jax.__version__


def test_a_finished_run_started_again_changes_nothing(workdir, data, capfd):
  names = ('report.json', 'metrics.jsonl', 'config.json')
  before = [(workdir / name).read_text() for name in names]
  assert again(workdir, data) == json.loads(before[0])
  assert [(workdir / name).read_text() for name in names] == before
  lines = capfd.readouterr().err.splitlines()
  assert lines[0] == f'resumes from step 6 of {workdir}' and len(lines) == 3
  assert lines[-1].startswith('finished at step 6: ')


def test_fields_that_may_change_may(workdir, data, tmp_path):
  moved = shutil.copytree(data, tmp_path / 'moved')
  again(
    workdir,
    moved,
    log_every=1,
    eval_every=2,
    checkpoint_every=1,
    keep_checkpoints=5,
    threads=1,
    eval_batch_size=3,
  )
  with pytest.raises(InputError, match=r'another configuration \(steps: 6 -> 7\)'):
    again(workdir, data, steps=7)


def test_changed_data_is_refused(workdir, tmp_path):
  store_tiny(tmp_path / 'data', 'alpha', train=24, test=7, classes=3, image_size=32)
  store_tiny(tmp_path / 'data', 'beta', train=25, test=7, classes=2, image_size=32)
  with pytest.raises(InputError) as error:
    again(workdir, tmp_path / 'data')
  assert str(error.value) == (
    f'the prepared data in {tmp_path}/data changed since {workdir} was started: restore it, '
    'or take another --workdir'
  )


def test_a_damaged_checkpoint_and_going_on_from_the_one_before(workdir, data, capfd):
  """A warning and no page of errors; the figures come out as they were."""
  expected = rows(workdir)
  for file in (workdir / 'checkpoints' / '6' / 'state').rglob('*'):
    if file.is_file() and file.stat().st_size > 10_000:
      file.write_bytes(file.read_bytes()[:-5000])
  again(workdir, data)
  warning, goes_on, *others = capfd.readouterr().err.splitlines()
  assert warning.startswith(f'warning: checkpoint {workdir}/checkpoints/6 is damaged (')
  assert warning.endswith(': it is renamed damaged-6, and the run resumes from step 3')
  assert goes_on == f'resumes from step 3 of {workdir}'
  assert not any(word in line for line in others for word in ('Traceback', 'orbax', 'is damaged'))
  assert rows(workdir) == expected
  assert {p.name for p in (workdir / 'checkpoints').iterdir()} == {'3', '6', 'damaged-6'}


def test_a_damaged_image_is_named(data, tmp_path, monkeypatch):
  def damaged(*args, **kwargs):
    raise ValueError('the image is cut off')

  monkeypatch.setattr('painformer_jax.data.mixture.decode_rgb', damaged)
  with pytest.raises(InputError, match="example '.*': the image is cut off"):
    again(tmp_path / 'run', data)


# What is not finite.


def assert_finite_checkpoints(workdir):
  """Each is whole; returns their steps."""
  steps = sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())
  for step in steps[::-1]:
    found, arrays = checkpoints.restore_arrays(workdir / 'checkpoints')
    assert found == step
    for group in arrays.values():
      assert all(np.isfinite(array).all() for array in group.values())
    shutil.rmtree(workdir / 'checkpoints' / str(step))
  return steps


@pytest.mark.slow
def test_an_absurd_learning_rate(folder, tmp_path):
  """Through the command line: one line, and what was saved before stays good."""
  command = CommandLine(folder=folder, flags=QUICK_COMPILE, overrides=SMALL_OVERRIDES)
  workdir = tmp_path / 'run'
  done = command.run(
    workdir,
    '--config.steps=40',
    '--config.log_every=10',
    '--config.checkpoint_every=2',
    '--config.optimizer.learning_rate=1e7',
    '--config.optimizer.warmup_steps=30',
  )
  line = assert_refused(done)
  found = re.fullmatch(
    r'painformer: the loss of step (\d+) is (not finite \(tasks: (.*)\)|finite, but not its '
    r'.*); the last good state is the (checkpoint of step (\d+)|start \(no checkpoint yet\)) '
    rf'in {workdir}: lower config.optimizer.learning_rate, with another --workdir',
    line,
  )
  assert found, line
  step, tasks, good = int(found[1]), found[3], found[5]
  assert good is not None and int(good) == (step - 1) // 2 * 2
  assert tasks is None or set(tasks.split(', ')) <= set(TASKS)
  assert all(row['step'] < step for row in read_metrics(workdir))
  assert assert_finite_checkpoints(workdir)[-1] == int(good)


@pytest.mark.parametrize(
  'name,message',
  [
    ('task/beta/loss', r'the loss of step 5 is not finite \(tasks: beta\)'),
    ('gradient_norm', 'the loss of step 5 is finite, but not its gradient_norm'),
  ],
)
def test_nothing_is_saved_after_a_figure_that_is_not_finite(
  name, message, data, tmp_path, monkeypatch
):
  """Not even where the step is not logged."""
  make = setup.make_train_step

  def broken(*args, **kwargs):
    step = make(*args, **kwargs)

    def call(state, batch):
      number = int(jax.device_get(state.step)) + 1
      state, metrics = step(state, batch)
      if number == 5:
        with jax.transfer_guard('allow'):
          metrics[name] = metrics[name].replace(total=metrics[name].total * np.nan)
      return state, metrics

    return call

  monkeypatch.setattr(setup, 'make_train_step', broken)
  with pytest.raises(
    NonFiniteLoss, match=(f'^{message}; the last good state is the checkpoint of step 3 in')
  ):
    again(tmp_path / 'run', data, log_every=100)
  assert assert_finite_checkpoints(tmp_path / 'run') == [3]


def test_nothing_is_moved_to_the_devices_within_a_step(data, tmp_path, monkeypatch):
  """A batch that was left on the host would be moved at each step, and nobody told."""
  monkeypatch.setattr(loop, 'put_batch', lambda mesh, batch: batch)
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    again(tmp_path / 'run', data)


# A full disk.


def test_a_full_disk(finished, data, tmp_path, capfd):
  """Checkpoints do not fit: one line; with room, the run goes on."""
  workdir = tmp_path / 'run'
  # Well below the largest file of a checkpoint, whose size depends on the values.
  size = max(p.stat().st_size for p in (finished[0] / 'checkpoints').rglob('*'))
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, limits[1]))
  try:
    with pytest.raises(InputError) as error:
      again(workdir, data)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert f'{workdir}/checkpoints: File too large' in str(error.value)
  printed = capfd.readouterr().err
  assert not any(word in printed for word in ('Traceback', 'orbax', 'asyncio'))
  assert checkpoints.latest_step(workdir / 'checkpoints') is None
  again(workdir, data)
  assert checkpoints.latest_step(workdir / 'checkpoints') == 6
  assert rows(workdir) == rows(finished[0])
