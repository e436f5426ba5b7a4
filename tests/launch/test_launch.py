"""The files of launch/: read by linters, and their settings by JAX itself."""

import ast
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from launch_standins import bash, standin_environment
from repository import ROOT

from painformer_jax.cli.config_file import load_config
from painformer_jax.data import corpus
from painformer_jax.training.config import from_config_dict

LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
MANIFESTS = sorted(LAUNCH.glob('*.yaml'))


def test_what_there_is():
  assert [p.name for p in SCRIPTS] == [
    'demo.sh',
    'slurm.sh',
    'test.sh',
    'tpu_vm.sh',
    'train.sh',
    'venv.sh',
    'with.sh',
  ]
  assert [p.name for p in MANIFESTS] == ['gke_gpu.yaml', 'gke_tpu.yaml']
  readme = (LAUNCH / 'README.md').read_text()
  assert all(f'`{p.name}`' in readme for p in [*SCRIPTS, *MANIFESTS, LAUNCH / 'Dockerfile'])


def test_files_of_tests_that_are_named_exist():
  for path in [*SCRIPTS, *MANIFESTS, LAUNCH / 'README.md', LAUNCH / 'Dockerfile']:
    for name in re.findall(r'tests/[\w/]+\.py', path.read_text()):
      assert (ROOT / name).is_file(), f'{path.name} names {name}'


def lint(name, *arguments, **options):
  """Runs a linter that an environment with the extra `test` has."""
  program = shutil.which(name, path=str(pathlib.Path(sys.executable).parent)) or (
    shutil.which(name)
  )
  if not program:
    pytest.skip(f'{name} is not installed')
  done = subprocess.run(
    [program, *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    **options,
  )
  assert (done.returncode, done.stdout) == (0, ''), done.stdout


# Shell.


def test_shell_as_shellcheck_reads_it():
  """Two of its advices are left aside: both are meant so in venv.sh, and work."""
  lint(
    'shellcheck',
    '--external-sources',
    '--source-path=SCRIPTDIR',
    '--shell=bash',
    '--exclude=SC2015,SC1087',
    *SCRIPTS,
  )


def test_dockerfile_as_hadolint_reads_it():
  lint('hadolint', LAUNCH / 'Dockerfile')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda p: p.name)
def test_shell_can_be_parsed(script):
  assert subprocess.run(['bash', '-n', script], check=False).returncode == 0


@pytest.mark.parametrize('name', ['with.sh', 'train.sh', 'tpu_vm.sh', 'demo.sh'])
def test_usage(name, tmp_path):
  arguments = ['--nonsense'] if name == 'demo.sh' else []
  done = bash(name, *arguments, env=standin_environment(tmp_path))
  assert done.returncode == 2 and done.stdout == ''
  assert f'launch/{name}' in done.stderr and '#' not in done.stderr


# What JAX is told.


def started(kind, tmp_path, code, **changes):
  """Starts Python as launch/with.sh does."""
  return bash(
    'with.sh', kind, sys.executable, '-c', code, env=standin_environment(tmp_path, **changes)
  )


STARTS = 'import jax; print(jax.devices()[0].platform, jax.config.jax_compilation_cache_dir)'


@pytest.mark.core  # Flags come and go with versions of XLA.
@pytest.mark.parametrize('kind', ['cpu', 'gpu', 'tpu'])
def test_jax_starts_with_the_settings_of(kind, tmp_path):
  """On CPUs: of flags that XLA does not know it would die, whatever they are for."""
  done = started(kind, tmp_path, STARTS, JAX_PLATFORMS='cpu')
  assert done.returncode == 0, done.stderr
  platform, cache = done.stdout.split()
  assert platform == 'cpu' and cache.startswith(f'{tmp_path}/cache/painformer/{kind}')


@pytest.mark.core
def test_it_dies_of_a_flag_that_there_is_not(tmp_path):
  """So that the test above can fail. Flags for TPUs are not XLA's at all."""
  done = started('gpu', tmp_path, STARTS, JAX_PLATFORMS='cpu', XLA_FLAGS='--xla_gpu_nonsense=1')
  assert done.returncode != 0 and 'Unknown flag' in done.stderr


_TPU = """
import jax
from jax.experimental import topologies
device = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices[0]
mesh = jax.sharding.SingleDeviceSharding(device)
jax.jit(lambda x: x * x).lower(jax.ShapeDtypeStruct((8,), 'float32', sharding=mesh)).compile()
print(device.device_kind)
"""


@pytest.mark.core
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='libtpu is not installed')
@pytest.mark.parametrize('more,fine', [('', True), ('--xla_tpu_nonsense=1', False)])
def test_the_compiler_for_tpus_knows_its_flags(more, fine, tmp_path):
  done = started(
    'tpu',
    tmp_path,
    _TPU,
    JAX_PLATFORMS='cpu',
    TPU_SKIP_MDS_QUERY='1',
    TPU_WORKER_HOSTNAMES='localhost',
    TPU_ACCELERATOR_TYPE='v5litepod-4',
    LIBTPU_INIT_ARGS=more,
  )
  assert (done.returncode == 0) == fine, done.stderr
  if fine:
    assert done.stdout == 'TPU v5 lite\n'
  else:
    assert "Unknown command line flag 'xla_tpu_nonsense'" in done.stderr


ENVIRONMENT = (
  'JAX_PLATFORMS',
  'XLA_FLAGS',
  'LIBTPU_INIT_ARGS',
  'XLA_PYTHON_CLIENT_MEM_FRACTION',
  'JAX_COMPILATION_CACHE_DIR',
)


def told(kind, tmp_path, **changes):
  done = started(
    kind, tmp_path, f'import os; print([os.environ.get(n, "") for n in {ENVIRONMENT}])', **changes
  )
  assert done.returncode == 0, done.stderr
  return dict(zip(ENVIRONMENT, ast.literal_eval(done.stdout)))


def test_what_is_set_already_stays(tmp_path):
  mine = {
    'JAX_PLATFORMS': 'cuda',
    'XLA_PYTHON_CLIENT_MEM_FRACTION': '.5',
    'JAX_COMPILATION_CACHE_DIR': '/elsewhere',
  }
  found = told('gpu', tmp_path, XLA_FLAGS='--xla_mine=1', **mine)
  assert {name: found[name] for name in mine} == mine
  assert found['XLA_FLAGS'].endswith(' --xla_mine=1')  # The last one prevails.
  found = told('tpu', tmp_path, LIBTPU_INIT_ARGS='--xla_mine=1')
  assert found['LIBTPU_INIT_ARGS'].endswith('true --xla_mine=1') and not found['XLA_FLAGS']


def test_flags_are_as_many_as_the_readme_says(tmp_path):
  flags = [
    flag
    for kind in ('cpu', 'gpu', 'tpu')
    for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')
    for flag in told(kind, tmp_path)[name].split()
  ]
  assert len(flags) == 3 and 'three\ncompiler flags' in (LAUNCH / 'README.md').read_text()


def test_no_run_falls_back_to_the_cpu(tmp_path):
  assert told('gpu', tmp_path)['JAX_PLATFORMS'] == 'cuda'
  assert told('tpu', tmp_path)['JAX_PLATFORMS'] == 'tpu,cpu'
  assert told('cpu', tmp_path)['JAX_PLATFORMS'] == 'cpu'
  for kind, package in (('gpu', 'jax_cuda12_plugin'), ('tpu', 'libtpu')):
    if not importlib.util.find_spec(package):
      assert started(kind, tmp_path, STARTS).returncode == 1


# Manifests.

# The fields of JobSet (jobset.x-k8s.io/v1alpha2) that a manifest here may have.
FIELDS = {
  '': {'apiVersion', 'kind', 'metadata', 'spec'},
  'metadata': {'name', 'annotations'},
  'spec': {'failurePolicy', 'network', 'replicatedJobs'},
  'spec.failurePolicy': {'maxRestarts', 'rules'},
  'spec.failurePolicy.rules': {'name', 'action', 'onJobFailureReasons'},
  'spec.network': {'enableDNSHostnames'},
  'spec.replicatedJobs': {'name', 'replicas', 'template'},
  'spec.replicatedJobs.template': {'spec'},
}


def with_bucket(path):
  """A manifest as the command at its top changes it."""
  (program,) = re.findall(
    rf"^#   sed '(.*)' launch/{path.name} \| kubectl apply -f -$",
    path.read_text(),
    flags=re.MULTILINE,
  )
  return subprocess.run(['sed', program, path], capture_output=True, text=True, check=True).stdout


# Of every manifest what lies there, with a claim, and what its command makes of it.
TEXTS = {
  name: text
  for path in MANIFESTS
  for name, text in ((path.name, path.read_text()), (f'{path.name}, bucket', with_bucket(path)))
}


@pytest.fixture(params=TEXTS)
def name(request):
  return request.param


@pytest.fixture
def manifest(name):
  return yaml.safe_load(TEXTS[name])


@pytest.fixture
def job(manifest):
  return manifest['spec']['replicatedJobs'][0]


@pytest.fixture
def pod(job):
  return job['template']['spec']['template']


@pytest.fixture
def container(pod):
  return pod['spec']['containers'][0]


def test_yaml_as_yamllint_reads_it(name):
  lint('yamllint', '--strict', '-c', LAUNCH / '.yamllint', '-', input=TEXTS[name])


def test_volumes_are_mounted_and_what_is_mounted_is_a_volume(pod, container):
  mounts = [mount['name'] for mount in container['volumeMounts']]
  assert sorted(mounts) == sorted(volume['name'] for volume in pod['spec']['volumes'])
  paths = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert paths['shared'] == '/mnt/painformer'


def test_a_claim_or_a_bucket_with_all_that_it_needs(name, pod):
  """The driver mounts nothing in a pod without the annotation, or without an account."""
  spec = pod['spec']
  (shared,) = (volume for volume in spec['volumes'] if volume['name'] == 'shared')
  if 'bucket' not in name:
    assert shared.keys() == {'name', 'persistentVolumeClaim'}
    assert 'metadata' not in pod and 'serviceAccountName' not in spec
    return
  assert shared.keys() == {'name', 'csi'}
  assert shared['csi']['driver'] == 'gcsfuse.csi.storage.gke.io'
  attributes = shared['csi']['volumeAttributes']
  assert attributes['bucketName'] and all(isinstance(v, str) for v in attributes.values())
  # A pod on the network of its machine is not its service account unless this is set.
  assert attributes.get('hostNetworkPodKSA') == ('true' if spec.get('hostNetwork') else None)
  assert pod['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}
  assert spec['serviceAccountName']


def test_buckets_are_mounted_the_same_way_everywhere():
  """By the driver, whose options name a section of gcsfuse's file, and by tpu_vm.sh."""
  flags = dict(
    re.findall(
      r'--([a-z-]+)=(\w+)',
      re.search(r'gcsfuse=\((.*?)\)', (LAUNCH / 'tpu_vm.sh').read_text(), flags=re.DOTALL)[1],
    )
  )
  assert flags == {
    'metadata-cache-ttl-secs': '0',
    'metadata-cache-negative-ttl-secs': '0',
    'enable-streaming-writes': 'false',
    'rename-dir-limit': '0',
  }
  for path in MANIFESTS:
    spec = yaml.safe_load(with_bucket(path))['spec']['replicatedJobs'][0]['template']['spec']
    volume = spec['template']['spec']['volumes'][0]
    options = [o.split(':') for o in volume['csi']['volumeAttributes']['mountOptions'].split(',')]
    # Flags have the name of a section in them where the key alone says too little.
    assert {
      f'{section}-{key}' if section == 'metadata-cache' else key: value
      for section, key, value in options
    } == flags


def test_only_the_training_can_be_refused(job, container):
  """A container that mounts a bucket may end with 2 as well, as Go programs that panic."""
  (rule,) = job['template']['spec']['podFailurePolicy']['rules']
  assert rule['onExitCodes'] == {
    'containerName': container['name'],
    'operator': 'In',
    'values': [2],
  }


def test_fields_of_a_jobset(manifest):
  assert (manifest['apiVersion'], manifest['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')

  def check(value, path):
    for item in value if isinstance(value, list) else [value]:
      if path in FIELDS:
        assert item.keys() <= FIELDS[path], path
        for name, part in item.items():
          check(part, f'{path}.{name}'.lstrip('.'))

  check(manifest, '')
  (rule,) = manifest['spec']['failurePolicy']['rules']
  assert rule['action'] == 'FailJobSet' and rule['onJobFailureReasons'] == ['PodFailurePolicy']


@pytest.mark.parametrize('version', ['1.31', '1.37'])
def test_the_job_in_it_as_kubernetes_describes_jobs(job, version):
  validate = pytest.importorskip('kubernetes_validate')
  whole = {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': {'name': job['name']},
    **job['template'],
  }
  validate.validate(whole, version, strict=True)
  whole['spec']['paralelism'] = 1
  with pytest.raises(validate.ValidationError):
    validate.validate(whole, version, strict=True)


def chips(job):
  spec = job['template']['spec']
  limits = spec['template']['spec']['containers'][0]['resources']['limits']
  return job['replicas'] * spec['parallelism'] * next(iter(limits.values()))


def test_machines_and_rows_fit_together(manifest, job, container):
  spec = job['template']['spec']
  assert spec['parallelism'] == spec['completions'] and spec['backoffLimit'] == 0
  selector = spec['template']['spec']['nodeSelector']
  if topology := selector.get('cloud.google.com/gke-tpu-topology'):
    x, y = map(int, topology.split('x'))
    assert chips(job) == job['replicas'] * x * y
  arguments = dict(a.lstrip('-').split('=', 1) for a in container['args'] if '=' in a)
  assert int(arguments['config.batch_size_multiple']) == chips(job)
  if 'processes' in arguments:
    assert int(arguments['processes']) == spec['parallelism'] and job['replicas'] == 1
    name = f'{manifest["metadata"]["name"]}-{job["name"]}-0-0.{manifest["metadata"]["name"]}'
    assert arguments['coordinator'] == f'{name}:9876'


def test_what_is_run_is_a_command_of_painformer(container, monkeypatch, tmp_path):
  """Flags and configuration, as the command itself reads them."""
  from painformer_jax.cli import commands as cli

  monkeypatch.chdir(ROOT)
  kind, command, *arguments = container['args']
  assert kind in ('gpu', 'tpu') and command == 'painformer'
  arguments = [a.replace('$(JOB_COMPLETION_INDEX)', '1') for a in arguments]
  args, overrides = cli._parser('pretrain').parse_known_args(arguments)
  assert args.distributed != (args.coordinator is not None)
  config = from_config_dict(load_config(args.config, overrides=overrides))
  sizes = dict.fromkeys(config.tasks, 1000)
  rows = config.with_batch_sizes(sizes).batch_sizes
  assert len(rows) == len(corpus.task_configs()) == 14 and sum(rows.values()) == 1792
  assert config.steps == 200 * corpus.PUBLISHED_SAMPLES // 1792
  mounts = {mount['mountPath'] for mount in container['volumeMounts']}
  for path in (
    args.workdir,
    config.data_dir,
    *(e['value'] for e in container['env'] if 'value' in e),
  ):
    assert any(path.startswith(f'{mount}/') for mount in mounts), path


def test_every_dollar_is_a_variable_of_the_container(container):
  used = {name for a in container['args'] for name in re.findall(r'\$\((\w+)\)', a)}
  assert used <= {e['name'] for e in container['env']}


def test_the_image_has_what_the_manifests_run(container):
  lines = (LAUNCH / 'Dockerfile').read_text().splitlines()
  assert 'ENTRYPOINT ["launch/with.sh"]' in lines and 'WORKDIR /painformer' in lines
  assert not (set(container) & {'command', 'workingDir'})
  setup = (ROOT / 'setup.cfg').read_text()
  for extra in re.findall(r'EXTRA=(\w+)', (LAUNCH / 'Dockerfile').read_text()):
    assert f'\n{extra} =\n' in setup
