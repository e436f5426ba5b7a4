"""`painformer` in this process, and what a refusal looks like.

A process of its own takes seconds to import JAX. Each command has one test that starts a
real process (the fixture `painformer`); all others call `run_command`.
"""

import contextlib
import io
import pathlib
import subprocess

from painformer_jax.cli.main import main


def run_command(
  *arguments, cwd: pathlib.Path | str | None = None
) -> subprocess.CompletedProcess[str]:
  """Runs `painformer` with these arguments here; returns what a finished process would.

  Args:
    arguments: of the command line; anything that `str` takes.
    cwd: the folder to run in; None for the present one.
  """
  command = [str(a) for a in arguments]
  out, err = io.StringIO(), io.StringIO()
  with (
    contextlib.chdir(cwd or '.'),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
  ):
    try:
      status = main(command)
    except SystemExit as stop:
      status = stop.code
  return subprocess.CompletedProcess(command, status or 0, out.getvalue(), err.getvalue())


def finished_command(arguments: list[str]) -> list:
  """The same as arguments of `subprocess.CompletedProcess`, for `on_devices`."""
  done = run_command(*arguments)
  return [done.args, done.returncode, done.stdout, done.stderr]


def assert_refused(done, *names: object, alone: bool = False) -> str:
  """The contract for bad input: status 2, one line that names what is wrong, no traceback.

  Args:
    done: a finished process, or what `run_command` returned.
    names: what the line must name: a file, a field, a value.
    alone: whether nothing else may be printed, not even progress.

  Returns:
    The line.
  """
  lines = done.stderr.splitlines()
  assert done.returncode == 2, done.stderr[-3000:]
  assert [line for line in lines if line.startswith('painformer: ')] == lines[-1:], lines[-9:]
  assert 'Traceback' not in done.stderr
  if alone:
    assert (len(lines), done.stdout) == (1, '')
  for name in names:
    assert str(name) in lines[-1], lines[-1]
  return lines[-1]
