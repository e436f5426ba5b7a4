"""SIGINT and SIGTERM at any moment of a command: one line, 130 or 143, nothing half-written."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from assess_runs import small
from command_line import run_command
from nano_weights import stored
from repository import ROOT, environment
from test_readers_folder import photos
from tiny_tasks import store_tiny
from training_runs import SMALL_OVERRIDES

from painformer_jax.core.files import is_partial

__all__ = ['small', 'stored']

# For each command, at random moments of its run.
TRIALS = int(os.environ.get('TRIALS', '50'))
BEGIN = (
  'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
  'from painformer_jax.cli.main import main; sys.exit(main())'
)


@pytest.fixture
def command(stored, small, tmp_path):
  """Arguments of each command, by its name; each call makes what it reads."""

  def embed():
    rng = np.random.default_rng(0)
    np.save(tmp_path / 'ecg.npy', rng.standard_normal(512 * 60))
    options = ['--modality', 'ecg', '--rate', '512', '--window', '5.5', '--weights', stored]
    return ['embed', tmp_path / 'ecg.npy', *options, '--out', tmp_path / 'out.npz']

  def convert():
    source = tmp_path / 'w.pth'
    if not source.exists():
      assert run_command('export', stored, source).returncode == 0
    return ['convert', source, tmp_path / 'weights', '--report', tmp_path / 'report.json']

  def assess():
    return ['assess', '--config', small / 'config.py', '--workdir', tmp_path / 'work']

  def prepare():
    if not (tmp_path / 'pets').exists():
      photos(tmp_path / 'pets', count=200)
    options = ['--name', 'pets', '--data-dir', tmp_path / 'prepared', '--image-size', '64']
    return ['data', 'prepare', 'folder', '--source', tmp_path / 'pets', *options]

  def pretrain():
    if not (tmp_path / 'data').exists():
      store_tiny(tmp_path / 'data')
    overrides = {**SMALL_OVERRIDES, 'data_dir': str(tmp_path / 'data'), 'steps': '40'}
    return [
      *('pretrain', '--config', f'{ROOT}/configs/tiny.py:tiny', '--workdir', tmp_path / 'run'),
      *(f'--config.{name}={value}' for name, value in overrides.items()),
    ]

  made = dict(embed=embed, convert=convert, assess=assess, prepare=prepare, pretrain=pretrain)
  return lambda name: list(map(str, made[name]()))


def run_and_signal(arguments, after, number):
  """Exit status and standard error, where a signal comes after so many seconds."""
  with subprocess.Popen(
    [sys.executable, '-c', BEGIN, *arguments],
    env=environment(JAX_PLATFORMS='cpu'),
    text=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
  ) as process:
    while not catches(process.pid, signal.SIGTERM):  # As long as Python itself starts.
      time.sleep(0.01)
    time.sleep(after)
    process.send_signal(number)
    try:
      _, error = process.communicate(timeout=120)
    finally:
      process.kill()
  return process.returncode, error


def catches(pid, number):
  """Whether a process has a handler of a signal."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  mask = next(line for line in status.splitlines() if line.startswith('SigCgt'))
  return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def assert_stopped(status, error, number, folder):
  lines = error.splitlines()
  assert 'Traceback' not in error and 'Fatal' not in error, error[-3000:]
  if status:  # Else it was done before the signal.
    assert status in ((130,) if number == signal.SIGINT else (130, 143)), (status, error[-3000:])
    assert lines[-1] in ('painformer: interrupted', 'painformer: stopped')
    assert sum(line.startswith('painformer: ') for line in lines) == 1
  left = [p for p in folder.rglob('*') if is_partial(p) or p.name.endswith('.tmp')]
  assert not left, left
  return bool(status)


@pytest.mark.skipif(sys.platform != 'linux', reason='asks /proc')
@pytest.mark.parametrize('name', ['embed', 'convert'])
def test_early(command, tmp_path, name):
  status, error = run_and_signal(command(name), 0.3, signal.SIGINT)
  assert status, error
  assert_stopped(status, error, signal.SIGINT, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['embed', 'convert', 'assess', 'prepare', 'pretrain'])
def test_at_random_moments(command, tmp_path, name):
  arguments, draw = command(name), random.Random(0)
  start = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', BEGIN, *arguments],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  lasts = time.monotonic() - start
  stopped = 0
  for trial in range(TRIALS):
    number = (signal.SIGINT, signal.SIGTERM)[trial % 2]
    # What a run is resumed from stays: each trial has a folder of its own.
    own = tmp_path / f'trial-{trial}'
    own.mkdir()
    moved = [a.replace(f'{tmp_path}/', f'{own}/') if is_result(a) else a for a in arguments]
    status, error = run_and_signal(moved, draw.uniform(0, lasts), number)
    stopped += assert_stopped(status, error, number, own)
  assert stopped > TRIALS // 2


def is_result(argument: str) -> bool:
  results = ('out.npz', 'weights', 'report.json', 'work', 'prepared', 'run')
  return argument.endswith(tuple(f'/{name}' for name in results))
