"""Signals end a command at once, wherever it is, and nothing is left half-written."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest
from repository import environment

ENDS = [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'stopped')]

BEGIN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from painformer_jax.core import files, stopping
from painformer_jax.core.files import new_folder, temporary_folder, write_atomically
"""

# Code that prints a line once the signal may come.
BUSY = {
  'in a library for a minute': """
    import hashlib
    print('ready', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 200_000_000)
  """,
  'swallows exceptions': """
    print('ready', flush=True)
    while True:
      try:
        time.sleep(0.01)
      except BaseException:
        pass
  """,
  'writes a file': """
    def write(file):
      file.write(b'half')
      file.flush()
      print('ready', flush=True)
      time.sleep(60)
    write_atomically('out', write)
  """,
  'writes a folder': """
    with new_folder(pathlib.Path('old').absolute()) as partial:
      (partial / 'a').write_text('half')
      print('ready', flush=True)
      time.sleep(60)
  """,
  'between two renames': """
    replace = os.replace
    def slow(old, new):
      replace(old, new)
      print('ready', flush=True)
      time.sleep(0.5)
    os.replace = slow
    with new_folder(pathlib.Path('old').absolute()) as partial:
      (partial / 'a').write_text('new')
  """,
  'has a child': """
    with temporary_folder('.'):
      child = subprocess.Popen(['sleep', '60'])
      pathlib.Path('pid').write_text(str(child.pid))
      print('ready', flush=True)
      child.wait()
  """,
}


def stopped(tmp_path, code, number, after=0.0):
  """Exit status and errors of a program that gets a signal `after` s from its 'ready'."""
  code = BEGIN + 'with stopping.EndsAtSignals():\n' + textwrap.indent(textwrap.dedent(code), '  ')
  with subprocess.Popen(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=environment(),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as process:
    assert process.stdout.readline() == 'ready\n', process.stderr.read()
    time.sleep(after)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
  return process.returncode, error


@pytest.mark.parametrize('name', BUSY)
@pytest.mark.parametrize('number, status, word', ENDS)
def test_it_ends_at_once_and_leaves_nothing(tmp_path, name, number, status, word):
  (tmp_path / 'old').mkdir()
  (tmp_path / 'old' / 'a').write_text('old')
  start = time.monotonic()
  assert stopped(tmp_path, BUSY[name], number) == (status, f'painformer: {word}\n')
  assert time.monotonic() - start < 20
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ['old'] + ['pid'] * (name == 'has a child')
  assert (tmp_path / 'old' / 'a').read_text() == ('new' if name == 'between two renames' else 'old')
  if name == 'has a child':
    state = subprocess.run(
      ['ps', '-o', 'stat=', '-p', (tmp_path / 'pid').read_text()], capture_output=True, text=True
    )
    assert state.stdout.strip() in ('', 'Z')


def test_a_signal_to_a_fork_ends_the_fork_alone(tmp_path):
  code = """
    import warnings
    warnings.simplefilter('ignore')  # Of forks beside threads.
    child = os.fork()
    if not child:
      time.sleep(60)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print('ready', flush=True)
    time.sleep(0.5)
    pathlib.Path('status').write_text(str(os.waitstatus_to_exitcode(status)))
    time.sleep(60)
  """
  assert stopped(tmp_path, code, signal.SIGINT, after=1.5) == (130, 'painformer: interrupted\n')
  assert (tmp_path / 'status').read_text() == str(-signal.SIGTERM)
