"""Stands between JAX and its coordinator in process 0, so that JAX outlives it.

Where the connection to the coordinator breaks, JAX ends a process from a thread of C++
within milliseconds, with pages of addresses. Through a relay it sees no break, and
`liveness` ends the process with one line.
"""

import contextlib
import socket
import threading


class Relay:
  """Passes on every connection to a port of this machine, by threads of its own.

  Args:
    host: of the coordinator.
    port: of the coordinator.
  """

  def __init__(self, host: str, port: int):
    self._target = host, port
    self._listener = socket.create_server(('127.0.0.1', 0))
    self.address = f'127.0.0.1:{self._listener.getsockname()[1]}'
    _start(self._accept)

  def _accept(self) -> None:
    while True:
      near, _ = self._listener.accept()
      try:
        far = socket.create_connection(self._target)
      except OSError:  # Not there yet: JAX tries again.
        near.close()
        continue
      for connection in near, far:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      _start(_pass_on, near, far, True)
      _start(_pass_on, far, near, False)


def _start(function, *arguments) -> None:
  threading.Thread(target=function, args=arguments, name='relay', daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, tell_end: bool) -> None:
  with contextlib.suppress(OSError):
    while data := source.recv(1 << 16):
      target.sendall(data)
  if tell_end:
    with contextlib.suppress(OSError):
      target.shutdown(socket.SHUT_WR)
