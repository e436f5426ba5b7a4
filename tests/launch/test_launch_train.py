"""launch/train.sh: what is started again, what is not, and which signals arrive."""

import os
import signal
import subprocess
import sys
import time

import pytest
from launch_standins import bash, make_venv, real_python, script, standin_environment
from repository import ROOT
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, rows, shared_folder

from painformer_jax.checkpoints import store

COUNT = """
printf x >>"$STARTS"
n=$(wc -c <"$STARTS")
"""


@pytest.fixture
def starts(tmp_path):
  """How often the training was started."""
  file = tmp_path / 'starts'
  file.touch()
  return lambda: file.stat().st_size


@pytest.fixture
def env(tmp_path):
  """For the script; `env(does=..., KIND=...)` with what the training does."""

  def make(does, *, extra='demo', **changes):
    venv = make_venv(tmp_path / 'venv', extra, does=COUNT + does)
    return standin_environment(
      tmp_path,
      VENV=str(venv),
      STARTS=str(tmp_path / 'starts'),
      **{'KIND': 'cpu', 'PAUSE': '0', **changes},
    )

  return make


def test_arguments_and_settings_arrive(env, tmp_path):
  done = bash(
    'train.sh',
    '--config',
    'a b.py',
    '--workdir=x',
    env=env(
      'printf "%s|" "$@" "$JAX_PLATFORMS" "$XLA_PYTHON_CLIENT_MEM_FRACTION"',
      extra='cuda',
      KIND='gpu',
    ),
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == ('-m|painformer_jax|pretrain|--config|a b.py|--workdir=x|cuda|0.9|')


@pytest.mark.parametrize('there,extra,platforms', [(True, 'cuda', 'cuda'), (False, 'demo', 'cpu')])
def test_what_there_is_to_train_on(env, tmp_path, there, extra, platforms):
  script(tmp_path / 'bin/nvidia-smi', f'#!/bin/sh\nexit {0 if there else 9}\n')
  done = bash('train.sh', '--config=c', env=env('echo "$JAX_PLATFORMS"', extra=extra, KIND=''))
  assert done.stdout == f'{platforms}\n', done.stderr


@pytest.mark.parametrize('status', [0, 2, 130])
def test_what_ended_is_not_started_again(env, starts, status):
  done = bash('train.sh', '--config=c', env=env(f'exit {status}'))
  assert done.returncode == status and starts() == 1


@pytest.mark.parametrize('status', [0, 2, 130, 1])
def test_the_exit_status_is_written_down(env, tmp_path, status):
  """For who comes later, as `launch/tpu_vm.sh run` does; of the last start."""
  done = bash(
    'train.sh',
    '--config=c',
    env=env(f'[ ! -e "$STATUS" ] && exit {status}', RESTARTS='1', STATUS=str(tmp_path / 'end')),
  )
  assert done.returncode == status and (tmp_path / 'end').read_text() == f'{status}\n'


def test_the_exit_status_of_a_refusal_is_written_down(env, tmp_path):
  done = bash('train.sh', '--config=c', env=env('', KIND='abacus', STATUS=str(tmp_path / 'end')))
  assert done.returncode == 2 and (tmp_path / 'end').read_text() == '2\n'


def test_a_kill_leaves_no_exit_status(env, tmp_path):
  done = bash('train.sh', '--config=c', env=env('kill -9 $PPID', STATUS=str(tmp_path / 'end')))
  assert done.returncode == -9 and not (tmp_path / 'end').exists()


def test_what_died_is_started_again(env, starts):
  done = bash('train.sh', '--config=c', env=env('[ $n -gt 2 ] || kill -9 $$'))
  assert done.returncode == 0 and starts() == 3
  lines = [line for line in done.stderr.splitlines() if line.startswith('train.sh: ')]
  assert lines == ['train.sh: died with exit status 137; starts again in 0 s'] * 2


def test_not_for_ever(env, starts):
  done = bash('train.sh', '--config=c', env=env('exit 1', RESTARTS='2'))
  assert done.returncode == 1 and starts() == 3
  assert done.stderr.splitlines()[-1] == ('train.sh: died 3 times, the last with exit status 1')


def test_an_unknown_kind(env):
  done = bash('train.sh', '--config=c', env=env('', KIND='abacus'))
  assert done.returncode == 2 and 'KIND=abacus is none of cpu, gpu, tpu' in done.stderr


# A child that says what it hears, and ends as the training does.
HEARS = """
trap 'echo TERM; echo saved; exit 130' TERM
trap 'echo USR1' USR1
echo ready
while :; do sleep 0.05; done
"""

# A shell that is started with SIGINT ignored, as in a background job, cannot trap it.
HEEDS_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_arrives_once_and_what_it_leads_to_is_waited_for(env, starts, number):
  process = subprocess.Popen(
    [sys.executable, '-c', HEEDS_SIGINT, 'bash', ROOT / 'launch/train.sh', '--config=c'],
    env=env(HEARS),
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  try:
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == 'USR1\n'
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
  finally:
    process.kill()
  assert rest == 'TERM\nsaved\n' and process.returncode == 130 and starts() == 1


def test_stopped_while_it_waits_to_start_again(env, starts):
  process = subprocess.Popen(
    ['bash', ROOT / 'launch/train.sh', '--config=c'],
    env=env('exit 1', PAUSE='600'),
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    for line in process.stderr:
      if 'starts again in 600 s' in line:
        break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1 and starts() == 1
  finally:
    process.kill()


@pytest.mark.slow
def test_a_real_run_that_is_killed(tmp_path, tmp_path_factory):
  """It is started again by itself, and ends as if nothing had been."""
  folder = shared_folder(tmp_path_factory)
  command = CommandLine(
    folder=folder,
    overrides=SMALL_OVERRIDES
    | {'steps': 60, 'log_every': 5, 'checkpoint_every': 10, 'eval_every': 100},
  )
  workdir = tmp_path / 'run'
  venv = make_venv(tmp_path / 'venv', 'demo', does=f'echo $$ >{tmp_path}/number\n{real_python()}')
  train = subprocess.Popen(
    ['bash', ROOT / 'launch/train.sh', *command.arguments(workdir)[4:]],
    env=standin_environment(
      tmp_path,
      VENV=str(venv),
      KIND='cpu',
      PAUSE='0',
      XLA_FLAGS=QUICK_COMPILE,
      JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
    ),
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    while train.poll() is None and not store.latest_step(workdir / 'checkpoints'):
      time.sleep(0.02)
    os.kill(int((tmp_path / 'number').read_text()), signal.SIGKILL)
    _, messages = train.communicate(timeout=300)
  finally:
    train.kill()
  assert train.returncode == 0, messages
  assert 'train.sh: died with exit status 137; starts again in 0 s' in messages
  assert 'resumes from step ' in messages and 'finished at step 60' in messages
  assert [row['step'] for row in rows(workdir) if 'loss' in row] == list(range(5, 61, 5))
