"""Bars on a terminal, lines in a pipe."""

import os
import pty
import re
import subprocess
import sys

import pytest

WORK = """
import sys, time
from painformer_jax.core import progress
progress.SECONDS_BETWEEN_LINES = 0.0
with progress.waiting('lists photos', progress.log):
  time.sleep(1.2)
with progress.Meter(4000, progress.log, prefix='coin: ') as meter:
  for _ in range(4):
    meter.add(1000)
    time.sleep(0.15)
    with progress.Meter(2, progress.log) as inner:  # A bar beside the other one.
      inner.add()
      inner.add()
  progress.log('one [bold]photo[/bold] is damaged')
  print('a figure')
print(sys.stderr.isatty(), file=sys.stderr)
"""


def run(**environment):
  """What a program writes to a terminal, and to a pipe as standard output."""
  terminal, its_end = pty.openpty()
  kept = {k: v for k, v in os.environ.items() if k not in ('NO_COLOR', 'FORCE_COLOR', 'COLUMNS')}
  with subprocess.Popen(
    [sys.executable, '-c', WORK],
    stdout=subprocess.PIPE,
    stderr=its_end,
    text=True,
    env={**kept, 'TERM': 'xterm-256color', 'COLUMNS': '120', **environment},
  ) as process:
    os.close(its_end)
    written = b''
    while True:
      try:
        written += os.read(terminal, 4096)
      except OSError:  # The program has ended.
        break
    output = process.stdout.read()
  os.close(terminal)
  assert process.returncode == 0, written
  return written.decode(), output


def test_a_terminal_shows_bars_with_rate_and_time_left():
  shown, output = run()
  assert '━' in shown and '\x1b[38;' in shown
  assert re.search(r'coin.* 3,000 of 4,000 images  [\d,.]+ images/s  eta \d+s', shown)
  assert re.search(r'lists photos .* 1s', shown)
  assert 'one [bold]photo[/bold] is damaged\r\n' in shown and shown.endswith('True\r\n')
  assert '\x1b[?25h' in shown.rpartition('\x1b[?25l')[2]  # The cursor is back.
  assert output == 'a figure\n'


def test_no_color_leaves_the_colours_out():
  shown, _ = run(NO_COLOR='1')
  assert '━' in shown and '\x1b[38;' not in shown


def test_a_terminal_that_cannot_move_its_cursor_gets_lines():
  shown, _ = run(TERM='dumb')
  assert '\x1b' not in shown and 'coin: 4,000 of 4,000 images' in shown


@pytest.mark.parametrize('environment', [{}, {'FORCE_COLOR': '1'}])
def test_a_pipe_gets_lines(environment):
  done = subprocess.run(
    [sys.executable, '-c', WORK],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
    check=True,
  )
  lines = done.stderr.splitlines()
  told = re.compile(r'coin: 2,000 of 4,000 images  [\d,.]+ images/s  eta \d+s')
  assert any(map(told.fullmatch, lines))
  assert lines[0].startswith('lists photos, for ') and '\x1b' not in done.stderr
  assert done.stdout == 'a figure\n'
