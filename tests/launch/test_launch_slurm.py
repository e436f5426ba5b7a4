"""launch/slurm.sh, with a stand-in `srun` that starts real processes as Slurm does."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest
from launch_standins import bash, make_venv, python_script, real_python, script, standin_environment
from repository import ROOT
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, shared_folder

from painformer_jax.checkpoints import store
from painformer_jax.training.metrics import read_metrics

# Starts as many processes as Slurm was asked for, tells them what Slurm tells them, and
# kills the others as soon as one fails. It ends with their highest exit status, without
# those that it killed. Their numbers go into a file.
SRUN = """
import os, signal, subprocess, sys
options = [a for a in sys.argv[1:] if a.startswith('--')][:1]
assert options == ['--kill-on-bad-exit=1'], sys.argv
command, count = sys.argv[2:], int(os.environ['SLURM_NTASKS'])
tasks = [subprocess.Popen(command, env=os.environ | {
    'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_NUM_NODES': '1', 'SLURM_PROCID': str(i),
    'SLURM_LOCALID': str(i)}) for i in range(count)]
with open(os.environ['TASKS'], 'w') as file:
  print(*(task.pid for task in tasks), file=file)
running, killed, status = {task.pid for task in tasks}, set(), 0
while running:
  number, ended = os.wait()
  running.remove(number)
  code = os.waitstatus_to_exitcode(ended)
  if code >= 0 or number not in killed:
    status = max(status, code if code >= 0 else 128 - code)
  if status and not killed:
    killed = set(running)
    for number in killed:
      os.kill(number, signal.SIGKILL)
sys.exit(status)
"""

SCONTROL = '#!/bin/sh\necho "$@" >>"$REQUEUED"\n'


def job_number() -> str:
  """Such that the port that JAX takes from it (of 61,440 to 65,535) is free."""
  for number in range(4096):
    with socket.socket() as probe:
      if probe.connect_ex(('127.0.0.1', 61440 + number)):
        return str(8192 + number)
  raise AssertionError('no port is free')


@pytest.fixture
def job(tmp_path):
  """The environment of a job; `job(does=..., restarts=...)`."""
  python_script(tmp_path / 'bin/srun', SRUN)
  script(tmp_path / 'bin/scontrol', SCONTROL)

  def make(does=None, *, restarts=0, **changes):
    venv = make_venv(tmp_path / 'venv', 'cuda', does=does or real_python())
    return standin_environment(
      tmp_path,
      VENV=str(venv),
      SLURM_JOB_ID=job_number(),
      SLURM_NTASKS='2',
      SLURM_SUBMIT_DIR=str(ROOT),
      SLURM_RESTART_COUNT=str(restarts),
      TASKS=str(tmp_path / 'tasks'),
      REQUEUED=str(tmp_path / 'requeued'),
      **changes,
    )

  return make


@pytest.fixture
def requeued(tmp_path):
  def read():
    file = tmp_path / 'requeued'
    return file.read_text().splitlines() if file.exists() else []

  return read


def test_what_slurm_is_asked_for():
  """All options come before the first command, where Slurm stops to read them."""
  lines = (ROOT / 'launch/slurm.sh').read_text().splitlines()
  first = next(i for i, line in enumerate(lines) if line and not line.startswith('#'))
  options = [
    line.removeprefix('#SBATCH --') for line in lines[:first] if line.startswith('#SBATCH ')
  ]
  assert not any(line.startswith('#SBATCH') for line in lines[first:])
  values = dict(option.partition('=')[::2] for option in options)
  assert values['ntasks-per-node'] == values['gpus-per-node'] and 'gpus-per-task' not in values
  assert values['signal'] == 'TERM@600' and 'requeue' in values
  assert values['open-mode'] == 'append'


@pytest.mark.parametrize('status,again', [(0, False), (2, False), (130, True), (1, True)])
def test_into_the_queue_again(job, requeued, status, again):
  """Where one process fails, the other is killed, whatever it does."""
  other = f'exec sleep {600 if status else 0}'
  env = job(f'[ "$SLURM_PROCID" = 0 ] || {other}\nexit {status}')
  done = bash('slurm.sh', '--config=c', env=env)
  assert requeued() == ([f'requeue {env["SLURM_JOB_ID"]}'] if again else [])
  assert done.returncode == (0 if again else status), done.stderr


def test_not_for_ever(job, requeued):
  env = job('exit 1', restarts=3, RESTARTS='3') | {'SLURM_NTASKS': '1'}
  done = bash('slurm.sh', '--config=c', env=env)
  assert done.returncode == 1 and requeued() == []
  assert 'in the queue 3 times already; no more' in done.stderr


def test_what_every_process_is_told(job):
  env = job('echo "$SLURM_PROCID $JAX_PLATFORMS ${SRUN_CPUS_PER_TASK-none} $*"')
  for asked, told in [({'SLURM_CPUS_PER_TASK': '8'}, '8'), ({}, 'none')]:
    done = bash('slurm.sh', '--config', 'a b', env=env | asked)
    assert sorted(done.stdout.splitlines()) == [
      f'{i} cuda {told} -m painformer_jax pretrain --distributed --config a b' for i in range(2)
    ]


def test_not_from_the_shell(job):
  env = {k: v for k, v in job().items() if k != 'SLURM_SUBMIT_DIR'}
  done = bash('slurm.sh', '--config=c', env=env)
  assert done.returncode != 0 and 'start this with sbatch' in done.stderr


@pytest.mark.slow
def test_two_processes_train_in_two_turns(job, requeued, tmp_path, tmp_path_factory):
  """The notice comes as Slurm sends it, to every process; the next turn ends the run."""
  folder = shared_folder(tmp_path_factory)
  command = CommandLine(
    folder=folder,
    overrides=SMALL_OVERRIDES
    | {
      'steps': 240,
      'log_every': 20,
      'checkpoint_every': 1000,
      'eval_every': 1000,
      'profile_at': 10,
      'profile_steps': 2,
    },
  )
  workdir = tmp_path / 'run'
  arguments = command.arguments(workdir)[4:]
  env = job(
    JAX_PLATFORMS='cpu',
    XLA_FLAGS=QUICK_COMPILE,
    JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )
  turn = subprocess.Popen(
    ['bash', ROOT / 'launch/slurm.sh', *arguments], env=env, stderr=subprocess.PIPE, text=True
  )
  try:
    while turn.poll() is None and not (
      (workdir / 'metrics.jsonl').exists() and read_metrics(workdir)
    ):
      time.sleep(0.05)
    for number in (tmp_path / 'tasks').read_text().split():
      os.kill(int(number), signal.SIGTERM)
    _, messages = turn.communicate(timeout=300)
  finally:
    turn.kill()
  assert turn.returncode == 0 and requeued() == [f'requeue {env["SLURM_JOB_ID"]}'], messages
  assert 'ended with exit status 130; into the queue again' in messages
  saved = int(re.search(r'saved step (\d+)', messages)[1])
  assert store.latest_step(workdir / 'checkpoints') == saved < 240

  done = bash('slurm.sh', *arguments, env=env | {'SLURM_RESTART_COUNT': '1'})
  assert done.returncode == 0, done.stderr
  assert f'resumes from step {saved} of {workdir}' in done.stderr
  assert '2 cpu device(s)' in done.stderr and 'finished at step 240' in done.stderr
  assert requeued() == [f'requeue {env["SLURM_JOB_ID"]}']
  assert {p.name for p in (workdir / 'profile').iterdir()} == {'step10', 'step10-process1'}
  steps = [row['step'] for row in read_metrics(workdir) if 'loss' in row]
  assert steps == list(range(20, 241, 20))
