"""Processes with simulated devices, which run functions of test modules one after another.

JAX decides when it starts how many devices a CPU pretends to be, and importing it takes
seconds. So each number of devices has one process for a whole test session. Functions and
results go through pipes as lines of JSON.
"""

import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback

TIMEOUT = 1200  # Seconds that a function may take, on a machine that others use too.
_SERVE = 'import device_processes; device_processes.serve()'


class DeviceProcess:
  """One process with `count` devices; it is started by the first call.

  Args:
    count: devices.
    environment: of the process; it must let it import this module.
  """

  def __init__(self, count: int, environment: dict[str, str]):
    self._environment = environment | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': str(count),
      # XLA's threads. A device blocks one in each collective that it has reached, several
      # at a time; with as many threads as devices, as XLA takes on a small machine, those
      # that others wait for may find none, and the process ends after 40 seconds.
      'NPROC': str(8 * count),
      'JAX_DISABLE_MOST_OPTIMIZATIONS': 'false',
    }
    self._process, self._cpu = None, 0.0
    self.cpu_seconds = 0.0  # Of all calls so far.

  def __call__(self, function, **arguments):
    """Returns what `function(**arguments)` returns there; fails with its traceback.

    A process that died, or whose call took too long, is replaced in the next call.
    """
    if self._process is None or self._process.poll() is not None:
      self._start()
    request = [function.__module__, function.__name__, arguments]
    try:
      self._process.stdin.write(json.dumps(request) + '\n')
      self._process.stdin.flush()
      line = self._answer()
    except BrokenPipeError:
      line = ''
    if not line:
      self._errors.seek(0)
      said = self._errors.read()[-4000:]
      self.close()
      raise AssertionError(f'the process with devices ended:\n{said}')
    answer = json.loads(line)
    self.cpu_seconds, self._cpu = self.cpu_seconds + answer['cpu'] - self._cpu, answer['cpu']
    assert 'error' not in answer, answer['error']
    return answer['result']

  def _start(self):
    self.close()
    self._errors = tempfile.TemporaryFile('w+', errors='replace')
    self._cpu = 0.0
    self._process = subprocess.Popen(
      [sys.executable, '-c', _SERVE],
      env=self._environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )

  def _answer(self) -> str:
    """The next line, or '' where the process ended or took too long."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
      ready, _, _ = select.select([self._process.stdout], [], [], 1.0)
      if ready:
        return self._process.stdout.readline()
    return ''

  def close(self):
    """Ends the process."""
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      self._process.stdin.close()
      self._process.stdout.close()
      self._errors.close()
      self._process = None


def serve():
  """The process's side: answers every line of standard input with one line."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # What functions print is no answer.
  for line in sys.stdin:
    module, name, arguments = json.loads(line)
    try:
      found = getattr(importlib.import_module(module), name)(**arguments)
      answer = {'result': json.loads(json.dumps(found))}
    except BaseException:
      answer = {'error': traceback.format_exc()}
    answer['cpu'] = sum(os.times()[:4])
    print(json.dumps(answer), file=answers, flush=True)
