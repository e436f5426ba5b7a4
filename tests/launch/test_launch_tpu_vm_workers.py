"""launch/tpu_vm.sh: what it brings to the workers, and workers that are not ready."""

import os
import shutil

import pytest
from launch_standins import bash, script
from tpu_vm_standins import BACK, BEGAN, calls, ended, held, said, soon


def test_older_code_is_not_started(cloud, env):
  """Where new code does not come to a worker; it ends, as the machines are paid for."""
  held(cloud, 'painformer-0', 'painformer-1', states='ACTIVE')
  (cloud / 'painformer-0-full').touch()
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env(''))
  assert done.returncode == 1, done.stderr
  assert said(done) == [f'the workers are not all ready ({i} of 5)' for i in range(1, 6)] + [
    f'what failed last is above; the machines are still held: {BACK}'
  ]
  assert 'No space left on device' in done.stderr
  assert not list(cloud.glob('*/painformer/train.log'))
  assert not calls(cloud, 'queued-resources', 'delete')


def test_only_attempts_in_a_row_count(cloud, env, tmp_path):
  """Every other time the first worker cannot mount what is shared."""
  script(
    tmp_path / 'bin/sudo',
    """#!/bin/sh
case "$1 $PWD" in
  mount*worker0)
    ! mkdir "$CLOUD/odd" 2>/dev/null || exit 32
    rmdir "$CLOUD/odd"
    ;;
esac
""",
  )
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config=c',
    env=env(
      '! mkdir once 2>/dev/null || kill -9 $PPID', STATES0='ACTIVE', SLICES='1', ATTEMPTS='2'
    ),
  )
  assert done.returncode == 0, done.stderr
  assert said(done) == [
    'the workers are not all ready (1 of 2)',
    BEGAN,
    ended('killed'),
    'the workers are not all ready (1 of 2)',
    BEGAN,
    ended('0', BACK),
  ]


# A Python that is too old, has no ensurepip (Ubuntu's without python3-venv), or makes
# environments: a copy of the folder `made`.
PYTHON = """#!/bin/sh
case "{fit} $1 $2" in
  'too old '*) exit 1 ;;
  'no venv '*ensurepip | 'no venv -m venv') exit 1 ;;
  *' -m venv') cp -R "{made}" "$4" ;;
esac
"""

UV = """#!/bin/sh
echo "uv $*" >>asked
[ "$2" != find ] || echo "{python}"
"""

CURL = """#!/bin/sh
echo "curl $*" >>asked
echo 'mkdir -p "$HOME/.local/bin" && cp "{uv}" "$HOME/.local/bin/uv"'
"""


@pytest.mark.parametrize('fit', ['too old', pytest.param('no venv', marks=pytest.mark.slow), 'fit'])
def test_a_python_is_brought_where_none_is_fit(cloud, env, tmp_path, fit):
  """To every worker, once: later its environment is whole."""
  settings = env(
    '! mkdir once 2>/dev/null || kill -9 $PPID',
    STATES0='ACTIVE',
    SLICES='1',
    ATTEMPTS='1',
    HOME=str(tmp_path / 'home'),
    VENV='.venv',
  )
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
    assert (asked.read_text().splitlines() if asked.exists() else []) == (
      []
      if fit == 'fit'
      else [
        'curl -LsSf https://astral.sh/uv/install.sh',
        'uv python install 3.12',
        'uv python find --system --managed-python 3.12',
      ]
    )


GCSFUSE = """#!/bin/sh
echo "gcsfuse $*" >>"$CLOUD/order"
"""


def test_a_bucket_is_mounted_before_the_training_begins(cloud, env, tmp_path):
  script(tmp_path / 'bin/gcsfuse', GCSFUSE)
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config=c',
    '--workdir=/mnt/painformer/runs/a',
    env=env('echo "$*" >>"$CLOUD/order"', STATES0='ACTIVE', SLICES='1', NFS='', BUCKET='my-bucket'),
  )
  assert done.returncode == 0, done.stderr
  mount = (
    'gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 '
    '--enable-streaming-writes=false --rename-dir-limit=0 my-bucket /mnt/painformer'
  )
  trains = '-m painformer_jax pretrain --distributed --config=c --workdir=/mnt/painformer/runs/a'
  soon((cloud / 'order').read_text, '\n'.join([mount] * 2 + [trains] * 2) + '\n')
  # The user's folder, as gcsfuse is to run as the one who trains; nothing is installed.
  assert (cloud / 'sudo').read_text().splitlines() == [
    'mkdir -p /mnt/painformer',
    f'chown {os.getuid()} /mnt/painformer',
  ] * 2


def test_gcsfuse_is_installed_where_it_is_not(cloud, env, tmp_path):
  if shutil.which('gcsfuse'):
    pytest.skip('gcsfuse is installed')
  script(tmp_path / 'gcsfuse', GCSFUSE)
  script(tmp_path / 'bin/curl', '#!/bin/sh\necho "key of ${*#-*}"\n')
  script(tmp_path / 'bin/lsb_release', '#!/bin/sh\necho jammy\n')
  script(
    tmp_path / 'bin/sudo',
    f'''#!/bin/sh
echo "$@" >>"$CLOUD/sudo"
case $1 in
  tee) sed "s|^|$2: |" >>"$CLOUD/sudo" ;;
  apt-get) [ "$2" != install ] || cp "{tmp_path}/gcsfuse" "{tmp_path}/bin" ;;
esac
''',
  )
  done = bash(
    'tpu_vm.sh',
    'run',
    '--config=c',
    env=env('', STATES0='ACTIVE', SLICES='1', NFS='', BUCKET='my-bucket'),
  )
  assert done.returncode == 0, done.stderr
  lines = (cloud / 'sudo').read_text().splitlines()
  source = (
    'deb [signed-by=/usr/share/keyrings/cloud.google.asc] '
    'https://packages.cloud.google.com/apt gcsfuse-jammy main'
  )
  assert f'/etc/apt/sources.list.d/gcsfuse.list: {source}' in lines
  assert any(line.startswith('/usr/share/keyrings/cloud.google.asc: key of') for line in lines)
  assert lines.index('apt-get update') < lines.index(
    'apt-get install -y -o DPkg::Lock::Timeout=600 gcsfuse'
  )
  assert len((cloud / 'order').read_text().splitlines()) == 2


@pytest.mark.parametrize('installed', [False, True])
def test_what_mounts_a_share_is_installed_where_it_is_not(cloud, env, tmp_path, installed):
  if shutil.which('mount.nfs', path=f'{os.environ["PATH"]}:/sbin:/usr/sbin'):
    pytest.skip('mount.nfs is installed')
  script(tmp_path / 'mount.nfs', '#!/bin/sh\n')
  if installed:
    shutil.copy(tmp_path / 'mount.nfs', tmp_path / 'bin')
  script(
    tmp_path / 'bin/sudo',
    f'''#!/bin/sh
echo "$@" >>"$CLOUD/sudo"
[ "$2" != install ] || cp "{tmp_path}/mount.nfs" "{tmp_path}/bin"
''',
  )
  done = bash('tpu_vm.sh', 'run', '--config=c', env=env('', STATES0='ACTIVE', SLICES='1'))
  assert done.returncode == 0, done.stderr
  first = (
    []
    if installed
    else ['apt-get update', 'apt-get install -y -o DPkg::Lock::Timeout=600 nfs-common']
  )
  mounted = ['mkdir -p /mnt/painformer', 'mount -t nfs 10.0.0.2:/share /mnt/painformer']
  assert (cloud / 'sudo').read_text().splitlines() == [
    mounted[0],
    *first,
    mounted[1],
    *mounted,
  ]  # Both stand-in workers are this machine.
