"""Notices that one of several processes is gone, and ends this one with one line.

Every process keeps a connection to process 0, on which both sides say every second
that they are alive. Where a process ends without a word, its system closes the
connection; where its machine is gone, nothing comes any more. Process 0 tells the others.

JAX has heartbeats too, but notices a closed connection to process 0 only, and ends the
process from a thread of C++, with pages instead of a line.
"""

import dataclasses
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

from painformer_jax.core import progress

BEAT = 1.0  # Seconds between two signs of life.

# Seconds in which a process may still end by itself, with a message of its own.
GRACE = 2.0

_ALIVE, _LEAVES, _LOST = b'alive', b'leaves', b'lost'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meeting:
  """Where process 0 listens, and a number by which it knows its own run."""

  port: int = 0
  token: int = 0


@dataclasses.dataclass
class _Peer:
  heard: float
  process: int | None = None  # Until it has said which one it is.
  text: bytes = b''


def listen_on(port: int, *, backlog: int | None = None) -> socket.socket:
  """A listening socket on all addresses of this machine; port 0 for any that is free.

  Raises:
    OSError: the port is taken or not allowed.
  """
  both = socket.has_dualstack_ipv6()
  return socket.create_server(
    ('', port),
    family=socket.AF_INET6 if both else socket.AF_INET,
    dualstack_ipv6=both,
    backlog=backlog,
  )


def end_process(line: str) -> None:
  """One line, and this process is no more: no thread or collective is waited for."""
  progress.log(f'painformer: {line}')
  sys.stdout.flush()
  os._exit(1)


class Peers:
  """The other processes, as far as this one can see them, watched by a thread.

  Args:
    process: number of this one.
    count: how many there are.
    timeout: seconds without a sign of life after which a process counts as gone.
    end: ends this process; takes the line to print.
  """

  def __init__(
    self, *, process: int, count: int, timeout: float, end: Callable[[str], None] = end_process
  ):
    self._process, self._count, self._timeout, self._end = process, count, timeout, end
    self._selector, self._line = selectors.DefaultSelector(), None
    self._peers: dict[socket.socket, _Peer] = {}
    self._noticed, self._closing = threading.Event(), threading.Event()
    self._token = 0
    self._listener: socket.socket | None = None
    self._thread = threading.Thread(target=self._run, name='liveness', daemon=True)

  def listen(self) -> Meeting:
    """For process 0: waits for the others in the background."""
    self._listener = listen_on(0, backlog=self._count)
    self._listener.setblocking(False)
    self._selector.register(self._listener, selectors.EVENT_READ)
    self._token = secrets.randbelow(2**31)
    self._thread.start()
    return Meeting(port=self._listener.getsockname()[1], token=self._token)

  def connect(self, host: str, meeting: Meeting) -> None:
    """For the others. Without an answer this says so, and watches nothing."""
    try:
      connection = socket.create_connection((host, meeting.port), timeout=self._timeout)
    except OSError as error:
      progress.log(
        f'process {self._process} cannot watch the others ({host}, port {meeting.port}: '
        f'{error.strerror or error}): that one of them died is noticed late'
      )
      return
    connection.sendall(b'%d %d\n' % (meeting.token, self._process))
    self._add(connection, process=0)
    self._thread.start()

  def lost(self, *, wait: float = 0) -> str | None:
    """What there is to say of a process that is gone, None if all are there.

    Args:
      wait: seconds to wait for such news.
    """
    return self._line if self._noticed.wait(wait) else None

  def leave(self) -> None:
    """Ends the watch; for when all are done, which the others are told."""
    self._close(_LEAVES)

  def abandon(self) -> None:
    """Ends the watch; for when this process fails, which the others will notice."""
    self._close(None)

  def _close(self, word: bytes | None) -> None:
    self._closing.set()
    if self._thread.is_alive():
      self._thread.join()
    for connection in self._peers:
      if word:
        _send(connection, word)
      connection.close()
    if self._listener:
      self._listener.close()
    self._selector.close()

  def _add(self, connection: socket.socket, *, process: int | None) -> None:
    connection.setblocking(False)
    self._peers[connection] = _Peer(heard=time.monotonic(), process=process)
    self._selector.register(connection, selectors.EVENT_READ)

  def _drop(self, connection: socket.socket) -> None:
    self._selector.unregister(connection)
    del self._peers[connection]
    connection.close()

  def _run(self) -> None:
    spoke = 0.0
    while not self._closing.is_set() and not self._noticed.is_set():
      for key, _ in self._selector.select(timeout=BEAT / 5):
        if key.fileobj is self._listener:
          self._add(self._listener.accept()[0], process=None)
        else:
          self._read(key.fileobj)
      now = time.monotonic()
      if now - spoke >= BEAT:
        spoke = now
        for connection in self._peers:
          _send(connection, _ALIVE)
      for connection, peer in list(self._peers.items()):
        if now - peer.heard > self._timeout:
          self._gone(connection, f'has not answered for {self._timeout:g} s')
    # It may be failing for the same reason, and about to say which.
    if self._noticed.is_set() and not self._closing.wait(GRACE):
      self._end(self._line)

  def _read(self, connection: socket.socket) -> None:
    peer = self._peers[connection]
    try:
      text = connection.recv(4096)
    except BlockingIOError:
      return
    except OSError:
      text = b''
    if not text:
      self._gone(connection, 'has ended (its own messages say why)')
      return
    peer.heard = time.monotonic()
    *lines, peer.text = (peer.text + text).split(b'\n')
    for line in lines:
      if connection not in self._peers:
        return
      self._take(connection, peer, line)

  def _take(self, connection: socket.socket, peer: _Peer, line: bytes) -> None:
    word, *rest = line.split(b' ', 2)
    if peer.process is None:
      if word == b'%d' % self._token and rest:
        peer.process = int(rest[0])
      else:  # Not one of this run.
        self._drop(connection)
    elif word == _LEAVES:
      self._drop(connection)
    elif word == _LOST:
      self._notice(int(rest[0]), rest[1].decode())

  def _gone(self, connection: socket.socket, what: str) -> None:
    process = self._peers[connection].process
    self._drop(connection)
    if process is not None:
      self._notice(process, what)

  def _notice(self, process: int, what: str) -> None:
    if self._noticed.is_set():
      return
    for connection in self._peers:
      _send(connection, b'%s %d %s' % (_LOST, process, what.encode()))
    self._line = (
      f'process {process} of {self._count} {what}, so this one ({self._process}) stops '
      'too; run the same command again to go on from the last checkpoint'
    )
    self._noticed.set()


def _send(connection: socket.socket, line: bytes) -> None:
  try:
    connection.send(line + b'\n')
  except OSError:  # Full or gone: its silence will tell.
    pass
