"""What the time of training goes to: the devices' work, or what keeps them waiting.

Dispatch is asynchronous: the host hands a step over and prepares the next one, so
that what the host waits for says little. A thread waits for each step in turn and
notes when it was done; the loop never waits for the sake of a figure.

Of several processes each watches its own devices, and the first one's figures are
written: that another one's input is slow shows as work of the devices, which wait for
one another within a step.
"""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Sequence

import jax

from painformer_jax.training.clock import COMPUTE, HOST, INPUT, Clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenStep:
  """When, in seconds of `time.perf_counter`: the host asked for the batch, had it, and
  began to hand the step over to the devices."""

  asked: float
  fetched: float
  given: float


def divide(
  steps: Sequence[GivenStep], done: Sequence[float], *, idle_since: float
) -> dict[str, float]:
  """What the time from `idle_since` until the last step was done went to.

  Args:
    steps: in the order in which they were handed over.
    done: when the devices were done with each.
    idle_since: from when on they had nothing to do.

  Returns:
    Seconds of COMPUTE, INPUT (the devices idle, the host waiting for a batch) and
    HOST (the devices idle, the host at something else). Where a batch comes before
    the devices have run out of work, waiting for it costs nothing and counts as
    nothing.
  """
  spent = dict.fromkeys((COMPUTE, INPUT, HOST), 0.0)
  for step, end in zip(steps, done, strict=True):
    if step.given > idle_since:
      waited = max(0.0, step.fetched - max(step.asked, idle_since))
      spent[INPUT] += waited
      spent[HOST] += step.given - idle_since - waited
      idle_since = step.given
    spent[COMPUTE] += max(0.0, end - idle_since)
    idle_since = max(end, idle_since)
  return spent


class DeviceWatch:
  """Divides the time of a clock among COMPUTE, INPUT and HOST.

  Args:
    clock: of the run; nothing is counted before it runs.
  """

  def __init__(self, clock: Clock):
    self._clock = clock
    self._idle_since = self._asked = self._fetched = 0.0
    self._given: list[GivenStep] = []
    self._done: list[float] = []
    self._waiting: queue.Queue = queue.Queue()
    # A daemon: a step that never ends holds up no exit.
    threading.Thread(target=self._wait, name='device watch', daemon=True).start()

  @contextlib.contextmanager
  def fetching(self) -> Iterator[None]:
    """Around the wait for a batch."""
    self._asked = time.perf_counter()
    yield
    self._fetched = time.perf_counter()

  @contextlib.contextmanager
  def giving(self) -> Iterator[list]:
    """Around the call that hands a step over; append its results to the list.

    They must be arrays that no later step takes over (donation). The call itself
    counts as the devices' work: some of them do all of it before they return.
    """
    given, results = time.perf_counter(), []
    yield results
    if self._clock.running:
      self._given.append(GivenStep(asked=self._asked, fetched=self._fetched, given=given))
      self._waiting.put(results)

  def settle(self) -> None:
    """Counts the time up to now; waits for the steps under way.

    To be called before each pause of the clock and before its figures are read.
    """
    if not self._clock.running:
      return
    self._waiting.join()
    idle_since = max(self._idle_since, self._clock.resumed)
    done, self._done = self._done, []
    for activity, seconds in divide(self._given, done, idle_since=idle_since).items():
      self._clock.count(activity, seconds)
    self._given, self._idle_since = [], time.perf_counter()
    self._clock.count(HOST, self._idle_since - max([idle_since, *done]))

  def close(self) -> None:
    """Ends the thread as soon as what it waits for is done."""
    self._waiting.put(None)

  def _wait(self) -> None:
    while (results := self._waiting.get()) is not None:
      try:
        jax.block_until_ready(results)
      except Exception:  # The loop meets the same error, and reports it.
        pass
      self._done.append(time.perf_counter())
      del results
      self._waiting.task_done()
