"""Fixtures that many tests share, and the table of measured errors.

JAX decides once, when it starts, how many devices a CPU pretends to be. The
test process keeps one, so that nothing else runs differently for the sake of
the few tests that need a mesh; those run a function in a process of its own
through `on_devices`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

# What CI also runs on a second Python: the seams to JAX, Flax, Grain and TFDS.
CORE = (
  'test_import',
  'test_models',
  'test_presets',
  'test_spectral',
  'test_key_map',
  'test_torch_file',
  'test_losses',
  'test_mixture',
  'test_inference',
  'test_pretrain_run',
)

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
# Tests of one room use helpers and sometimes another room's inputs, by name.
FOLDERS = [str(p) for p in sorted(TESTS.iterdir()) if p.is_dir() and any(p.glob('*.py'))]
sys.path[:0] = FOLDERS

_CALL = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
print('\\n' + json.dumps(result))
"""


def pytest_configure(config):
  """One folder of compiled programs for all processes of a test session.

  It takes a third of the time off; what is compiled does not change. The controller of
  several workers sets it, they inherit it.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    folder = tempfile.mkdtemp(prefix='painformer_tests_')
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'


def environment(**changes: str) -> dict[str, str]:
  """The environment for a subprocess that imports this package and the tests."""
  path = os.pathsep.join([str(ROOT), str(TESTS), *FOLDERS, os.environ.get('PYTHONPATH', '')])
  return {**os.environ, 'PYTHONPATH': path, **changes}


@pytest.fixture(scope='session')
def on_devices():
  """Calls a function of a test module in a process with simulated devices.

  `on_devices(8, function, size=3)` returns what `function(size=3)` returns;
  both go through JSON. The function must be at the top level of its module.
  """

  def call(count: int, function, **arguments):
    done = subprocess.run(
      [sys.executable, '-c', _CALL, function.__module__, function.__name__, json.dumps(arguments)],
      env=environment(JAX_PLATFORMS='cpu', JAX_NUM_CPU_DEVICES=str(count)),
      capture_output=True,
      text=True,
      timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])

  return call


@pytest.fixture
def painformer():
  """Runs the command line: `painformer('embed', path, ...)`.

  Returns the finished process, with `returncode`, `stdout` and `stderr` as
  text; keyword arguments go to `subprocess.run`, but `file_limit`: the bytes
  that a file may have, which stands in for a full disk with a real error.
  """

  def run(*arguments, file_limit=None, **options):
    options = {
      'env': environment(JAX_PLATFORMS='cpu'),
      'capture_output': True,
      'text': True,
      'timeout': 600,
      **options,
    }
    start = ['-m', 'painformer_jax']
    if file_limit:
      start = [
        '-c',
        'import resource, sys; from painformer_jax.cli.main import main; '
        f'resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit}, {file_limit})); '
        'sys.exit(main())',
      ]
    return subprocess.run([sys.executable, *start, *map(str, arguments)], **options)

  return run


@pytest.fixture
def measured(record_property):
  """Asserts an error against its limit, and keeps it for the table.

  `measured('embedding, fft', 9e-7, limit=1e-5)`; the table is printed at the
  end of the run, whether the limits held or not.
  """

  def check(quantity: str, error: float, *, limit: float):
    record_property('measured', [quantity, float(error), limit])
    assert error <= limit, f'{quantity}: {error:.2e} is above {limit:.0e}'

  return check


def pytest_collection_modifyitems(items):
  """Marks the tests of the modules in CORE."""
  for item in items:
    if item.path.stem in CORE:
      item.add_marker(pytest.mark.core)


def pytest_terminal_summary(terminalreporter):
  """Prints the errors that `measured` kept, as a Markdown table."""
  rows = [
    value
    for reports in terminalreporter.stats.values()
    for report in reports
    for name, value in getattr(report, 'user_properties', ())
    if name == 'measured' and report.when == 'call'
  ]
  if rows:
    terminalreporter.write_sep('=', 'measured errors')
    terminalreporter.write_line('| quantity | largest error | limit |')
    terminalreporter.write_line('|---|---|---|')
    for quantity, error, limit in rows:
      terminalreporter.write_line(f'| {quantity} | {error:.1e} | {limit:.0e} |')
