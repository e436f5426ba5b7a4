"""How much memory is free, and whether the process keeps memory that it has freed."""

import ctypes
import os
import pathlib
import typing

if typing.TYPE_CHECKING:  # Processes that only read data do without JAX.
  import jax

# Control groups of versions 2 and 1: name of the controller in /proc/self/cgroup, folder,
# and files of the limit, the use, and the part of it that is page cache.
_GROUPS = (
  ('', 'sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
  (
    'memory',
    'sys/fs/cgroup/memory',
    'memory.limit_in_bytes',
    'memory.usage_in_bytes',
    'total_inactive_file',
  ),
)


# Options of glibc's mallopt: bytes that may be free at the end of the heap, bytes from which
# a block is mapped by itself, how many blocks may be, how many heaps there may be.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8

# The largest threshold that glibc takes is 32 MiB.
LARGEST_IMAGE = 31 * 2**20


def keep_freed_memory(*, blocks: int | None = None) -> None:
  """Makes this process reuse memory that it has freed; for programs, not for libraries.

  glibc returns large freed blocks to the system at once, and each new block then costs a
  page fault for every 4 KiB: a third of the time of augmenting an image, and of 1.3 GB of
  scratch memory each time that a compiled program trains two folds of the published size.
  With other C libraries nothing changes.

  Args:
    blocks: bytes up to which freed blocks are kept, `LARGEST_IMAGE` at most; every thread
      may then keep twice as much. None keeps blocks of any size, in one heap for all
      threads.
  """
  if blocks is None:
    options = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1}  # -1: never returned.
  else:
    options = {_MMAP_THRESHOLD: blocks, _TRIM_THRESHOLD: 2 * blocks}
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return
  for option, value in options.items():
    mallopt(option, value)


class _Mallinfo(ctypes.Structure):
  """glibc's struct mallinfo2."""

  _fields_ = [
    (name, ctypes.c_size_t)
    for name in (
      'arena',
      'ordblks',
      'smblks',
      'hblks',
      'hblkhd',
      'usmblks',
      'fsmblks',
      'uordblks',
      'fordblks',
      'keepcost',
    )
  ]


def _kept() -> int:
  """Bytes that this process has freed and keeps; 0 if the C library does not tell."""
  try:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
  except (AttributeError, OSError):
    return 0
  mallinfo2.restype = _Mallinfo
  return mallinfo2().fordblks


def free_memory(device: 'jax.Device') -> int:
  """Bytes that are free on a device.

  CPU devices share main memory in equal parts. Page cache counts as free, and so does what
  this process has freed; limits of a container or a job apply.
  """
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  return (main_memory() + _kept()) // max(device.client.local_device_count(), 1)


def main_memory(root: pathlib.Path = pathlib.Path('/')) -> int:
  """Bytes of main memory that are available; `root` is the folder of /proc and /sys."""
  free = [_available(root)]
  for controller, top, limit, used, cached in _GROUPS:
    for group in _own_groups(root, controller):
      folder = root / top / group
      values = [_number(folder / name) for name in (limit, used)]
      if None not in values:
        free.append(values[0] - values[1] + _table(folder / 'memory.stat').get(cached, 0))
  return max(min(free), 0)


def _own_groups(root: pathlib.Path, controller: str) -> list[pathlib.PurePosixPath]:
  """The control group of this process and all above it, as paths below the topmost.

  Each of them may have the lowest limit. In a container they may be paths of the host, of
  which only the topmost exists.
  """
  own = pathlib.PurePosixPath()
  try:
    lines = (root / 'proc/self/cgroup').read_text(errors='surrogateescape').splitlines()
  except OSError:
    lines = []
  for line in lines:
    # Such as '4:cpu,memory:/slurm/job_7', or '0::/user.slice' of version 2.
    controllers, _, path = line.partition(':')[2].partition(':')
    # '/..' is outside the container.
    if controller in controllers.split(',') and '..' not in path.split('/'):
      own = pathlib.PurePosixPath(path.lstrip('/'))
  return [own, *own.parents]


def _available(root: pathlib.Path) -> int:
  table = _table(root / 'proc/meminfo')
  for name in ('MemAvailable:', 'MemFree:'):
    if name in table:
      return table[name] * 1024
  # Of systems other than Linux.
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2


def _number(file: pathlib.Path) -> int | None:
  """The file's number; None if it is missing or holds 'max'."""
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
