"""How much memory training may take."""

import os
import pathlib

import jax

# Of containers: unified, and the older kind.
_LIMITS = (('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current',
            '/sys/fs/cgroup/memory.stat', 'inactive_file'),
           ('/sys/fs/cgroup/memory/memory.limit_in_bytes',
            '/sys/fs/cgroup/memory/memory.usage_in_bytes',
            '/sys/fs/cgroup/memory/memory.stat', 'total_inactive_file'))


def free_memory(device: jax.Device) -> int:
  """Bytes that are free on a device.

  CPU devices share main memory: what is available there, files that the system only
  keeps for later included, within the limit of a container, in equal parts.
  """
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  return main_memory() // max(device.client.local_device_count(), 1)


def main_memory(root: pathlib.Path = pathlib.Path('/')) -> int:
  """Bytes of main memory that are available; `root` is where system files lie."""
  free = [_available(root)]
  for limit, used, stat, cached in _LIMITS:
    values = [_number(root / name.lstrip('/')) for name in (limit, used)]
    if None not in values:
      free.append(values[0] - values[1] + _table(root / stat.lstrip('/')).get(cached, 0))
  return max(min(free), 0)


def _available(root: pathlib.Path) -> int:
  table = _table(root / 'proc/meminfo')
  for name in ('MemAvailable:', 'MemFree:'):
    if name in table:
      return table[name] * 1024
  # Of systems other than Linux.
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2


def _number(file: pathlib.Path) -> int | None:
  """None where the file is missing or says 'max'."""
  try:
    return int(file.read_text())
  except (OSError, ValueError):
    return None


def _table(file: pathlib.Path) -> dict[str, int]:
  try:
    rows = [line.split() for line in file.read_text().splitlines()]
  except OSError:
    return {}
  return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
