"""launch/tpu_vm.sh, with a stand-in `gcloud` whose workers are folders of this machine."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from conftest import ROOT
from launch_standins import bash, make_venv, python_script, script, standin_environment

# Two slices of two workers. The cloud's state is a list of what `describe` will answer;
# what is deleted takes its processes with it.
GCLOUD = '''
import json, os, pathlib, shutil, signal, subprocess, sys
cloud = pathlib.Path(os.environ['CLOUD'])
with open(cloud / 'calls', 'a') as file:
  print(json.dumps(sys.argv[1:]), file=file)
what, arguments = sys.argv[1:5], sys.argv[5:]
options = dict(a[2:].partition('=')[::2] for a in arguments if a.startswith('--'))
states = cloud / 'states'

def workers(node):
  folders = sorted(cloud.glob(f'{node}-worker*'))
  return folders if options['worker'] == 'all' else folders[:1]

if what == ['compute', 'tpus', 'queued-resources', 'create']:
  turn = len(list(cloud.glob('turn*')))
  (cloud / f'turn{turn}').touch()
  states.write_text(os.environ[f'STATES{turn}'])
  nodes = [f"{options['node-prefix']}-{i}" for i in range(int(options['node-count']))] if (
      'node-count' in options) else [options['node-id']]
  for node in nodes:
    for worker in range(2):
      (cloud / f'{node}-worker{worker}').mkdir()
elif what == ['compute', 'tpus', 'queued-resources', 'describe']:
  if not states.exists():
    sys.exit('ERROR: (gcloud) NOT_FOUND: Resource was not found')
  now, *rest = states.read_text().split()
  print(now)
  if rest:
    states.write_text(' '.join(rest))
elif what == ['compute', 'tpus', 'queued-resources', 'delete']:
  states.unlink()
  for folder in cloud.glob('*-worker*'):
    for file in folder.glob('painformer/train.pid'):
      try:
        os.killpg(int(file.read_text()), signal.SIGKILL)
      except ProcessLookupError:
        pass
    shutil.rmtree(folder)
elif what == ['compute', 'tpus', 'tpu-vm', 'scp']:
  node, _, name = arguments[1].partition(':')
  for folder in workers(node):
    shutil.copy(arguments[0], folder / name)
elif what == ['compute', 'tpus', 'tpu-vm', 'ssh']:
  status = 0
  for folder in workers(arguments[0]):
    status |= subprocess.run(['bash', '-c', options['command']], cwd=folder).returncode
  sys.exit(status)
else:
  sys.exit(f'gcloud: {sys.argv}')
'''


@pytest.fixture
def cloud(tmp_path):
  if not (ROOT / '.git').exists():
    pytest.skip('the code is brought from a clone')
  python_script(tmp_path / 'bin/gcloud', GCLOUD)
  script(tmp_path / 'bin/mountpoint', '#!/bin/sh\nexit 1\n')
  script(tmp_path / 'bin/sudo', '#!/bin/sh\necho "$@" >>"$CLOUD/sudo"\n')
  (tmp_path / 'cloud').mkdir()
  return tmp_path / 'cloud'


@pytest.fixture
def env(cloud, tmp_path):
  """For the script; `env(does=..., STATES0=...)` with what the training does."""
  def make(does, **changes):
    committed = subprocess.run(['git', 'show', 'HEAD:setup.cfg'], cwd=ROOT, check=True,
                               capture_output=True).stdout
    venv = make_venv(tmp_path / 'venv', 'tpu', does=does, setup=committed)
    return standin_environment(
        tmp_path, CLOUD=str(cloud), VENV=str(venv), PERIOD='0.2', SLICES='2', SPOT='1',
        NFS='10.0.0.2:/share', PAUSE='0', **changes)

  return make


def calls(cloud, *words):
  found = [json.loads(line) for line in (cloud / 'calls').read_text().splitlines()]
  return [call for call in found if call[2:2 + len(words)] == list(words)]


def test_machines_that_are_taken_back_and_a_run_that_ends(cloud, env):
  """The first machines are lost while they train; on the second the run ends."""
  does = '''
echo "$JAX_PLATFORMS $*"
[ -e "$CLOUD/turn1" ] || sleep 600
'''
  done = bash('tpu_vm.sh', 'run', '--config', 'c.py', '--workdir', '/mnt/painformer/a b', env=env(
      does, STATES0='WAITING_FOR_RESOURCES PROVISIONING ACTIVE ACTIVE SUSPENDED',
      STATES1='ACTIVE'))
  assert done.returncode == 0, done.stderr
  said = [line for line in done.stderr.splitlines() if line.startswith('tpu_vm.sh: ')]
  assert said == [f'tpu_vm.sh: {line}' for line in (
      'the machines are WAITING_FOR_RESOURCES', 'the machines are PROVISIONING',
      'training began; launch/tpu_vm.sh log shows it', 'the machines are SUSPENDED',
      'training began; launch/tpu_vm.sh log shows it',
      'the first worker has ended; launch/tpu_vm.sh delete gives the machines back')]
  create, again = calls(cloud, 'queued-resources', 'create')
  assert create == again == [
      'compute', 'tpus', 'queued-resources', 'create', 'painformer', '--zone=us-west4-a',
      '--quiet', '--accelerator-type=v5litepod-16', '--runtime-version=v2-alpha-tpuv5-lite',
      '--node-count=2', '--node-prefix=painformer', '--spot']
  assert len(calls(cloud, 'queued-resources', 'delete')) == 1
  logs = sorted(cloud.glob('*/painformer/train.log'))
  assert len(logs) == 4  # Every worker of both slices.
  for log in logs:
    assert log.read_text() == ('tpu,cpu -m painformer_jax pretrain --distributed --config c.py '
                               '--workdir /mnt/painformer/a b\n')
    assert (log.parent / 'painformer_jax/cli/pretrain.py').exists()
  assert (cloud / 'sudo').read_text().count('mount -t nfs 10.0.0.2:/share /mnt/painformer') == 8
  bash('tpu_vm.sh', 'delete', env=env(does))
  assert not list(cloud.glob('*-worker*'))


def test_one_slice_has_the_name_of_the_resource(cloud, env):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE') | {
      'SLICES': '1', 'SPOT': '', 'NAME': 'mine'})
  assert done.returncode == 0, done.stderr
  create, = calls(cloud, 'queued-resources', 'create')
  assert '--node-id=mine' in create and '--spot' not in create
  assert len(list(cloud.glob('mine-worker*/painformer/train.log'))) == 2


def test_stopped_and_begun_again(cloud, env):
  """A worker that trains is left alone; one that was stopped has saved."""
  does = '''
echo begun
trap 'echo saved; exit 130' TERM
while :; do sleep 0.05; done
'''
  settings = env(does, STATES0='ACTIVE')
  run = subprocess.Popen(['bash', ROOT / 'launch/tpu_vm.sh', 'run', '--config=c'], env=settings,
                         stderr=subprocess.PIPE, text=True, start_new_session=True)
  for line in run.stderr:
    if 'training began' in line:
      break
  os.killpg(run.pid, signal.SIGKILL)  # Whoever watched has gone.
  again = subprocess.Popen(['bash', ROOT / 'launch/tpu_vm.sh', 'run', '--config=c'],
                           env=settings, stderr=subprocess.PIPE, text=True)
  for line in again.stderr:
    if 'training began' in line:
      break
  assert bash('tpu_vm.sh', 'stop', env=settings).returncode == 0
  _, messages = again.communicate(timeout=60)
  assert again.returncode == 0 and 'the first worker has ended' in messages
  logs = sorted(cloud.glob('*/painformer/train.log'))
  assert [log.read_text() for log in logs] == ['begun\nsaved\n'] * 4


def test_a_cloud_that_does_not_answer(cloud, env):
  """Nothing is asked for anew while it is not known what there is."""
  settings = env('', STATES0='ACTIVE')
  gcloud = script(cloud.parent / 'bin/gcloud', '#!/bin/sh\necho "$3 $4" >>"$CLOUD/calls"\n'
                  '[ $(wc -l <"$CLOUD/calls") -gt 2 ] && echo NOT_FOUND >&2\nexit 1\n')
  assert shutil.which('gcloud', path=settings['PATH']) == str(gcloud)
  done = bash('tpu_vm.sh', 'run', '--config=c', env=settings)
  assert done.returncode == 1
  assert 'the machines are not known' in done.stderr
  assert (cloud / 'calls').read_text().splitlines() == [
      'queued-resources describe'] * 3 + ['queued-resources create']
