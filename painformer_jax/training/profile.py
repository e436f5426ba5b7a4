"""Traces of a few steps, by configuration or while a run goes.

They are what `jax.profiler` writes: TensorBoard's profile plug-in (XProf) reads the
folder, ui.perfetto.dev the file perfetto_trace.json.gz in it.
"""

import contextlib
import pathlib
import signal
import time

import jax

from painformer_jax.training.metrics import log

FOLDER = 'profile'
REQUEST = 'profile_now'
SIGNAL = signal.SIGUSR1

# Between two looks for the file, which may lie on a file system far away.
_SECONDS_BETWEEN_LOOKS = 2.0


class Profiler:
  """In a `with` block: traces steps when asked.

  Asked by `at`; by a file `profile_now` in the run's folder, which is then removed
  and which the first of several processes looks for; or by SIGUSR1, which asks the
  process that gets it. Each process traces its own devices and threads, into
  profile/step<first>/, with '-process<n>' after it in all but the first. A step
  that compiles is not traced.

  Args:
    workdir: of the run.
    at: number of the first step to trace; 0 for none.
    steps: how many are traced each time.
  """

  def __init__(self, workdir: pathlib.Path, *, at: int, steps: int):
    self._workdir, self._at, self._steps = workdir, at, steps
    self._asked = False
    self._last = None  # Step that ends the trace under way.
    self._looked = 0.0
    self._previous = None

  def __enter__(self):
    try:
      self._previous = signal.signal(SIGNAL, self._ask)
    except ValueError:  # Not the main thread, which alone may take signals.
      pass
    return self

  def __exit__(self, *exc_info):
    if self._last is not None:
      self._stop()
    if self._previous is not None:
      signal.signal(SIGNAL, self._previous)

  def _ask(self, number, frame):
    del number, frame
    self._asked = True

  def starts_at(self, step: int) -> bool:
    """Starts a trace if one is due; ask before each step that does not compile.

    Args:
      step: number of the step about to be made, from 1 on.

    Returns:
      Whether a trace was started.
    """
    if self._last is not None or not (step == self._at or self._asked or self._requested()):
      return False
    self._asked = False
    name = f'step{step}'
    if jax.process_index():
      name += f'-process{jax.process_index()}'
    self._target = self._workdir / FOLDER / name
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Every call of every function: slow, and drowns the rest.
    try:
      # Before, since JAX takes no other trace once one could not be written.
      self._target.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(self._target, create_perfetto_trace=True, profiler_options=options)
    except (RuntimeError, OSError) as error:
      log(f'no trace of step {step}: {error}')
      return False
    self._last = step + self._steps - 1
    log(f'traces steps {step} to {self._last}')
    return True

  def step(self, step: int):
    """A context that marks a step in a trace."""
    if self._last is None:
      return contextlib.nullcontext()
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def ends_at(self, step: int) -> bool:
    """Whether this is the last step of a trace; then call `end`."""
    return step == self._last

  def end(self, results) -> None:
    """Writes the trace.

    Args:
      results: arrays of the last step, which are waited for.
    """
    jax.block_until_ready(results)
    self._stop()

  def _stop(self) -> None:
    self._last = None
    try:
      jax.profiler.stop_trace()
    except (RuntimeError, OSError, ValueError) as error:
      log(f'the trace could not be written to {self._target}: {error}')
    else:
      log(
        f'a trace is in {self._target}: tensorboard --logdir {self._workdir / FOLDER} '
        '(with its profile plug-in)'
      )

  def _requested(self) -> bool:
    if jax.process_index() or time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
      return False
    self._looked = time.monotonic()
    try:
      (self._workdir / REQUEST).unlink()
    except OSError:  # Mostly that it is not there.
      return False
    return True
