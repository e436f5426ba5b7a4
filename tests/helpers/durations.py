"""What each test takes: measured in every run, printed by `launch/test.sh --all`.

Two figures: seconds of the wall clock, and of CPU of the test's process and the processes
that it waited for. The files' seconds are kept in pytest's cache, so that the next run
begins with the files that take longest and no worker is left with one at the end.
"""

import collections
import os
import time

import pytest

KEPT = 'painformer/seconds'

# Which files are long, where nothing is kept yet.
LONGEST = (
  'test_parity',
  'test_training_resume',
  'test_assess_training',
  'test_assess_clip',
  'test_parallel',
  'test_finetune',
  'test_fit',
  'test_models',
  'test_model_inputs',
  'test_configs',
  'test_mixup',
  'test_cli_pretrain',
  'test_plan_command',
  'test_assess_run',
  'test_assess_demo',
  'test_cli_report',
  'test_cli_benchmark',
  'test_pretrain_run',
  'test_strategies',
  'test_plan',
  'test_finetune_program',
  'test_cli_embed',
  'test_training_step',
  'test_class_split',
  'test_mixer',
  'test_corpus',
  'test_mixture_topology',
  'test_benchmark_folds',
  'test_processes',
  'test_fit_parts',
  'test_spectral',
  'test_plan_hlo',
  'test_launch_tpu_vm',
  'test_launch_tpu_vm_workers',
  'test_launch_slurm',
)


class Durations:
  """A plugin of pytest.

  Args:
    config: of pytest.
    elsewhere: returns CPU seconds of processes that live longer than a test.
  """

  def __init__(self, config: pytest.Config, elsewhere):
    self._config, self._elsewhere = config, elsewhere
    self._files = collections.defaultdict(lambda: [0.0, 0.0, 0])
    self._slow = collections.defaultdict(lambda: [0.0, 0.0])
    self._before = self._now()

  def _now(self):
    return time.perf_counter(), sum(os.times()[:4]) + self._elsewhere()

  @pytest.hookimpl(trylast=True)
  def pytest_collection_modifyitems(self, items):
    kept = self._config.cache.get(KEPT, {})
    first = dict.fromkeys(LONGEST, 1.0)
    items.sort(key=lambda i: -kept.get(i.nodeid.split('::')[0], first.get(i.path.stem, 0.0)))

  def pytest_runtest_logstart(self):
    self._before = self._now()

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_makereport(self, item):
    report = yield
    now = self._now()
    seconds = [after - before for before, after in zip(self._before, now)]
    slow = item.get_closest_marker('slow') is not None
    # Goes from a worker to the controller with the report.
    report.user_properties.append(('took', [*seconds, slow]))
    self._before = now
    return report

  def pytest_runtest_logreport(self, report):
    for name, value in report.user_properties:
      if name == 'took':
        wall, cpu, slow = value
        file = self._files[report.nodeid.split('::')[0]]
        file[:] = file[0] + wall, file[1] + cpu, file[2] + (report.when == 'call')
        if slow:
          test = self._slow[report.nodeid]
          test[:] = test[0] + wall, test[1] + cpu

  def pytest_sessionfinish(self, session):
    if not hasattr(session.config, 'workerinput') and self._files:
      kept = self._config.cache.get(KEPT, {})
      kept.update({file: round(wall, 1) for file, (wall, _, _) in self._files.items()})
      self._config.cache.set(KEPT, kept)

  def pytest_terminal_summary(self, terminalreporter):
    if not self._config.getoption('all') or not self._files:
      return
    write = terminalreporter.write_line
    terminalreporter.write_sep('=', 'what each file took')
    write('| file | tests | seconds | of CPU |')
    write('|---|---|---|---|')
    for file, (wall, cpu, tests) in sorted(self._files.items(), key=lambda i: -i[1][0]):
      write(f'| {file} | {tests} | {wall:.1f} | {cpu:.1f} |')
    terminalreporter.write_sep('=', 'what each slow test took')
    write('| test | seconds | of CPU |')
    write('|---|---|---|')
    for test, (wall, cpu) in sorted(self._slow.items(), key=lambda i: -i[1][0]):
      write(f'| {test} | {wall:.1f} | {cpu:.1f} |')
