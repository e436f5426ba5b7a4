"""Leaves out the tests of launch/ while nothing in it has changed since they passed.

They start shells and wait for stand-ins of clouds and clusters. They run where they never
passed (a fresh clone, CI), with `launch/test.sh --all`, and with `launch/test.sh tests/launch`.
What they passed with is kept in pytest's cache.
"""

import hashlib
import pathlib

import pytest

KEPT = 'painformer/launch'
ROOT = pathlib.Path(__file__).parents[2]
# What they read besides the package itself.
INPUTS = (
  'launch/*',
  'configs/*.py',
  'setup.cfg',
  'tests/launch/*.py',
  'tests/helpers/launch_standins.py',
  'tests/helpers/tpu_vm_standins.py',
)


def fingerprint() -> str:
  """Of all files that the tests of launch/ read."""
  found = hashlib.sha256()
  for pattern in INPUTS:
    for file in sorted(ROOT.glob(pattern)):
      if file.is_file():
        found.update(f'{file.name} {file.stat().st_mode} '.encode() + file.read_bytes())
  return found.hexdigest()


class LaunchFiles:
  """A plugin of pytest."""

  def __init__(self, config: pytest.Config):
    self._config, self._now = config, fingerprint()
    self._passed, self._failed = 0, False

  def pytest_collection_modifyitems(self, items):
    config = self._config
    if config.getoption('all') or any('launch' in argument for argument in config.args):
      return
    if config.cache.get(KEPT, None) != self._now:
      return
    of_launch = [item.path.parent.name == 'launch' for item in items]
    config.hook.pytest_deselected(items=[i for i, left in zip(items, of_launch) if left])
    items[:] = [i for i, left in zip(items, of_launch) if not left]

  def pytest_runtest_logreport(self, report):
    if report.nodeid.startswith('tests/launch/'):
      self._passed += report.when == 'call'
      self._failed |= report.failed

  def pytest_sessionfinish(self, session, exitstatus):
    config = self._config
    whole = (
      exitstatus == 0 and not config.option.keyword and config.args == config.getini('testpaths')
    )
    if whole and self._passed and not self._failed and not hasattr(config, 'workerinput'):
      config.cache.set(KEPT, self._now)
