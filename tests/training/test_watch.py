"""What the time of a step goes to, with the devices played by events."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.training.clock import COMPUTE, HOST, INPUT, Clock
from painformer_jax.training.watch import DeviceWatch, GivenStep, divide


def divided(*steps, idle_since=0.0):
  """Of (asked, fetched, given, done)."""
  return divide(
    [GivenStep(asked=a, fetched=f, given=g) for a, f, g, _ in steps],
    [step[3] for step in steps],
    idle_since=idle_since,
  )


def test_devices_that_never_wait():
  """The host hands over a step while the one before is under way."""
  assert divided((0, 0, 0, 10), (1, 2, 2, 20), (3, 9, 9, 30)) == {COMPUTE: 30, INPUT: 0, HOST: 0}


def test_input_that_is_too_slow():
  """Each batch takes 10 s, each step 4 s: the devices wait for 6 of them."""
  found = divided((0, 10, 10, 14), (10, 20, 20, 24), (20, 30, 30, 34))
  assert found == {COMPUTE: 12, INPUT: 10 + 6 + 6, HOST: 0}


def test_a_host_that_is_too_slow():
  """It has the batch, and does something else before it hands the step over."""
  assert divided((0, 1, 4, 5), (5, 5, 9, 10)) == {COMPUTE: 2, INPUT: 1, HOST: 3 + 4}


def test_a_wait_that_began_while_the_devices_worked():
  assert divided((0, 0, 0, 5), (1, 8, 9, 10)) == {COMPUTE: 6, INPUT: 3, HOST: 1}


def test_after_a_pause_the_devices_are_idle_from_its_end_on():
  assert divided((101, 103, 103, 110), idle_since=100) == {COMPUTE: 7, INPUT: 2, HOST: 1}


spans = st.floats(0, 10, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(spans, spans, spans, spans), min_size=1, max_size=8), spans)
def test_nothing_is_lost_or_counted_twice(steps, idle_since):
  """Whatever the order of events, the parts sum up to the time that passed."""
  times, now, end = [], 0.0, idle_since
  for ask, fetch, give, work in steps:
    asked = now + ask
    fetched = asked + fetch
    given_ = fetched + give
    end = max(end, given_) + work
    times.append((asked, fetched, given_, end))
    now = given_
  found = divided(*times, idle_since=idle_since)
  assert min(found.values()) >= 0
  assert sum(found.values()) == pytest.approx(end - idle_since)


class Work:
  """What a device was given, until the test says it is done."""

  def __init__(self):
    self._done = threading.Event()

  def block_until_ready(self):
    self._done.wait()
    return self

  def finish(self):
    self._done.set()


def test_steps_are_watched_without_waiting_for_them():
  clock = Clock()
  watch = DeviceWatch(clock)
  with watch.giving() as results:  # The first step, which compiles.
    results.append(Work())
  clock.resume()
  works = [Work(), Work()]
  for work in works:
    with watch.fetching():
      pass
    with watch.giving() as results:
      results.append(work)
  assert clock.split() == {}
  settled = threading.Thread(target=watch.settle)
  settled.start()
  works[0].finish()
  settled.join(0.05)
  assert settled.is_alive()  # The second is under way.
  works[1].finish()
  settled.join(30)
  spent = clock.split()
  assert spent.keys() == {COMPUTE, INPUT, HOST}
  assert spent[COMPUTE] >= 0.05  # The second was held up for that long.
  watch.settle()
  assert clock.split().keys() == {COMPUTE, INPUT, HOST}
  watch.close()


def test_the_parts_are_of_the_time_of_training():
  """With real arrays, pauses between, and a step that fails."""
  clock = Clock()
  watch = DeviceWatch(clock)
  work = jax.jit(lambda x: (x @ x).sum())
  x = jnp.ones((300, 300))
  work(x).block_until_ready()

  class Broken:
    def block_until_ready(self):
      raise RuntimeError('a device is gone')

  clock.resume()
  for step in range(12):
    with watch.fetching():
      time.sleep(0.001)
    with watch.giving() as results:
      results.append(Broken() if step == 5 else work(x))
    clock.tick(1)
    if step % 4 == 3:
      watch.settle()
      with clock.during('checkpoint'):
        time.sleep(0.002)
  watch.settle()
  clock.pause()
  parts = {name: clock.spent[name] for name in (COMPUTE, INPUT, HOST)}
  # Each pause begins a moment after its parts were counted, no more.
  assert 0 < parts[INPUT] and 0 < parts[COMPUTE] and 0.012 <= sum(parts.values())
  assert sum(parts.values()) <= clock.seconds
  assert clock.spent['checkpoint'] >= 0.006
  watch.settle()  # Not running: nothing is counted.
  assert {name: clock.spent[name] for name in parts} == parts
  watch.close()
