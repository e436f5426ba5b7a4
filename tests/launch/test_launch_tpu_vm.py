"""launch/tpu_vm.sh: from machines that are asked for to a training that ends."""

import os
import shutil
import signal
import subprocess

import pytest
from launch_standins import bash, script
from repository import ROOT
from tpu_vm_standins import BACK, BEGAN, SUSPENDED, calls, ended, held, said, soon


def test_machines_that_are_taken_back_and_a_run_that_ends(cloud, env):
  """The first machines are lost while they train; on the second the run ends."""
  does = """
echo "$JAX_PLATFORMS $*"
[ -e "$CLOUD/turn1" ] || sleep 600
"""
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config',
    'c.py',
    '--workdir',
    '/mnt/painformer/a b',
    env=env(
      does, STATES0='WAITING_FOR_RESOURCES PROVISIONING ACTIVE ACTIVE SUSPENDED', STATES1='ACTIVE'
    ),
  )
  assert done.returncode == 0, done.stderr
  assert said(done) == [
    'the machines are WAITING_FOR_RESOURCES',
    'the machines are PROVISIONING',
    BEGAN,
    SUSPENDED,
    BEGAN,
    ended('0', BACK),
  ]
  create, again = calls(cloud, 'queued-resources', 'create')
  assert (
    create
    == again
    == [
      'compute',
      'tpus',
      'queued-resources',
      'create',
      'painformer',
      '--zone=us-west4-a',
      '--quiet',
      '--accelerator-type=v5litepod-16',
      '--runtime-version=v2-alpha-tpuv5-lite',
      '--node-count=2',
      '--node-prefix=painformer',
      '--spot',
    ]
  )
  assert len(calls(cloud, 'queued-resources', 'delete')) == 1
  logs = sorted(cloud.glob('*/painformer/train.log'))
  assert len(logs) == 4  # Every worker of both slices.
  for log in logs:
    soon(
      log.read_text,
      'tpu,cpu -m painformer_jax pretrain --distributed --config c.py '
      '--workdir /mnt/painformer/a b\n',
    )
    assert (log.parent / 'painformer_jax/cli/pretrain.py').exists()
  assert (cloud / 'sudo').read_text().count('mount -t nfs 10.0.0.2:/share /mnt/painformer') == 8
  bash('tpu_vm.sh', 'delete', env=env(does))
  assert not list(cloud.glob('*-worker*'))


@pytest.mark.slow
def test_one_slice_has_the_name_of_the_resource(cloud, env):
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config=c',
    env=env('', STATES0='ACTIVE') | {'SLICES': '1', 'SPOT': '', 'NAME': 'mine'},
  )
  assert done.returncode == 0, done.stderr
  (create,) = calls(cloud, 'queued-resources', 'create')
  assert '--node-id=mine' in create and '--spot' not in create
  assert len(list(cloud.glob('mine-worker*/painformer/train.log'))) == 2


def test_stopped_and_begun_again(cloud, env):
  """A worker that trains is left alone; one that was stopped has saved."""
  does = """
echo begun
trap 'echo saved; exit 130' TERM
while :; do sleep 0.05; done
"""
  settings = env(does, STATES0='ACTIVE')
  run = subprocess.Popen(
    ['bash', ROOT / 'launch/tpu_vm.sh', 'run', '--config=c'],
    env=settings,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  for line in run.stderr:
    if 'training began' in line:
      break
  os.killpg(run.pid, signal.SIGKILL)  # Whoever watched has gone.
  again = subprocess.Popen(
    ['bash', ROOT / 'launch/tpu_vm.sh', 'run', '--config=c'],
    env=settings,
    stderr=subprocess.PIPE,
    text=True,
  )
  for line in again.stderr:
    if 'training began' in line:
      break
  assert bash('tpu_vm.sh', 'stop', env=settings).returncode == 0
  _, messages = again.communicate(timeout=60)
  assert again.returncode == 130 and ended('stopped', BACK) in messages
  logs = sorted(cloud.glob('*/painformer/train.log'))
  soon(lambda: [log.read_text() for log in logs], ['begun\nsaved\n'] * 4)


def test_notice_before_the_machines_are_taken_back(cloud, env):
  """All workers save and end (130) while the queued resource says ACTIVE, and go on saying so.

  The first slice stays; only the second one's own state tells that it has gone.
  """
  does = """
[ ! -e "$CLOUD/turn1" ] || exit 0
echo PREEMPTED >"$CLOUD/painformer-1-state"
exit 130
"""
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', STATES1='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done)[-3:] == ['the machines are PREEMPTED', BEGAN, ended('0', BACK)]
  assert len(calls(cloud, 'queued-resources', 'create')) == 2
  assert len(calls(cloud, 'queued-resources', 'delete')) == 1


@pytest.mark.slow
def test_notice_long_before_the_cloud_says_so(cloud, env):
  """While all still seems well, the training is begun again where it was; then anew."""
  does = """
[ ! -e "$CLOUD/turn1" ] || exit 0
! mkdir once 2>/dev/null || exit 130
case $PWD in *painformer-0-worker0/*) echo SUSPENDING SUSPENDED >"$CLOUD/states" ;; esac
sleep 600
"""
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', STATES1='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done) == [
    BEGAN,
    ended('130'),
    BEGAN,
    'the machines are SUSPENDING',
    SUSPENDED,
    BEGAN,
    ended('0', BACK),
  ]


def test_what_is_refused_is_not_begun_again(cloud, env):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('echo "a typo"; exit 2', STATES0='ACTIVE'))
  assert done.returncode == 2 and 'a typo' in done.stdout
  assert said(done) == [BEGAN, ended('2', BACK)]


def test_refused_on_another_worker_alone(cloud, env, tmp_path):
  """The others only see that it has gone, and end with 1."""
  script(tmp_path / 'bin/hostname', '#!/bin/sh\nbasename "$PWD"\n')
  does = """
case $PWD in *painformer-1-worker1/*) echo 'a full disk'; exit 2 ;; esac
while [ ! -e "$CLOUD/painformer-1-worker1/painformer/train.status" ]; do sleep 0.05; done
exit 1
"""
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', RESTARTS='1'))
  assert done.returncode == 2, done.stderr
  where = 'painformer-1, painformer-1-worker1'
  assert done.stdout.splitlines() == [f'{where}: exit status 2', f'{where}: a full disk']
  assert said(done) == [BEGAN, ended('1'), f'refused on {where}; {BACK}']


@pytest.mark.slow
def test_killed_on_machines_that_stay(cloud, env):
  """As where a worker is rebooted: no exit status is left, and the training goes on there."""
  does = '! mkdir once 2>/dev/null || kill -9 $PPID'
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done) == [BEGAN, ended('killed'), BEGAN, ended('0', BACK)]
  assert len(calls(cloud, 'queued-resources', 'create')) == 1


def test_what_dies_is_not_begun_again_for_ever(cloud, env):
  """RESTARTS is here that of launch/train.sh too: two starts whenever it is begun."""
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config=c',
    env=env('echo start; exit 3', STATES0='ACTIVE', RESTARTS='1', SLICES='1'),
  )
  assert done.returncode == 3, done.stderr
  assert said(done)[-1] == 'begun again 1 times already; no more'
  log = cloud / 'painformer-worker0/painformer/train.log'
  assert log.read_text().splitlines().count('start') == 4


@pytest.mark.parametrize('earlier', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cloud_that_has_no_machines_for_a_while(cloud, env, earlier):
  """After some were taken back, whichever `run` had asked for those."""
  settings = env(
    '[ -e "$CLOUD/turn1" ] || sleep 600',
    STATES0='ACTIVE SUSPENDED',
    STATES1='',
    STATES2='ACTIVE',
    NONE='1',
  )
  if earlier:
    held(cloud, 'painformer-0', 'painformer-1', states=settings['STATES0'])
    (cloud / 'turn0').touch()
  done = bash('tpu_vm.sh', 'run', '--config=c', env=settings)
  assert done.returncode == 0, done.stderr
  assert said(done) == [
    BEGAN,
    SUSPENDED,
    'new machines could not be asked for; tried again',
    BEGAN,
    ended('0', BACK),
  ]
  assert 'RESOURCE_EXHAUSTED' in done.stderr


def test_machines_that_there_are_not_at_first(cloud, env):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='', NONE='0'))
  assert done.returncode == 1 and said(done) == []
  assert 'RESOURCE_EXHAUSTED' in done.stderr
  assert len(calls(cloud, 'queued-resources', 'create')) == 1


@pytest.mark.parametrize(
  'shares', [{'NFS': '', 'BUCKET': ''}, {'NFS': '10.0.0.2:/share', 'BUCKET': 'my-bucket'}]
)
def test_nothing_is_asked_for_unless_what_is_shared_is_named_once(cloud, env, shares):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE', **shares))
  assert done.returncode == 2 and not (cloud / 'calls').exists()
  assert said(done) == ['name what all workers mount: either NFS=10.0.0.2:/share or BUCKET=NAME']


def test_nothing_is_asked_for_without_code_to_bring(cloud, env, tmp_path):
  script(tmp_path / 'bin/git', '#!/bin/sh\necho "fatal: not a git repository" >&2\nexit 128\n')
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE'))
  assert done.returncode == 2 and not (cloud / 'calls').exists()
  assert said(done) == ['no committed code to bring to the workers (fatal: not a git repository)']


def test_a_cloud_that_does_not_answer(cloud, env):
  """Nothing is asked for anew while it is not known what there is."""
  settings = env('', STATES0='ACTIVE')
  gcloud = script(
    cloud.parent / 'bin/gcloud',
    '#!/bin/sh\necho "$3 $4" >>"$CLOUD/calls"\n'
    '[ $(wc -l <"$CLOUD/calls") -gt 2 ] && echo NOT_FOUND >&2\nexit 1\n',
  )
  assert shutil.which('gcloud', path=settings['PATH']) == str(gcloud)
  done = bash('tpu_vm.sh', 'run', '--config=c', env=settings)
  assert done.returncode == 1
  assert 'the machines are not known' in done.stderr
  assert (cloud / 'calls').read_text().splitlines() == ['queued-resources describe'] * 3 + [
    'queued-resources create'
  ]
