"""SIGINT and SIGTERM as a flag that the loop polls, so that it saves first."""

import signal


class Interrupt:
  """In a `with` block: `asked` turns true at the first signal.

  A second signal acts as usual at once, for whoever cannot wait for the save.
  Outside the main thread, where Python takes no signals, it does nothing.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.asked = False
    self._previous = {}

  def __enter__(self):
    try:
      self._previous = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
    except ValueError:
      self._previous = {}
    return self

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
