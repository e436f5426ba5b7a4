"""Several processes that train together: how they find each other, agree and end.

JAX's own heartbeats notice a process that died. Measured with two and four processes on
CPUs (jax 0.12 on Python 3.13, jax 0.10 on 3.11), seconds until all the others ended:

| what happens | peer_timeout 20 | peer_timeout 60 |
|---|---|---|
| a process is killed, the others wait for it in a sum over devices | 0.2 to 0.6 | |
| process 0 is killed, the others do anything else | 0.3 to 1.4 | |
| another is killed, the others compile, wait or work on the host | 18.8 to 20.7 | 60.0 |
| a process is stopped or cut off, whatever the others do | 18.8 to 20.1 | 59.2 to 59.5 |

In the first case this package prints the last line and the exit status is 1. In the
others JAX ends the process from C++ with a page of its own, by SIGABRT.
"""

import collections
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.parallel.mesh import DATA, data_mesh, many_processes, replicated, wait_for_all

# Seconds until all processes must have started.
START_TIMEOUT = 300.0
# Seconds without a sign of life after which a process counts as dead.
PEER_TIMEOUT = 60.0


class Stopped(KeyboardInterrupt):
  """All processes stop here together, and what is done is saved."""


@contextlib.contextmanager
def joined(
  *,
  coordinator: str | None = None,
  count: int | None = None,
  index: int | None = None,
  explain: Callable[[BaseException], int],
  start_timeout: float = START_TIMEOUT,
  peer_timeout: float = PEER_TIMEOUT,
) -> Iterator[None]:
  """Inside, this is one of several processes that see one another's devices.

  Where one of them fails or dies, the others end too. After an error in here this
  process ends at once, without the usual clean-up: at the end of a process JAX and Orbax
  wait for all the others.

  Args:
    coordinator: 'host:port' of process 0, the same in all processes; it needs `count`
      and `index`. None where JAX finds all three: SLURM, Open MPI, TPU pods, and
      Kubernetes with jax[k8s].
    count: how many processes there are.
    index: which one this is, from 0.
    explain: prints an error, returns the exit status.
    start_timeout: seconds until all processes must have started.
    peer_timeout: seconds without a sign of life after which a process counts as dead.

  Raises:
    InputError: the arguments do not fit together, or JAX does not find the other
      processes. If some do not start in time, or the network fails, this process ends
      with status 1, so that what started it tries again.
  """
  if coordinator is not None:
    _check(coordinator, count, index)
    if index == 0:
      progress.log(f'waits for {count - 1} other process(es) at {coordinator}')
  # When to stop is agreed on by `AnyProcess`, which evaluations can ask as well.
  jax.config.update('jax_enable_preemption_service', False)
  with _time_limit(start_timeout):
    _find_the_others(
      coordinator=coordinator,
      count=count,
      index=index,
      start_timeout=start_timeout,
      peer_timeout=peer_timeout,
    )
  if jax.process_count() == 1:
    yield
    return
  try:
    yield
    wait_for_all('all done')
  except Stopped:
    wait_for_all('all done')
    raise
  except BaseException as error:
    status = explain(error)
    if not isinstance(error, (InputError, KeyboardInterrupt)):
      # An error of a library may be what another process left behind when it died.
      progress.log(
        f'painformer: process {jax.process_index()} of {jax.process_count()} stops; if another '
        'ended first, its own messages say why; run the same command again to resume from '
        'the last checkpoint'
      )
    _exit(status)


def _find_the_others(
  *,
  coordinator: str | None,
  count: int | None,
  index: int | None,
  start_timeout: float,
  peer_timeout: float,
) -> None:
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes=count,
      process_id=index,
      cluster_detection_method='deactivate' if coordinator else None,
      # Later than `_time_limit`, since JAX would end the process with pages from C++.
      initialization_timeout=int(start_timeout) + 60,
      heartbeat_timeout_seconds=int(peer_timeout),
      shutdown_timeout_seconds=int(peer_timeout),
    )
  except (ValueError, RuntimeError, OSError, KeyError) as error:
    found = f'the processes do not find each other ({str(error).splitlines()[0]})'
    if isinstance(error, RuntimeError):  # Of the network, or of a process that is gone.
      progress.log(f'painformer: {found}')
      _exit(1)
    if coordinator is None:
      found = (
        f'--distributed: {found}; start them with SLURM, Open MPI, Kubernetes or on a TPU '
        'pod, or name --coordinator, --processes and --process'
      )
    raise InputError(found) from error


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
  """Ends the process with one line and status 1 if what is within takes too long."""

  def end():
    progress.log(
      f'painformer: after {seconds:g} s not all processes have started: see that each was '
      'started, with the same --coordinator and another --process'
    )
    _exit(1)

  timer = threading.Timer(seconds, end)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _exit(status: int) -> None:
  """Ends the process at once: no thread, and no other process, is waited for."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _check(coordinator: str, count: int | None, index: int | None) -> None:
  if count is None or index is None:
    raise InputError('--coordinator needs --processes and --process as well')
  host, _, port = coordinator.rpartition(':')
  if not host.strip('[]') or not port.isdecimal() or not 0 < int(port) < 65536:
    raise InputError(f'--coordinator {coordinator} is no HOST:PORT, such as 127.0.0.1:9876')
  if count < 1 or not 0 <= index < count:
    raise InputError(f'--process {index} of --processes {count}: processes are numbered from 0 on')
  if index == 0:
    _check_free(coordinator, int(port))


def _check_free(coordinator: str, port: int) -> None:
  """Asserts that process 0 can listen on the port; if not, JAX may crash."""
  both = socket.has_dualstack_ipv6()
  try:
    socket.create_server(
      ('', port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
    ).close()
  except OSError as error:
    raise InputError(
      f'process 0 cannot answer at {coordinator} ({os.strerror(error.errno)}): name '
      'another port, in all processes'
    ) from error


class AnyProcess:
  """An asynchronous any(): every process gets the same answer, `LAG` calls later.

  The devices compute it while they train, so that no process waits for the others. Each
  process must call it equally often.
  """

  LAG = 2

  def __init__(self):
    mesh = data_mesh()
    self._per_device = NamedSharding(mesh, PartitionSpec(DATA))
    self._any = jax.jit(jax.numpy.max, out_shardings=replicated(mesh))
    self._pending = collections.deque()

  def __call__(self, here: bool) -> bool:
    """Whether any process said True `LAG` calls ago; False in the first calls."""
    values = np.full(jax.local_device_count(), here, np.int32)
    self._pending.append(
      self._any(jax.make_array_from_process_local_data(self._per_device, values))
    )
    if len(self._pending) <= self.LAG:
      return False
    return bool(jax.device_get(self._pending.popleft()))


def all_agree(here: bool) -> bool:
  """Whether every process says True. Waits for all; each must make the same calls."""
  if not many_processes():
    return here
  return bool(multihost_utils.process_allgather(np.array([here], np.int32)).all())


def total(values: np.ndarray) -> np.ndarray:
  """Sums over all processes, modulo 2^64. Waits for all; each must make the same calls.

  Args:
    values: [n] uint64.

  Returns:
    [n] uint64.
  """
  if not many_processes():
    return values
  # As halves: JAX has no integers of 64 bits by default.
  halves = multihost_utils.process_allgather(values.view(np.uint32))
  return np.ascontiguousarray(halves).view(np.uint64).sum(axis=0, dtype=np.uint64)
