import pytest

from painformer_jax.core.progress import duration
from painformer_jax.training import clock as clock_lib
from painformer_jax.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
  """The time, to be set by the test."""
  time = [100.0]
  monkeypatch.setattr(clock_lib.time, 'perf_counter', lambda: time[0])
  return time


def test_only_time_between_resume_and_pause_counts(now):
  clock = Clock()
  assert not clock.running
  clock.resume()
  now[0] += 2
  clock.tick(16)
  now[0] += 1
  clock.pause()
  assert not clock.running
  now[0] += 50  # An evaluation.
  clock.resume()
  now[0] += 3
  clock.tick(16)
  assert (clock.steps, clock.images, clock.seconds) == (2, 32, 6.0)


def test_rate_since_the_last_call(now):
  clock = Clock()
  assert clock.rate() == 0.0
  clock.resume()
  now[0] += 2
  clock.tick(16)
  assert clock.rate() == 8.0
  now[0] += 1
  clock.tick(32)
  now[0] += 1  # Waiting for the figures.
  assert clock.rate() == 16.0
  assert clock.rate() == 0.0


def test_a_record_goes_on(now):
  clock = Clock()
  clock.resume()
  now[0] += 5
  clock.tick(16)
  again = Clock(**clock.record())
  assert again == clock and not again.running
  assert again.rate() == 0.0  # What was before is not of this window.
  again.resume()
  now[0] += 1
  again.tick(16)
  assert again.record() == {'steps': 2, 'images': 32, 'seconds': 6.0, 'spent': {}}


def test_what_the_time_went_to(now):
  clock = Clock()
  clock.resume()
  clock.count('compute', 2.0)
  now[0] += 2
  with clock.during('checkpoint'):
    assert not clock.running
    now[0] += 7
  assert clock.running and clock.resumed == 109.0
  with pytest.raises(ValueError), clock.during('evaluation'):
    now[0] += 1
    raise ValueError
  assert clock.seconds == 2.0
  assert clock.split() == {'compute': 2.0, 'checkpoint': 7.0, 'evaluation': 1.0}
  assert clock.split() == {}
  clock.count('compute', 0.5)
  assert clock.split() == {'compute': 0.5}
  assert clock.spent == {'compute': 2.5, 'checkpoint': 7.0, 'evaluation': 1.0}
  record = clock.record()
  again = Clock(**record)
  again.count('compute', 1.0)
  assert again.spent['compute'] == 3.5 and record['spent']['compute'] == 2.5
  assert again.split() == {'compute': 1.0}


def test_a_record_of_an_older_release():
  assert Clock(steps=3, images=48, seconds=2.0).spent == {}


def test_remaining():
  clock = Clock(steps=40)
  assert clock.remaining(100, images_per_step=16, rate=32.0) == 30.0
  assert clock.remaining(40, images_per_step=16, rate=32.0) == 0.0
  assert clock.remaining(100, images_per_step=16, rate=0.0) == float('inf')
  # A quarter of the time so far was not training, and so it will be.
  clock = Clock(
    steps=40,
    spent={'compute': 50.0, 'input': 20.0, 'host': 5.0, 'evaluation': 15.0, 'checkpoint': 10.0},
  )
  assert clock.remaining(100, images_per_step=16, rate=32.0) == 40.0


@pytest.mark.parametrize(
  'seconds,text',
  [
    (0, '0s'),
    (59.9, '59s'),
    (60, '1m00s'),
    (192, '3m12s'),
    (3599, '59m59s'),
    (3600, '1h00m'),
    (18420, '5h07m'),
    (86399, '23h59m'),
    (86400, '1d00h'),
    (187200, '2d04h'),
    (float('inf'), '?'),
    (float('nan'), '?'),
  ],
)
def test_duration(seconds, text):
  assert duration(seconds) == text
