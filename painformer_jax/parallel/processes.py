"""Several processes that train together: how they meet, agree and part."""

import collections
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import liveness, relay
from painformer_jax.parallel import mesh as parallel

# Seconds: for all to come, and without a sign of life until a process counts as dead.
START_TIMEOUT = 300.0
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

  Where one of them fails or dies, the others end too, each with one line, instead of
  waiting for it for ever in the next sum over devices: at once where its system closes
  its connections, after `peer_timeout` where a whole machine is gone (`liveness`). After
  an error in here this process ends at once, since what JAX and Orbax do at the end
  of a process waits for all of them.

  Args:
    coordinator: 'host:port' of process 0, the same in all; it needs `count` and
      `index`. None where JAX finds all three: SLURM, Open MPI, TPU pods, and Kubernetes
      with jax[k8s].
    count: how many processes there are.
    index: which one this is, from 0.
    explain: prints an error, returns the exit status.
    start_timeout: seconds for all to come.
    peer_timeout: seconds.

  Raises:
    InputError: the place does not make sense, or is not found. Where not all come in
      time, or the network fails, the process ends with a line instead: JAX cannot be
      called back.
  """
  if coordinator is not None:
    _check(coordinator, count, index)
    place = _Place(coordinator, count, index)
    if index == 0:
      progress.log(f'waits for {count - 1} other process(es) at {coordinator}')
  else:
    place = _found_by_jax(start_timeout)
  host, port = _split(place.coordinator)
  if place.index == 0:
    near = place.coordinator
    _check_free(near, port)
  else:
    near = relay.Relay(host, port).address
  # A stop is agreed upon by `AnyProcess`, which evaluations can ask as well.
  jax.config.update('jax_enable_preemption_service', False)
  # JAX is not to notice before `liveness` does: it ends a process with pages from C++.
  late = int(2 * peer_timeout) + 10
  # With status 1: on a cluster they may yet come, and what started this one tries again.
  waiting = threading.Timer(
    start_timeout,
    liveness.end_process,
    [
      f'after {start_timeout:g} s not all of {place.count} processes are at '
      f'{place.coordinator}: see that each was started, and with another --process'
    ],
  )
  waiting.daemon = True
  waiting.start()
  try:
    jax.distributed.initialize(
      near,
      num_processes=place.count,
      process_id=place.index,
      local_device_ids=place.devices,
      cluster_detection_method='deactivate',
      initialization_timeout=int(start_timeout) + 60,
      heartbeat_timeout_seconds=late,
      shutdown_timeout_seconds=late,
    )
  except (ValueError, RuntimeError) as error:
    line = (
      f'the processes do not find each other at {place.coordinator}: {str(error).splitlines()[0]}'
    )
    if isinstance(error, RuntimeError):  # Of the network, or of a process that is gone.
      liveness.end_process(line)
    raise InputError(line) from error
  if jax.process_count() == 1:
    waiting.cancel()
    yield
    return
  peers = _meet(host, peer_timeout)
  waiting.cancel()
  try:
    yield
    _part(peers)
  except Stopped:
    _part(peers)
    raise
  except BaseException as error:
    # An error of a library may be what a dead process left behind.
    own = isinstance(error, (InputError, KeyboardInterrupt, SystemExit))
    line = peers.lost(wait=0 if own else 2 * liveness.GRACE)
    if line and not own:
      liveness.end_process(line)
    peers.abandon()
    status = explain(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where process 0 is, how many there are, which one this is, its devices."""

  coordinator: str
  count: int
  index: int
  devices: tuple[int, ...] | None = None


def _check(coordinator: str, count: int | None, index: int | None) -> None:
  if count is None or index is None:
    raise InputError('--coordinator needs --processes and --process as well')
  host, port = _split(coordinator)
  if not host or not 0 < port < 65536:
    raise InputError(f'--coordinator {coordinator} is no HOST:PORT, such as 127.0.0.1:9876')
  if count < 1 or not 0 <= index < count:
    raise InputError(f'--process {index} of --processes {count}: processes are numbered from 0 on')


def _check_free(coordinator: str, port: int) -> None:
  """Of a port that is taken JAX may crash."""
  try:
    liveness.listen_on(port).close()
  except OSError as error:
    raise InputError(
      f'process 0 cannot answer at {coordinator} ({os.strerror(error.errno)}): name '
      'another port, in all processes'
    ) from error


def _split(address: str) -> tuple[str, int]:
  host, _, port = address.rpartition(':')
  return host.strip('[]'), int(port) if port.isdecimal() else 0


def _found_by_jax(timeout: float) -> _Place:
  """What SLURM, Open MPI, a TPU pod or Kubernetes set up, as JAX reads it."""
  # What it finds, JAX tells nobody else, but `liveness` has to know it.
  from jax._src.clusters import ClusterEnv

  try:
    coordinator, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
      os.environ.get('JAX_COORDINATOR_ADDRESS'), None, None, None, None, int(timeout)
    )
  except (ValueError, RuntimeError, OSError, KeyError) as error:
    raise InputError(f'--distributed: the processes do not find each other ({error})') from error
  if None in (coordinator, count, index):
    raise InputError(
      '--distributed: the processes do not find each other; start them with SLURM, Open '
      'MPI, Kubernetes or on a TPU pod, or name --coordinator, --processes and --process'
    )
  return _Place(coordinator, count, index, devices and tuple(devices))


def _meet(host: str, timeout: float) -> liveness.Peers:
  """Every process connects to process 0, which tells them its port."""
  peers = liveness.Peers(process=jax.process_index(), count=jax.process_count(), timeout=timeout)
  meeting = peers.listen() if parallel.is_main() else liveness.Meeting()
  port, token = multihost_utils.broadcast_one_to_all(
    np.array([meeting.port, meeting.token], np.int32)
  ).tolist()
  if not parallel.is_main():
    peers.connect(host, liveness.Meeting(port=port, token=token))
  return peers


def _part(peers: liveness.Peers) -> None:
  parallel.wait_for_all('all done')
  peers.leave()


class AnyProcess:
  """Whether any process says yes; all get the same answer, some questions later.

  The devices find out while they train: the answer to a question comes with the
  one `LAG` later, so that nobody waits. Every process must ask as often.
  """

  LAG = 2

  def __init__(self):
    mesh = parallel.data_mesh()
    self._each = NamedSharding(mesh, PartitionSpec(parallel.DATA))
    self._any = jax.jit(jax.numpy.max, out_shardings=parallel.replicated(mesh))
    self._asked = collections.deque()

  def __call__(self, here: bool) -> bool:
    devices = np.full(jax.local_device_count(), here, np.int32)
    self._asked.append(self._any(jax.make_array_from_process_local_data(self._each, devices)))
    if len(self._asked) <= self.LAG:
      return False
    return bool(jax.device_get(self._asked.popleft()))


def all_agree(here: bool) -> bool:
  """Whether every process says yes; each must ask alike. It waits for all."""
  if not parallel.many_processes():
    return here
  return bool(multihost_utils.process_allgather(np.array([here], np.int32)).all())


def total(values: np.ndarray) -> np.ndarray:
  """[n] uint64 -> their sums over all processes, modulo 2^64; each must call alike."""
  if not parallel.many_processes():
    return values
  # As halves: JAX has no integers of 64 bits by default.
  halves = multihost_utils.process_allgather(values.view(np.uint32))
  return np.ascontiguousarray(halves).view(np.uint64).sum(axis=0, dtype=np.uint64)
