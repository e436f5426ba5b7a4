"""Ends a command at SIGINT or SIGTERM: at once, with one line, and nothing half-written.

Python calls its signal handlers between two instructions of the main thread, which may be
minutes away while XLA compiles, and an exception raised there can be lost in a library's
callback or end the interpreter in the middle of other threads' work. So a thread waits for
the signals, deletes what is unfinished and ends the process without unwinding it.

What saves first (training, folds) installs a handler of its own meanwhile; the thread then
leaves the signal to it.
"""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from painformer_jax.core import files

WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'stopped'}

_DECIDED = 128  # Added to a signal's number by the handler.


@contextlib.contextmanager
def ends_at_signals() -> Iterator[None]:
  """Within the block, SIGINT ends the process with status 130 and SIGTERM with 143.

  Outside the main thread, where Python takes no signals, it does nothing; a signal that the
  process was told to ignore stays ignored.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  receiving, sending = socket.socketpair()
  sending.setblocking(False)

  pid = os.getpid()

  def handle(number, frame):
    if os.getpid() != pid:  # A fork; see `forget`.
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    # The thread may have looked while another handler was still installed.
    del frame
    with contextlib.suppress(OSError):
      sending.send(bytes([number | _DECIDED]))

  def wait():
    while received := receiving.recv(1):
      number = received[0] & ~_DECIDED
      if number in WORDS and (received[0] & _DECIDED or signal.getsignal(number) is handle):
        _end(number)

  def forget():
    # A fork's signals are not this process's, but it has the same sockets.
    if signal.getsignal(signal.SIGTERM) is handle or signal.getsignal(signal.SIGINT) is handle:
      signal.set_wakeup_fd(-1)

  os.register_at_fork(after_in_child=forget)
  previous = {}
  thread = threading.Thread(target=wait, daemon=True, name='signals')
  thread.start()
  before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
  for number in WORDS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      previous[number] = signal.signal(number, handle)
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(before)
    sending.close()  # Ends the thread.
    thread.join()
    receiving.close()


def _end(number: int) -> None:
  """Deletes what is unfinished, ends child processes, says one line, ends the process."""
  # Nothing gets its name any more, and no rename is cut in two.
  files.COMMIT.acquire(timeout=10)
  _end_children()
  files.delete_unfinished()
  # A bar on a terminal hides the cursor.
  show = '\x1b[?25h\r\x1b[K' if sys.stderr is not None and sys.stderr.isatty() else ''
  with contextlib.suppress(OSError):
    os.write(2, f'{show}painformer: {WORDS[signal.Signals(number)]}\n'.encode())
  os._exit(128 + number)


def _end_children() -> None:
  children = {process.pid for process in multiprocessing.active_children()}
  for listing in pathlib.Path('/proc/self/task').glob('*/children'):  # Linux
    with contextlib.suppress(OSError):
      children.update(map(int, listing.read_text().split()))
  for child in children:
    with contextlib.suppress(OSError, TypeError):
      os.kill(child, signal.SIGKILL)
