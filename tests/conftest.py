"""Fixtures that all rooms share, the options of the test command, the table of measured errors.

JAX decides once, when it starts, how many devices a CPU pretends to be. The
test process keeps one, so that nothing else runs differently for the sake of
the few tests that need a mesh; those run a function in another process, which
stays for the session, through `on_devices`.
"""

import subprocess
import sys

# setup.cfg puts tests/helpers on the path.
import compiled_programs
import hypothesis
import launch_files
import pytest
from device_processes import DeviceProcess
from durations import Durations
from repository import FOLDERS, environment

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

sys.path[:0] = FOLDERS
# Before anything imports JAX, which a room's conftest.py may.
compiled_programs.share_between_runs()

_device_processes: dict[int, DeviceProcess] = {}


def pytest_addoption(parser):
  parser.addoption(
    '--all', action='store_true', help='run the slow tests too; print what each file took'
  )


def pytest_configure(config):
  # The same examples in every run, whose programs are compiled once; `--all` draws others.
  hypothesis.settings.register_profile('repeatable', derandomize=True)
  if not config.getoption('all'):
    hypothesis.settings.load_profile('repeatable')
  if config.getoption('all') and config.option.markexpr == 'not slow':
    config.option.markexpr = ''
  config.pluginmanager.register(launch_files.LaunchFiles(config))
  config.pluginmanager.register(
    Durations(config, lambda: sum(p.cpu_seconds for p in _device_processes.values()))
  )


def pytest_unconfigure():
  for process in _device_processes.values():
    process.close()


@pytest.fixture(scope='session')
def on_devices():
  """Calls a function of a test module in a process with simulated devices.

  `on_devices(8, function, size=3)` returns what `function(size=3)` returns;
  both go through JSON. The function must be at the top level of its module, and
  leave no setting changed: the process runs those of other tests after it. With
  `fresh=True` it is a process of its own, as measuring memory needs.
  """

  def call(count: int, function, *, fresh: bool = False, **arguments):
    if fresh:
      process = DeviceProcess(count, environment())
      try:
        return process(function, **arguments)
      finally:
        process.close()
    if count not in _device_processes:
      _device_processes[count] = DeviceProcess(count, environment())
    return _device_processes[count](function, **arguments)

  return call


@pytest.fixture(autouse=True, scope='module')
def _optimised(request):
  """Compiles the programs of some files as users do; see `compiled_programs`."""
  if request.path.stem not in compiled_programs.OPTIMISED or compiled_programs.OPTIMISES:
    yield
    return
  import jax

  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture
def painformer():
  """Runs the command line in a real process: `painformer('embed', path, ...)`.

  It takes seconds to import JAX: `command_line.run_command` does the same in this one.

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
