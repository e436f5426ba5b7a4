"""What launch/tpu_vm.sh meets in the tests: a stand-in `gcloud` whose workers are folders."""

import json
import shutil
import tarfile
import time

import pytest
from launch_standins import make_venv, python_script, script, standin_environment
from repository import ROOT

# Two slices of two workers. The cloud's state is a list of what `describe` will answer; a
# slice is READY unless a file NODE-state says otherwise. What is deleted takes its
# processes with it. It has no machines in the turns of NONE; files come to no worker of a
# node with a file NODE-full.
GCLOUD = """
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
"""

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
    return standin_environment(
      tmp_path,
      **{
        'CLOUD': str(cloud),
        'VENV': str(venv),
        'PERIOD': '0.2',
        'SLICES': '2',
        'SPOT': '1',
        'NFS': '10.0.0.2:/share',
        'PAUSE': '0',
        **changes,
      },
    )

  return make


BEGAN = 'training began; launch/tpu_vm.sh log shows it'
BACK = 'launch/tpu_vm.sh delete gives the machines back'
SUSPENDED = 'the machines are SUSPENDED'


def ended(how, then=''):
  """The line about the first worker: an exit status or a signal, and what it leads to."""
  return f'the first worker has ended ({how})' + (
    f'; {then}' if then else ', not by launch/tpu_vm.sh stop'
  )


def said(done):
  """Messages of the script itself."""
  start = 'tpu_vm.sh: '
  return [line[len(start) :] for line in done.stderr.splitlines() if line.startswith(start)]


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
  return [call for call in found if call[2 : 2 + len(words)] == list(words)]
