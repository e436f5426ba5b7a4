"""SIGINT and SIGTERM as a flag that the loop polls, so that it saves first."""

import signal

import jax
from jax.experimental import multihost_utils


class Interrupt:
  """In a `with` block: `asked` turns true at the first signal.

  A second signal acts as usual at once, for whoever cannot wait for the save.
  Outside the main thread, where Python takes no signals, it does nothing.

  Where several processes train together, a SIGTERM to one of them (as clouds
  send before they take a machine back) stops all after the same step: JAX
  catches it and agrees on the step.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.asked = False
    self._previous = {}

  def __enter__(self):
    if jax.process_count() > 1:
      return self
    try:
      self._previous = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
    except ValueError:
      self._previous = {}
    return self

  def stops_at(self, step: int) -> bool:
    """Whether to stop with so many steps done; ask once a step."""
    if jax.process_count() > 1:
      self.asked = multihost_utils.reached_preemption_sync_point(step)
    return self.asked

  def __exit__(self, *exc_info):
    self._restore()

  def _handle(self, number, frame):
    del number, frame
    self.asked = True
    self._restore()

  def _restore(self):
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}
