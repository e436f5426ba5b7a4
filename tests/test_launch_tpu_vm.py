"""launch/tpu_vm.sh, with a stand-in `gcloud` whose workers are folders of this machine."""

import json
import os
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

from conftest import ROOT
from launch_standins import bash, make_venv, python_script, script, standin_environment

# Two slices of two workers. The cloud's state is a list of what `describe` will answer; a
# slice is READY unless a file NODE-state says otherwise. What is deleted takes its
# processes with it. It has no machines in the turns of NONE; files come to no worker of a
# node with a file NODE-full.
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
  if str(turn) in os.environ.get('NONE', ''):
    sys.exit('ERROR: (gcloud) RESOURCE_EXHAUSTED')
  states.write_text(os.environ[f'STATES{turn}'])
  for file in cloud.glob('*-state'):
    file.unlink()
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
elif what == ['compute', 'tpus', 'tpu-vm', 'describe']:
  file = cloud / f'{arguments[0]}-state'
  print(file.read_text().strip() if file.exists() else 'READY')
elif what == ['compute', 'tpus', 'tpu-vm', 'scp']:
  node, _, name = arguments[1].partition(':')
  if (cloud / f'{node}-full').exists():
    sys.exit('scp: No space left on device')
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

# The code as it is now, committed or not; the real one says whether it was asked rightly.
GIT = f'''#!/bin/sh
"{shutil.which('git')}" "$@" &&
  tar czf "$4" --exclude=__pycache__ -C "{ROOT}" launch painformer_jax setup.cfg
'''


@pytest.fixture
def cloud(tmp_path):
  if not (ROOT / '.git').exists():
    pytest.skip('the code is brought from a clone')
  python_script(tmp_path / 'bin/gcloud', GCLOUD)
  script(tmp_path / 'bin/git', GIT)
  script(tmp_path / 'bin/mountpoint', '#!/bin/sh\nexit 1\n')
  script(tmp_path / 'bin/sudo', '#!/bin/sh\necho "$@" >>"$CLOUD/sudo"\n')
  (tmp_path / 'cloud').mkdir()
  return tmp_path / 'cloud'


@pytest.fixture
def env(cloud, tmp_path):
  """For the script; `env(does=..., STATES0=...)` with what the training does."""
  def make(does, **changes):
    venv = make_venv(tmp_path / 'venv', 'tpu', does=does)
    return standin_environment(tmp_path, **{
        'CLOUD': str(cloud), 'VENV': str(venv), 'PERIOD': '0.2', 'SLICES': '2', 'SPOT': '1',
        'NFS': '10.0.0.2:/share', 'PAUSE': '0', **changes})

  return make


BEGAN = 'training began; launch/tpu_vm.sh log shows it'
BACK = 'launch/tpu_vm.sh delete gives the machines back'


def said(done):
  """Messages of the script itself."""
  start = 'tpu_vm.sh: '
  return [line[len(start):] for line in done.stderr.splitlines() if line.startswith(start)]


def held(cloud, *nodes, states):
  """Machines that an earlier `run` was given, with the code that it brought."""
  for node in nodes:
    for worker in range(2):
      (cloud / f'{node}-worker{worker}').mkdir()
      with tarfile.open(cloud / f'{node}-worker{worker}/painformer.tgz', 'w:gz') as file:
        for name in ('launch', 'setup.cfg'):
          file.add(ROOT / name, name)
  (cloud / 'states').write_text(states)


def soon(read, wanted):
  """Asserts what `read` gives; `run` ends with the first worker, others a little later."""
  end = time.monotonic() + 30
  while read() != wanted and time.monotonic() < end:
    time.sleep(0.05)
  assert read() == wanted


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
  assert said(done) == [
      'the machines are WAITING_FOR_RESOURCES', 'the machines are PROVISIONING', BEGAN,
      'the machines are SUSPENDED', BEGAN, f'the first worker has ended (0); {BACK}']
  create, again = calls(cloud, 'queued-resources', 'create')
  assert create == again == [
      'compute', 'tpus', 'queued-resources', 'create', 'painformer', '--zone=us-west4-a',
      '--quiet', '--accelerator-type=v5litepod-16', '--runtime-version=v2-alpha-tpuv5-lite',
      '--node-count=2', '--node-prefix=painformer', '--spot']
  assert len(calls(cloud, 'queued-resources', 'delete')) == 1
  logs = sorted(cloud.glob('*/painformer/train.log'))
  assert len(logs) == 4  # Every worker of both slices.
  for log in logs:
    soon(log.read_text, 'tpu,cpu -m painformer_jax pretrain --distributed --config c.py '
                        '--workdir /mnt/painformer/a b\n')
    assert (log.parent / 'painformer_jax/cli/pretrain.py').exists()
  assert (cloud / 'sudo').read_text().count('mount -t nfs 10.0.0.2:/share /mnt/painformer') == 8
  bash('tpu_vm.sh', 'delete', env=env(does))
  assert not list(cloud.glob('*-worker*'))


@pytest.mark.slow
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
  assert again.returncode == 130 and f'the first worker has ended (stopped); {BACK}' in messages
  logs = sorted(cloud.glob('*/painformer/train.log'))
  soon(lambda: [log.read_text() for log in logs], ['begun\nsaved\n'] * 4)


def test_notice_before_the_machines_are_taken_back(cloud, env):
  """All workers save and end (130) while the queued resource says ACTIVE, and go on saying so.

  The first slice stays; only the second one's own state tells that it has gone.
  """
  does = '''
[ ! -e "$CLOUD/turn1" ] || exit 0
echo PREEMPTED >"$CLOUD/painformer-1-state"
exit 130
'''
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', STATES1='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done)[-3:] == [
      'the machines are PREEMPTED', BEGAN, f'the first worker has ended (0); {BACK}']
  assert len(calls(cloud, 'queued-resources', 'create')) == 2
  assert len(calls(cloud, 'queued-resources', 'delete')) == 1


@pytest.mark.slow
def test_notice_long_before_the_cloud_says_so(cloud, env):
  """While all still seems well, the training is begun again where it was; then anew."""
  does = '''
[ ! -e "$CLOUD/turn1" ] || exit 0
! mkdir once 2>/dev/null || exit 130
case $PWD in *painformer-0-worker0/*) echo SUSPENDING SUSPENDED >"$CLOUD/states" ;; esac
sleep 600
'''
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', STATES1='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done) == [
      BEGAN, 'the first worker has ended (130), not by launch/tpu_vm.sh stop', BEGAN,
      'the machines are SUSPENDING', 'the machines are SUSPENDED', BEGAN,
      f'the first worker has ended (0); {BACK}']


def test_what_is_refused_is_not_begun_again(cloud, env):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('echo "a typo"; exit 2', STATES0='ACTIVE'))
  assert done.returncode == 2 and 'a typo' in done.stdout
  assert said(done) == [BEGAN, f'the first worker has ended (2); {BACK}']


def test_refused_on_another_worker_alone(cloud, env, tmp_path):
  """The others only see that it has gone, and end with 1."""
  script(tmp_path / 'bin/hostname', '#!/bin/sh\nbasename "$PWD"\n')
  does = '''
case $PWD in *painformer-1-worker1/*) echo 'a full disk'; exit 2 ;; esac
while [ ! -e "$CLOUD/painformer-1-worker1/painformer/train.status" ]; do sleep 0.05; done
exit 1
'''
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE', RESTARTS='1'))
  assert done.returncode == 2, done.stderr
  where = 'painformer-1, painformer-1-worker1'
  assert done.stdout.splitlines() == [f'{where}: exit status 2', f'{where}: a full disk']
  assert said(done) == [
      BEGAN, 'the first worker has ended (1), not by launch/tpu_vm.sh stop',
      f'refused on {where}; {BACK}']


@pytest.mark.slow
def test_killed_on_machines_that_stay(cloud, env):
  """As where a worker is rebooted: no exit status is left, and the training goes on there."""
  does = '! mkdir once 2>/dev/null || kill -9 $PPID'
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(does, STATES0='ACTIVE'))
  assert done.returncode == 0, done.stderr
  assert said(done) == [
      BEGAN, 'the first worker has ended (killed), not by launch/tpu_vm.sh stop', BEGAN,
      f'the first worker has ended (0); {BACK}']
  assert len(calls(cloud, 'queued-resources', 'create')) == 1


def test_what_dies_is_not_begun_again_for_ever(cloud, env):
  """RESTARTS is here that of launch/train.sh too: two starts whenever it is begun."""
  done = bash('tpu_vm.sh', 'run', '--config=c',
              env=env('echo start; exit 3', STATES0='ACTIVE', RESTARTS='1', SLICES='1'))
  assert done.returncode == 3, done.stderr
  assert said(done)[-1] == 'begun again 1 times already; no more'
  log = cloud / 'painformer-worker0/painformer/train.log'
  assert log.read_text().splitlines().count('start') == 4


@pytest.mark.parametrize('earlier', [False, True])
def test_a_cloud_that_has_no_machines_for_a_while(cloud, env, earlier):
  """After some were taken back, whichever `run` had asked for those."""
  settings = env('[ -e "$CLOUD/turn1" ] || sleep 600', STATES0='ACTIVE SUSPENDED', STATES1='',
                 STATES2='ACTIVE', NONE='1')
  if earlier:
    held(cloud, 'painformer-0', 'painformer-1', states=settings['STATES0'])
    (cloud / 'turn0').touch()
  done = bash('tpu_vm.sh', 'run', '--config=c', env=settings)
  assert done.returncode == 0, done.stderr
  assert said(done) == [
      BEGAN, 'the machines are SUSPENDED', 'new machines could not be asked for; tried again',
      BEGAN, f'the first worker has ended (0); {BACK}']
  assert 'RESOURCE_EXHAUSTED' in done.stderr


def test_machines_that_there_are_not_at_first(cloud, env):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='', NONE='0'))
  assert done.returncode == 1 and said(done) == []
  assert 'RESOURCE_EXHAUSTED' in done.stderr
  assert len(calls(cloud, 'queued-resources', 'create')) == 1


def test_older_code_is_not_started(cloud, env):
  """Where new code does not come to a worker; it ends, as the machines are paid for."""
  held(cloud, 'painformer-0', 'painformer-1', states='ACTIVE')
  (cloud / 'painformer-0-full').touch()
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(''))
  assert done.returncode == 1, done.stderr
  assert said(done) == [f'the workers are not all ready ({i} of 5)' for i in range(1, 6)] + [
      f'what failed last is above; the machines are still held: {BACK}']
  assert 'No space left on device' in done.stderr
  assert not list(cloud.glob('*/painformer/train.log'))
  assert not calls(cloud, 'queued-resources', 'delete')


def test_only_attempts_in_a_row_count(cloud, env, tmp_path):
  """Every other time the first worker cannot mount what is shared."""
  script(tmp_path / 'bin/sudo', '''#!/bin/sh
case "$1 $PWD" in
  mount*worker0)
    ! mkdir "$CLOUD/odd" 2>/dev/null || exit 32
    rmdir "$CLOUD/odd"
    ;;
esac
''')
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(
      '! mkdir once 2>/dev/null || kill -9 $PPID', STATES0='ACTIVE', SLICES='1', ATTEMPTS='2'))
  assert done.returncode == 0, done.stderr
  assert said(done) == [
      'the workers are not all ready (1 of 2)', BEGAN,
      'the first worker has ended (killed), not by launch/tpu_vm.sh stop',
      'the workers are not all ready (1 of 2)', BEGAN, f'the first worker has ended (0); {BACK}']


# A Python that is too old, has no ensurepip (Ubuntu's without python3-venv), or makes
# environments: a copy of the folder `made`.
PYTHON = '''#!/bin/sh
case "{fit} $1 $2" in
  'too old '*) exit 1 ;;
  'no venv '*ensurepip | 'no venv -m venv') exit 1 ;;
  *' -m venv') cp -R "{made}" "$4" ;;
esac
'''

UV = '''#!/bin/sh
echo "uv $*" >>asked
[ "$2" != find ] || echo "{python}"
'''

CURL = '''#!/bin/sh
echo "curl $*" >>asked
echo 'mkdir -p "$HOME/.local/bin" && cp "{uv}" "$HOME/.local/bin/uv"'
'''


@pytest.mark.parametrize('fit', ['too old', 'no venv', 'fit'])
def test_a_python_is_brought_where_none_is_fit(cloud, env, tmp_path, fit):
  """To every worker, once: later its environment is whole."""
  settings = env('! mkdir once 2>/dev/null || kill -9 $PPID', STATES0='ACTIVE', SLICES='1',
                 ATTEMPTS='1', HOME=str(tmp_path / 'home'), VENV='.venv')
  made = (tmp_path / 'venv').rename(tmp_path / 'made')
  for name in ('python3', 'python3.13', 'python3.12', 'python3.11', 'python'):
    script(tmp_path / 'bin' / name, PYTHON.format(fit=fit, made=made))
  python = script(tmp_path / 'uv python', PYTHON.format(fit='fit', made=made))
  uv = script(tmp_path / 'uv', UV.format(python=python))
  script(tmp_path / 'bin/curl', CURL.format(uv=uv))
  done = bash('tpu_vm.sh', 'run', '--config=c', env=settings)
  assert done.returncode == 0, done.stderr
  assert said(done).count(BEGAN) == 2
  for worker in range(2):
    asked = cloud / f'painformer-worker{worker}/painformer/asked'
    assert (asked.parent / '.venv/bin/python').exists()
    assert (asked.read_text().splitlines() if asked.exists() else []) == ([] if fit == 'fit' else [
        'curl -LsSf https://astral.sh/uv/install.sh', 'uv python install 3.12',
        'uv python find --system --managed-python 3.12'])


GCSFUSE = '''#!/bin/sh
echo "gcsfuse $*" >>"$CLOUD/order"
'''


def test_a_bucket_is_mounted_before_the_training_begins(cloud, env, tmp_path):
  script(tmp_path / 'bin/gcsfuse', GCSFUSE)
  done = bash('tpu_vm.sh', 'run', '--config=c', '--workdir=/mnt/painformer/runs/a', env=env(
      'echo "$*" >>"$CLOUD/order"', STATES0='ACTIVE', SLICES='1', NFS='', BUCKET='my-bucket'))
  assert done.returncode == 0, done.stderr
  mount = ('gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 '
           '--enable-streaming-writes=false --rename-dir-limit=0 my-bucket /mnt/painformer')
  trains = ('-m painformer_jax pretrain --distributed --config=c '
            '--workdir=/mnt/painformer/runs/a')
  soon((cloud / 'order').read_text, '\n'.join([mount] * 2 + [trains] * 2) + '\n')
  # The user's folder, as gcsfuse is to run as the one who trains; nothing is installed.
  assert (cloud / 'sudo').read_text().splitlines() == [
      'mkdir -p /mnt/painformer', f'chown {os.getuid()} /mnt/painformer'] * 2


def test_gcsfuse_is_installed_where_it_is_not(cloud, env, tmp_path):
  if shutil.which('gcsfuse'):
    pytest.skip('gcsfuse is installed')
  script(tmp_path / 'gcsfuse', GCSFUSE)
  script(tmp_path / 'bin/curl', '#!/bin/sh\necho "key of ${*#-*}"\n')
  script(tmp_path / 'bin/lsb_release', '#!/bin/sh\necho jammy\n')
  script(tmp_path / 'bin/sudo', f'''#!/bin/sh
echo "$@" >>"$CLOUD/sudo"
case $1 in
  tee) sed "s|^|$2: |" >>"$CLOUD/sudo" ;;
  apt-get) [ "$2" != install ] || cp "{tmp_path}/gcsfuse" "{tmp_path}/bin" ;;
esac
''')
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(
      '', STATES0='ACTIVE', SLICES='1', NFS='', BUCKET='my-bucket'))
  assert done.returncode == 0, done.stderr
  lines = (cloud / 'sudo').read_text().splitlines()
  source = ('deb [signed-by=/usr/share/keyrings/cloud.google.asc] '
            'https://packages.cloud.google.com/apt gcsfuse-jammy main')
  assert f'/etc/apt/sources.list.d/gcsfuse.list: {source}' in lines
  assert any(line.startswith('/usr/share/keyrings/cloud.google.asc: key of') for line in lines)
  assert lines.index('apt-get update') < lines.index('apt-get install -y gcsfuse')
  assert len((cloud / 'order').read_text().splitlines()) == 2


@pytest.mark.parametrize('installed', [False, True])
def test_what_mounts_a_share_is_installed_where_it_is_not(cloud, env, tmp_path, installed):
  if shutil.which('mount.nfs', path=f'{os.environ["PATH"]}:/sbin:/usr/sbin'):
    pytest.skip('mount.nfs is installed')
  script(tmp_path / 'mount.nfs', '#!/bin/sh\n')
  if installed:
    shutil.copy(tmp_path / 'mount.nfs', tmp_path / 'bin')
  script(tmp_path / 'bin/sudo', f'''#!/bin/sh
echo "$@" >>"$CLOUD/sudo"
[ "$2" != install ] || cp "{tmp_path}/mount.nfs" "{tmp_path}/bin"
''')
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE', SLICES='1'))
  assert done.returncode == 0, done.stderr
  first = [] if installed else ['apt-get update', 'apt-get install -y nfs-common']
  mounted = ['mkdir -p /mnt/painformer', 'mount -t nfs 10.0.0.2:/share /mnt/painformer']
  assert (cloud / 'sudo').read_text().splitlines() == [
      mounted[0], *first, mounted[1], *mounted]  # Both stand-in workers are this machine.


@pytest.mark.parametrize('shares', [
    {'NFS': '', 'BUCKET': ''}, {'NFS': '10.0.0.2:/share', 'BUCKET': 'my-bucket'}])
def test_nothing_is_asked_for_unless_what_is_shared_is_named_once(cloud, env, shares):
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE', **shares))
  assert done.returncode == 2 and not (cloud / 'calls').exists()
  assert said(done) == [
      'name what all workers mount: either NFS=10.0.0.2:/share or BUCKET=NAME']


def test_nothing_is_asked_for_without_code_to_bring(cloud, env, tmp_path):
  script(tmp_path / 'bin/git', '#!/bin/sh\necho "fatal: not a git repository" >&2\nexit 128\n')
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE'))
  assert done.returncode == 2 and not (cloud / 'calls').exists()
  assert said(done) == ['no committed code to bring to the workers (fatal: not a git repository)']


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
