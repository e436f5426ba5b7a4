"""SIGINT and SIGTERM as a flag that the loop polls, so that it saves first."""

import contextlib
import signal
import time

from painformer_jax.core import progress
from painformer_jax.parallel.mesh import many_processes
from painformer_jax.parallel.processes import AnyProcess

# Seconds in which a SIGTERM may come again and still be the same notice: a machine that
# shuts down sends one to every process, and launchers pass theirs on.
_ONE_NOTICE = 2.0


class Interrupt:
  """In a `with` block: `asked` turns true at the first signal.

  A second signal acts as usual at once, for whoever cannot wait for the save; a SIGTERM
  right after the first is taken for the same one.
  Outside the main thread, where Python takes no signals, it does nothing; a signal
  that the process was told to ignore stays ignored.

  Where several processes train together, a signal to one of them (as clouds send
  before they take a machine back) stops all at the same question, see `stops`.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.asked = False
    self._here, self._until, self._any = False, 0.0, None
    self._previous = {}

  def __enter__(self):
    if many_processes():
      self._any = AnyProcess()
    self._install(self._handle)
    return self

  @contextlib.contextmanager
  def at_once(self):
    """While nothing is to be saved, signals end the process: as before the block, or where
    Python's own handler was there as the system does, since that waits for the compiler,
    which may take minutes.
    """
    if not self._previous:
      yield
      return
    for number, before in self._previous.items():
      signal.signal(number, signal.SIG_DFL if before is signal.default_int_handler else before)
    try:
      yield
    finally:
      self._install(self._handle)

  def _install(self, handler) -> None:
    for number in self.SIGNALS:
      if signal.getsignal(number) is signal.SIG_IGN:
        continue
      try:
        previous = signal.signal(number, handler)
      except ValueError:  # Not the main thread.
        return
      self._previous.setdefault(number, previous)

  def stops(self) -> bool:
    """Whether to stop now.

    Several processes must all ask at the same points, once a step or more often: they
    get the same answer, so that none waits for another that has stopped.
    """
    if self._any and not self.asked:
      self.asked = self._any(self._here)
    return self.asked

  def __exit__(self, *exc_info):
    self._restore()

  def _handle(self, number, frame):
    del frame
    now = time.monotonic()
    if self._here:
      # Whoever waits for signals in a thread must find this handler until it has looked.
      if number != signal.SIGTERM or now >= self._until:
        self._restore()
        signal.raise_signal(number)
      return
    self._here = True
    self._until = now + (_ONE_NOTICE if number == signal.SIGTERM else 0.0)
    if not self._any:
      self.asked = True
    progress.log('stops as soon as what is done is saved; once more stops at once')

  def _restore(self):
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}
