"""Where things lie in this repository, and the environment of processes that tests start."""

import os
import pathlib

TESTS = pathlib.Path(__file__).parents[1]
ROOT = TESTS.parent
# Tests of one room use helpers and sometimes another room's inputs, by name.
FOLDERS = [str(p) for p in sorted(TESTS.iterdir()) if p.is_dir() and any(p.glob('*.py'))]


def environment(**changes: str) -> dict[str, str]:
  """The environment for a subprocess that imports this package and the tests."""
  path = os.pathsep.join([str(ROOT), str(TESTS), *FOLDERS, os.environ.get('PYTHONPATH', '')])
  return {**os.environ, 'PYTHONPATH': path, **changes}
