"""Processes that watch one another over real sockets, here threads of one process."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from repository import environment

from painformer_jax.parallel import liveness, relay
from painformer_jax.parallel.liveness import Meeting, Peers


class Ended:
  """What stands in for the end of a process."""

  def __init__(self):
    self.line, self._event = None, threading.Event()

  def __call__(self, line):
    self.line = line
    self._event.set()

  def wait(self):
    assert self._event.wait(20), 'nobody ended it'
    return self.line


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(liveness, 'GRACE', 0.3)
  monkeypatch.setattr(liveness, 'BEAT', 0.1)


@pytest.fixture
def group():
  """Three that watch one another: `group.peers`, `group.ended`."""

  class Group:
    ended = [Ended() for _ in range(3)]

    def __init__(self):
      self.peers = [Peers(process=n, count=3, timeout=30, end=self.ended[n]) for n in range(3)]
      self.meeting = self.peers[0].listen()
      for peers in self.peers[1:]:
        peers.connect('127.0.0.1', self.meeting)
      until(lambda: self.known() == {1, 2})

    def known(self):
      return {peer.process for peer in list(self.peers[0]._peers.values())}

  made = Group()
  yield made
  for peers in made.peers:
    if peers._thread.is_alive():
      peers.leave()


def until(condition):
  for _ in range(2000):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError('it never came')


def said(process, index, what='has ended (its own messages say why)'):
  return (
    f'process {process} of 3 {what}, so this one ({index}) stops too; run the same '
    'command again to go on from the last checkpoint'
  )


def test_when_all_leave_nothing_is_said(group):
  for peers in group.peers:
    peers.leave()
  assert [ended.line for ended in group.ended] == [None] * 3
  assert [peers.lost() for peers in group.peers] == [None] * 3


def test_one_may_leave_before_the_others(group):
  group.peers[2].leave()
  until(lambda: group.known() == {1})
  assert [peers.lost(wait=0.5) for peers in group.peers[:2]] == [None] * 2


def test_all_learn_of_one_that_ends(group):
  """Process 1 has no connection to process 2: process 0 tells."""
  group.peers[2].abandon()
  assert [group.ended[n].wait() for n in (0, 1)] == [said(2, 0), said(2, 1)]
  assert group.ended[2].line is None


def test_all_learn_that_process_0_ends(group):
  group.peers[0].abandon()
  assert [group.ended[n].wait() for n in (1, 2)] == [said(0, 1), said(0, 2)]


def test_one_that_fails_too_may_say_so_itself(group, monkeypatch):
  monkeypatch.setattr(liveness, 'GRACE', 20)
  group.peers[2].abandon()
  assert group.peers[0].lost(wait=10) == said(2, 0)
  group.peers[0].abandon()
  assert group.ended[0].line is None


def test_silence_is_noticed():
  """A machine that is gone closes nothing: a socket that never speaks."""
  ended = Ended()
  peers = Peers(process=0, count=2, timeout=0.5, end=ended)
  meeting = peers.listen()
  with socket.create_connection(('127.0.0.1', meeting.port)) as silent:
    silent.sendall(b'%d 1\n' % meeting.token)
    line = ended.wait()
    assert silent.recv(10).startswith(b'alive')
  assert line.startswith('process 1 of 2 has not answered for 0.5 s, so this one (0) stops')
  peers.leave()


def test_strangers_are_not_watched(group):
  for words in (
    b'',
    b'GET / HTTP/1.1\r\n',
    b'\x00' * 5000 + b'\n',
    b'%d 1\n' % (group.meeting.token ^ 1),
    b'lost 1 x\n',
    b'leaves\n',
  ):
    with socket.create_connection(('127.0.0.1', group.meeting.port)) as stranger:
      stranger.sendall(words)
      time.sleep(0.05)
  assert [peers.lost(wait=0.5) for peers in group.peers] == [None] * 3
  until(lambda: group.known() == {1, 2})


def test_who_cannot_connect_says_so(capfd):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  peers = Peers(process=1, count=2, timeout=1)
  peers.connect('127.0.0.1', Meeting(port=port, token=3))
  assert capfd.readouterr().err == (
    f'process 1 cannot watch the others (127.0.0.1, port {port}: Connection refused): '
    'that one of them died is noticed late\n'
  )
  assert peers.lost() is None
  peers.leave()


def test_a_killed_process_is_noticed_by_a_real_one():
  """With a thread that never lets go: the end waits for nobody."""
  code = """
import sys, threading, time
from painformer_jax.parallel.liveness import Meeting, Peers
index, port, token = map(int, sys.argv[1:])
peers = Peers(process=index, count=2, timeout=30)
if index:
  peers.connect('localhost', Meeting(port=port, token=token))
else:
  print(*vars(peers.listen()).values(), flush=True)
threading.Thread(target=time.sleep, args=(600,)).start()
if index:
  print('there', flush=True)
time.sleep(600)
"""

  def start(*numbers):
    return subprocess.Popen(
      [sys.executable, '-c', code, *map(str, numbers)],
      text=True,
      env=environment(JAX_PLATFORMS='cpu'),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )

  for victim in (0, 1):
    first = start(0, 0, 0)
    port, token = first.stdout.readline().split()
    second = start(1, port, token)
    processes = [first, second]
    try:
      assert second.stdout.readline() == 'there\n'
      time.sleep(0.5)  # Until process 0 has read who it is.
      os.kill(processes[victim].pid, signal.SIGKILL)
      other = processes[1 - victim]
      _, line = other.communicate(timeout=60)
      assert other.returncode == 1
      assert line == (
        f'painformer: process {victim} of 2 has ended (its own messages say why), so '
        f'this one ({1 - victim}) stops too; run the same command again to go on from '
        'the last checkpoint\n'
      )
    finally:
      for process in processes:
        process.kill()
        process.communicate()


# What stands between JAX and its coordinator.


def test_a_relay_passes_everything_on():
  data = os.urandom(3 << 20)
  with socket.create_server(('127.0.0.1', 0)) as server:
    between = relay.Relay('127.0.0.1', server.getsockname()[1])
    host, port = between.address.split(':')
    for _ in range(2):
      with socket.create_connection((host, int(port)), timeout=20) as near:
        far, _ = server.accept()
        with far:
          far.settimeout(20)
          sender = threading.Thread(target=near.sendall, args=(data,))
          sender.start()
          assert received(far, len(data)) == data
          sender.join()
          far.sendall(b'answer')
          assert received(near, 6) == b'answer'
          near.shutdown(socket.SHUT_WR)
          assert far.recv(10) == b''


def received(connection, size):
  found = b''
  while len(found) < size and (part := connection.recv(size - len(found))):
    found += part
  return found


def test_a_relay_hides_that_the_other_end_is_gone():
  server = socket.create_server(('127.0.0.1', 0))
  between = relay.Relay('127.0.0.1', server.getsockname()[1])
  host, port = between.address.split(':')
  with socket.create_connection((host, int(port)), timeout=20) as near:
    far, _ = server.accept()
    far.sendall(b'last')
    assert received(near, 4) == b'last'
    far.close()
    near.settimeout(0.5)
    with pytest.raises(TimeoutError):
      near.recv(10)
  server.close()
  # Nobody there at the start is not hidden: JAX has to try again.
  with socket.create_connection((host, int(port)), timeout=20) as near:
    assert near.recv(10) == b''
