"""Stand-ins for what the files in launch/ call: environments, Slurm, gcloud."""

import os
import pathlib
import subprocess
import sys

from repository import ROOT, environment

# A Python that is whole, as venv.sh asks, and then does what the test says.
_PYTHON = """#!/bin/sh
[ "$1 $2" != '-m pip' ] || exit 0
"""


def script(path: pathlib.Path, text: str) -> pathlib.Path:
  """An executable file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)
  return path


def python_script(path: pathlib.Path, text: str) -> pathlib.Path:
  """The same in Python; a `#!` line could not name one in a folder with a space."""
  code = path.with_name(path.name + '.py')
  script(code, text)
  return script(path, f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$@"\n')


def make_venv(folder: pathlib.Path, extra: str, *, does: str, setup: bytes | None = None):
  """An environment that venv.sh takes for installed.

  Args:
    folder: of the environment.
    extra: that is installed.
    does: shell commands that its Python runs.
    setup: content of setup.cfg; None for the repository's.
  """
  script(folder / 'bin/python', _PYTHON + does)
  stamp = subprocess.run(
    ['cksum'], input=setup or (ROOT / 'setup.cfg').read_bytes(), capture_output=True, check=True
  ).stdout
  (folder / f'.installed-{extra}').write_bytes(stamp)
  return folder


def real_python() -> str:
  """Commands for `make_venv`: the Python of the tests."""
  return f'exec "{sys.executable}" "$@"\n'


def standin_environment(folder: pathlib.Path, **changes: str) -> dict[str, str]:
  """With the stand-ins in folder/bin found first, and the caches in folder."""
  env = environment(XDG_CACHE_HOME=str(folder / 'cache'), **changes)
  for name in (
    'PYTHON',
    'KIND',
    'RESTARTS',
    'ATTEMPTS',
    'JAX_PLATFORMS',
    'XLA_FLAGS',
    'LIBTPU_INIT_ARGS',
    'JAX_COMPILATION_CACHE_DIR',
    'XLA_PYTHON_CLIENT_MEM_FRACTION',
    'BUCKET',
    'STATUS',
    'SLURM_CPUS_PER_TASK',
    'SRUN_CPUS_PER_TASK',
  ):
    if name not in changes:
      env.pop(name, None)
  return env | {'PATH': os.pathsep.join([str(folder / 'bin'), os.environ['PATH']])}


def bash(name: str, *arguments, env, **options) -> subprocess.CompletedProcess:
  """Runs a file of launch/ to its end."""
  return subprocess.run(
    ['bash', str(ROOT / 'launch' / name), *map(str, arguments)],
    env=env,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
    stdin=subprocess.DEVNULL,
    **options,
  )
