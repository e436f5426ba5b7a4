"""How much memory is free: files of the system as they are, and as containers have them."""

import types

import jax
import pytest

from painformer_jax.assessment.memory import free_memory, main_memory

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


@pytest.mark.parametrize('prefix, names', [
    ('sys/fs/cgroup', ('memory.max', 'memory.current', 'inactive_file')),
    ('sys/fs/cgroup/memory', (
        'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'))])
@pytest.mark.parametrize('limit, used, cached, free', [
    ('3000000', '1000000', 400000, 2400000),
    ('max', '1000000', 400000, 5000 * 1024),
    ('9000000000', '1000000', 0, 5000 * 1024),
    ('1000000', '1200000', 100000, 0)])
def test_a_container_has_no_more_than_its_limit(
    tmp_path, prefix, names, limit, used, cached, free):
  write(tmp_path, proc__meminfo=MEMINFO)
  folder = tmp_path / prefix
  folder.mkdir(parents=True)
  (folder / names[0]).write_text(limit + '\n')
  (folder / names[1]).write_text(used + '\n')
  (folder / 'memory.stat').write_text(f'anon 5\n{names[2]} {cached}\n')
  assert main_memory(tmp_path) == free


def test_without_such_files_half_of_the_memory_counts(tmp_path):
  assert main_memory(tmp_path) > 0


def test_devices_that_share_memory_share_what_is_free(monkeypatch):
  def device(stats, count):
    return types.SimpleNamespace(
        memory_stats=lambda: stats,
        client=types.SimpleNamespace(local_device_count=lambda: count))
  monkeypatch.setattr('painformer_jax.assessment.memory.main_memory', lambda: 800)
  assert free_memory(device(None, 8)) == 100
  assert free_memory(device({'bytes_limit': 50, 'bytes_in_use': 20}, 8)) == 30


def test_of_this_machine():
  free = free_memory(jax.devices()[0])
  assert 2**20 < free < 2**50
