"""Ends a command at SIGINT or SIGTERM: at once, with one line, and nothing half-written.

Python calls its signal handlers between two instructions of the main thread, which may be
minutes away while XLA compiles, and an exception raised there can be lost in a library's
callback or end the interpreter in the middle of other threads' work. So a thread waits for
the signals, deletes what is unfinished and ends the process without unwinding it.

What saves first (training, folds) installs a handler of its own meanwhile; the thread then
leaves the signal to it.

This module is imported before all others, so it imports little.
"""

import os
import signal
import sys
import threading

WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'stopped'}

# What goes through the pipe: numbers of signals, with this added by the handler, or the end.
_DECIDED, _OVER = 128, 0


class EndsAtSignals:
  """In a `with` block, SIGINT ends the process with status 130 and SIGTERM with 143.

  Outside the main thread, where Python takes no signals, it does nothing; a signal that the
  process was told to ignore stays ignored.

  Args:
    for_good: whether the process ends after the block; signals are then ignored, since one
      that comes while Python and its libraries end would look like a failure.
  """

  def __init__(self, *, for_good: bool = False):
    self._for_good = for_good
    self._active = threading.current_thread() is threading.main_thread()

  def __enter__(self) -> None:
    if not self._active:
      return
    self._pid = os.getpid()
    self._receiving, self._sending = os.pipe()
    os.set_blocking(self._sending, False)
    self._thread = threading.Thread(target=self._wait, daemon=True, name='signals')
    self._thread.start()
    self._descriptor = signal.set_wakeup_fd(self._sending, warn_on_full_buffer=False)
    os.register_at_fork(
      before=self._hold, after_in_parent=self._release, after_in_child=self._forget
    )
    self._previous = {
      number: signal.signal(number, self._handle)
      for number in WORDS
      if signal.getsignal(number) is not signal.SIG_IGN
    }

  def __exit__(self, *exc_info) -> None:
    if not self._active:
      return
    for number, handler in self._previous.items():
      signal.signal(number, signal.SIG_IGN if self._for_good else handler)
    signal.set_wakeup_fd(self._descriptor)
    # Ends the thread; closing would not, where a fork still has the pipe.
    os.write(self._sending, bytes([_OVER]))
    self._thread.join()
    os.close(self._sending)
    os.close(self._receiving)
    self._active = False

  def _handle(self, number, frame) -> None:
    del frame
    if os.getpid() != self._pid:  # A fork; see `_forget`.
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
      return
    # The thread may have looked while another handler was still installed.
    try:
      os.write(self._sending, bytes([number | _DECIDED]))
    except OSError:
      pass

  def _hold(self) -> None:
    # A fork has the same pipe until `_forget`, but its signals are not this process's.
    if self._active:
      self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, WORDS)

  def _release(self) -> None:
    if self._active:
      signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

  def _forget(self) -> None:
    if self._active:
      signal.set_wakeup_fd(-1)
      self._release()

  def _wait(self) -> None:
    while (received := os.read(self._receiving, 1)[0]) != _OVER:
      number = received & ~_DECIDED
      if number in WORDS and (received & _DECIDED or signal.getsignal(number) == self._handle):
        _end(number)


def _end(number: int) -> None:
  """Deletes what is unfinished, ends child processes, says one line, ends the process."""
  # Where this is not imported, or in part, nothing was begun.
  files = sys.modules.get('painformer_jax.core.files')
  if hasattr(files, 'delete_unfinished'):
    # Nothing gets its name any more, and no rename is cut in two.
    files.COMMIT.acquire(timeout=10)
  _end_children()
  if hasattr(files, 'delete_unfinished'):
    files.delete_unfinished()
  # A bar on a terminal hides the cursor.
  show = '\x1b[?25h\r\x1b[K' if os.isatty(2) else ''
  try:
    os.write(2, f'{show}painformer: {WORDS[signal.Signals(number)]}\n'.encode())
  except OSError:
    pass
  os._exit(128 + number)


def _end_children() -> None:
  """Kills the child processes; where there is no /proc, those of `multiprocessing`."""
  children = set()
  try:
    for task in os.listdir('/proc/self/task'):
      with open(f'/proc/self/task/{task}/children') as listing:
        children.update(map(int, listing.read().split()))
  except OSError:
    if multiprocessing := sys.modules.get('multiprocessing'):
      children = {process.pid for process in multiprocessing.active_children()}
  for child in children:
    try:
      os.kill(child, signal.SIGKILL)
    except OSError:
      pass
