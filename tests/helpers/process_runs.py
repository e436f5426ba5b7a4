"""Runs of `painformer pretrain` by several real processes, on the loopback."""

import dataclasses
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

from training_runs import CommandLine


@dataclasses.dataclass(frozen=True)
class Topology:
  """How many processes train together, and how many devices each has."""

  processes: int = 1
  devices: int = 1

  def __str__(self):
    if self.processes == 1:
      return f'{self.devices} device(s)'
    return f'{self.processes} processes x {self.devices}'


class ProcessRun:
  """One start of a training run; what its processes say goes to files.

  Args:
    command: with the devices of each process.
    workdir: of the run.
    topology: its devices are those of the command.
    peer_timeout: seconds.
    limits: process -> bytes that its files may have, which stands in for a full disk.
  """

  def __init__(
    self,
    command: CommandLine,
    workdir: pathlib.Path,
    topology: Topology,
    *,
    peer_timeout: float = 10.0,
    limits: dict[int, int] | None = None,
  ):
    command = dataclasses.replace(command, devices=topology.devices)
    self.folder = workdir.with_name(f'{workdir.name} says')
    self.folder.mkdir(parents=True, exist_ok=True)
    self.topology, self.began = topology, time.perf_counter()
    number = len(list(self.folder.iterdir()))
    self.files = [self.folder / f'{number}-{index}' for index in range(topology.processes)]
    port = free_port()
    self.processes = []
    for index, file in enumerate(self.files):
      more = (
        []
        if topology.processes == 1
        else [
          '--coordinator',
          f'127.0.0.1:{port}',
          '--processes',
          str(topology.processes),
          '--process',
          str(index),
          '--peer-timeout',
          str(peer_timeout),
        ]
      )
      arguments = command.arguments(workdir, *more)
      if limit := (limits or {}).get(index):
        arguments[1:3] = [
          '-c',
          'import resource, sys; from painformer_jax.cli.main import '
          f'main; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); '
          'sys.exit(main())',
        ]
      with file.open('w') as out:
        self.processes.append(
          subprocess.Popen(
            arguments, env=command.environment(), stdout=subprocess.DEVNULL, stderr=out
          )
        )

  def __enter__(self) -> 'ProcessRun':
    return self

  def __exit__(self, *exc_info):
    for process in self.processes:
      process.send_signal(signal.SIGCONT)
      process.kill()
      process.wait()

  def wait_for(self, moment: Callable[[], bool], *, timeout: float = 300) -> bool:
    """Until something happens; False if the run ends before."""
    end = time.perf_counter() + timeout
    while not moment():
      if any(process.poll() is not None for process in self.processes):
        return False
      assert time.perf_counter() < end, self.messages()
      time.sleep(0.002)
    return True

  def finish(self, *, timeout: float = 300) -> list[int]:
    """The exit status of each, once all have ended."""
    return [process.wait(timeout=timeout) for process in self.processes]

  def messages(self) -> list[str]:
    """What each has said so far."""
    return [file.read_text() for file in self.files]

  def last_lines(self) -> list[str]:
    return [(text.splitlines() or [''])[-1] for text in self.messages()]

  def others(self, index: int) -> Iterator[subprocess.Popen]:
    return (process for number, process in enumerate(self.processes) if number != index)


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]
