"""How much memory is free: files of the system as they are, and as containers have them."""

import ctypes
import platform
import subprocess
import sys
import types

import jax
import pytest
from repository import environment

from painformer_jax.core.memory import free_memory, main_memory

MEMINFO = 'MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\nHugePages_Total: 0\n'


def write(root, **files):
  for name, text in files.items():
    path = root / name.replace('__', '/')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return root


def test_files_that_are_kept_for_later_are_free(tmp_path):
  assert main_memory(write(tmp_path, proc__meminfo=MEMINFO)) == 5000 * 1024


def test_an_old_kernel_says_less(tmp_path):
  text = MEMINFO.replace('MemAvailable', 'Other')
  assert main_memory(write(tmp_path, proc__meminfo=text)) == 100 * 1024


@pytest.mark.parametrize(
  'prefix, names',
  [
    ('sys/fs/cgroup', ('memory.max', 'memory.current', 'inactive_file')),
    (
      'sys/fs/cgroup/memory',
      ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
    ),
  ],
)
@pytest.mark.parametrize(
  'limit, used, cached, free',
  [
    ('3000000', '1000000', 400000, 2400000),
    ('max', '1000000', 400000, 5000 * 1024),
    ('9000000000', '1000000', 0, 5000 * 1024),
    ('1000000', '1200000', 100000, 0),
  ],
)
def test_a_container_has_no_more_than_its_limit(tmp_path, prefix, names, limit, used, cached, free):
  write(tmp_path, proc__meminfo=MEMINFO)
  folder = tmp_path / prefix
  folder.mkdir(parents=True)
  (folder / names[0]).write_text(limit + '\n')
  (folder / names[1]).write_text(used + '\n')
  (folder / 'memory.stat').write_text(f'anon 5\n{names[2]} {cached}\n')
  assert main_memory(tmp_path) == free


GIB = 2**30
# Where the groups lie, their line in /proc/self/cgroup beside others, their files.
UNIFIED = ('sys/fs/cgroup', '0::{}', ('memory.max', 'memory.current', 'inactive_file'))
OLDER = (
  'sys/fs/cgroup/memory',
  '9:name=systemd:/other\n4:{controllers}:{}\n0::/other',
  ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
)


def write_groups(root, kind, own, groups, *, controllers='memory'):
  """Limit, use and cached bytes of each group; `own` is that of the process."""
  top, line, names = kind
  write(
    root,
    proc__meminfo=f'MemAvailable: {64 * GIB // 1024} kB\n',
    proc__self__cgroup=line.format(own, controllers=controllers) + '\n',
  )
  for group, (limit, used, cached) in groups.items():
    folder = root / top / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f'{limit}\n')
    (folder / names[1]).write_text(f'{used}\n')
    (folder / 'memory.stat').write_text(f'{names[2]} {cached}\n')
  return root


@pytest.mark.parametrize('kind', [UNIFIED, OLDER])
@pytest.mark.parametrize(
  'groups, free',
  [
    ({'slurm/job_7/step_0': (8 * GIB, 3 * GIB, GIB)}, 6),
    # Above it are looser limits, or none.
    (
      {
        'slurm/job_7/step_0': (8 * GIB, 3 * GIB, GIB),
        'slurm': (32 * GIB, 9 * GIB, 0),
        '': (48 * GIB, 9 * GIB, 0),
        'slurm/job_7': ('max', 3 * GIB, 0),
      },
      6,
    ),
    # A tighter one, of the job that the step belongs to, or of the machine's user.
    ({'slurm/job_7/step_0': (8 * GIB, GIB, 0), 'slurm/job_7': (8 * GIB, 6 * GIB, GIB)}, 3),
    ({'slurm/job_7/step_0': ('max', GIB, 0), 'slurm': (4 * GIB, GIB, 0)}, 3),
    # Of others.
    (
      {
        'slurm/job_7/step_0': (8 * GIB, 3 * GIB, 0),
        'slurm/job_8': (GIB, 0, 0),
        'slurm/job_7/step_0/sub': (GIB, 0, 0),
        'other': (GIB, 0, 0),
      },
      5,
    ),
  ],
)
def test_a_job_has_no_more_than_its_groups_allow(tmp_path, kind, groups, free):
  root = write_groups(tmp_path, kind, '/slurm/job_7/step_0', groups)
  assert main_memory(root) == free * GIB


def test_a_group_of_several_controllers(tmp_path):
  groups = {'a:b': (8 * GIB, 3 * GIB, 0)}
  root = write_groups(tmp_path, OLDER, '/a:b', groups, controllers='cpu,memory')
  assert main_memory(root) == 5 * GIB


@pytest.mark.parametrize('kind', [UNIFIED, OLDER])
@pytest.mark.parametrize('own', ['/', '/docker/0a1b', '/../../job_8'])
def test_a_container_sees_its_own_group_as_the_topmost(tmp_path, kind, own):
  groups = {'': (8 * GIB, 3 * GIB, 0), '../../job_8': (GIB, 0, 0)}
  root = write_groups(tmp_path, kind, own, groups)
  assert main_memory(root) == 5 * GIB


@pytest.mark.parametrize('text', ['', 'what is this\n', '0:\n'])
def test_groups_that_cannot_be_read_are_the_topmost(tmp_path, text):
  root = write_groups(tmp_path, UNIFIED, '/', {'': (8 * GIB, 3 * GIB, 0)})
  assert main_memory(write(root, proc__self__cgroup=text)) == 5 * GIB


def test_without_such_files_half_of_the_memory_counts(tmp_path):
  assert main_memory(tmp_path) > 0


def test_devices_that_share_memory_share_what_is_free(monkeypatch):
  def device(stats, count):
    return types.SimpleNamespace(
      memory_stats=lambda: stats, client=types.SimpleNamespace(local_device_count=lambda: count)
    )

  monkeypatch.setattr('painformer_jax.core.memory.main_memory', lambda: 700)
  monkeypatch.setattr('painformer_jax.core.memory._kept', lambda: 100)
  assert free_memory(device(None, 8)) == 100
  assert free_memory(device({'bytes_limit': 50, 'bytes_in_use': 20}, 8)) == 30


def test_of_this_machine():
  free = free_memory(jax.devices()[0])
  assert 2**20 < free < 2**50


_SCRATCH = """
import resource
import numpy as np
from painformer_jax.core import memory
if {keeps}:
  memory.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
  before = faults()
  block = np.empty(5 << 29, np.uint8)
  block[::1 << 24] = 1  # One page of every 16 MiB.
  inside = memory._kept()
  del block
print(faults() - before, memory._kept() - inside)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='mallopt is of glibc')
def test_scratch_that_is_kept_costs_no_page_faults_and_counts_as_free():
  """2.5 GiB, the third time; the C library's blocks are new each time otherwise."""

  def measured(keeps):
    done = subprocess.run(
      [sys.executable, '-c', _SCRATCH.format(keeps=keeps)],
      env=environment(JAX_PLATFORMS='cpu'),
      capture_output=True,
      text=True,
      check=True,
    )
    return map(int, done.stdout.split())

  (faults, kept), (new_faults, not_kept) = measured(True), measured(False)
  assert faults < 50 < new_faults
  assert not_kept < 1 << 20
  if hasattr(ctypes.CDLL(None), 'mallinfo2'):
    assert kept > 2.4 * GIB
