"""How the tests compile: quickly where speed is not tested, and once for all runs.

Compiling is most of the time of the tests. Programs are kept in the user's cache folder
between runs of the tests, unless JAX_COMPILATION_CACHE_DIR names another place; JAX's own
key says which programs are the same. LLVM optimises only in the files of OPTIMISED, whose
programs are small or whose figures are of what users run; elsewhere results differ by
rounding alone. With JAX_DISABLE_MOST_OPTIMIZATIONS=false in the environment it optimises
everywhere.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys

# Files whose programs are compiled as users compile them.
OPTIMISED = ('test_models', 'test_parity', 'test_spectral', 'test_depthwise', 'test_inference')

# Whether the environment asks for that everywhere.
OPTIMISES = os.environ.get('JAX_DISABLE_MOST_OPTIMIZATIONS') == 'false'

LIMIT = 2 * 2**30  # Bytes; a folder that has grown larger is begun anew.


def share_between_runs():
  """Sets the environment of this process and of those that it starts, before JAX is imported.

  The controller of several workers sets it, they inherit it.
  """
  os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_folder())
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'


def _folder() -> pathlib.Path:
  """The folder of this JAX, Python and CPU; those of other versions are deleted."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  base = pathlib.Path(base) / 'painformer' / 'tests'
  # Machine code for one CPU is of no use to another, with which a home may be shared.
  cpu = pathlib.Path('/proc/cpuinfo')
  flags = [line for line in _lines(cpu) if line.startswith(('flags', 'Features'))][:1]
  key = hashlib.sha256(f'{platform.machine()} {flags}'.encode()).hexdigest()[:8]
  python = '{}.{}'.format(*sys.version_info)
  folder = base / f'jax-{importlib.metadata.version("jaxlib")}-python-{python}-{key}'
  for other in base.glob(f'jax-*-python-{python}-{key}'):
    if other != folder or _size(folder) > LIMIT:
      shutil.rmtree(other, ignore_errors=True)
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _lines(path: pathlib.Path) -> list[str]:
  return path.read_text().splitlines() if path.exists() else []


def _size(folder: pathlib.Path) -> int:
  return sum(file.stat().st_size for file in folder.glob('*'))
