"""Traces: which steps are in them, and who may ask for one."""

import gzip
import json
import os
import re
import signal
import threading

import jax
import jax.numpy as jnp
import pytest
from training_runs import shared_folder, small_config

from painformer_jax.training import loop, profile
from painformer_jax.training.config import from_config_dict
from painformer_jax.training.metrics import read_metrics
from painformer_jax.training.profile import Profiler

STEP = jax.jit(lambda x: (x @ x).sum())


@pytest.fixture(scope='module', autouse=True)
def compiled():
  STEP(jnp.ones((64, 64))).block_until_ready()


@pytest.fixture
def looks_at_once(monkeypatch):
  monkeypatch.setattr(profile, '_SECONDS_BETWEEN_LOOKS', 0.0)


def train(profiler, steps, *, on_step=lambda step: None, first=1):
  """As the loop does; returns the steps after which a trace ended."""
  ended = []
  for step in range(first, first + steps):
    on_step(step)
    profiler.starts_at(step)
    with profiler.step(step):
      result = STEP(jnp.ones((64, 64)))
    if profiler.ends_at(step):
      profiler.end(result)
      ended.append(step)
  return ended


def steps_traced(folder):
  """Numbers of the steps in a trace, as XProf's file and Perfetto's have them."""
  files = list(folder.glob('plugins/profile/*/*'))
  (plane,) = (f for f in files if f.name.endswith('.xplane.pb'))
  data = jax.profiler.ProfileData.from_file(str(plane))
  found = {
    dict(event.stats)['step_num']
    for p in data.planes
    for line in p.lines
    for event in line.events
    if event.name == 'train'
  }
  (perfetto,) = (f for f in files if f.name == 'perfetto_trace.json.gz')
  events = json.loads(gzip.decompress(perfetto.read_bytes()))['traceEvents']
  assert {int(e['args']['step_num']) for e in events if e.get('name') == 'train'} == found
  assert len(events) > len(found)
  return sorted(found)


def test_at_a_step(tmp_path, capfd):
  with Profiler(tmp_path, at=3, steps=2) as profiler:
    assert train(profiler, 6) == [4]
  assert [p.name for p in (tmp_path / 'profile').iterdir()] == ['step3']
  assert steps_traced(tmp_path / 'profile/step3') == [3, 4]
  assert capfd.readouterr().err == (
    'traces steps 3 to 4\n'
    f'a trace is in {tmp_path}/profile/step3: tensorboard --logdir {tmp_path}/profile '
    '(with its profile plug-in)\n'
  )


def test_never(tmp_path):
  with Profiler(tmp_path, at=0, steps=2) as profiler:
    assert train(profiler, 3) == []
  assert not list(tmp_path.iterdir())


def test_by_a_file(tmp_path, looks_at_once):
  """As often as it is asked; the file goes when it is heeded."""
  request = tmp_path / profile.REQUEST
  with Profiler(tmp_path, at=0, steps=2) as profiler:
    assert train(profiler, 9, on_step=lambda step: step in (2, 6) and request.touch()) == [3, 7]
    assert not request.exists()
  assert steps_traced(tmp_path / 'profile/step2') == [2, 3]
  assert steps_traced(tmp_path / 'profile/step6') == [6, 7]


def test_the_file_is_not_looked_for_at_every_step(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(profile.time, 'monotonic', lambda: now[0])
  (tmp_path / profile.REQUEST).touch()

  def pass_time(step):
    now[0] += 0.5

  with Profiler(tmp_path, at=0, steps=1) as profiler:
    profiler.starts_at(1)
    assert profiler.ends_at(1)
    profiler.end(())
    (tmp_path / profile.REQUEST).touch()
    assert train(profiler, 6, on_step=pass_time, first=2) == [5]


def test_by_a_signal(tmp_path):
  before = signal.getsignal(signal.SIGUSR1)
  with Profiler(tmp_path, at=0, steps=1) as profiler:
    assert train(
      profiler, 4, on_step=lambda step: step == 2 and os.kill(os.getpid(), signal.SIGUSR1)
    ) == [2]
  assert signal.getsignal(signal.SIGUSR1) == before
  assert steps_traced(tmp_path / 'profile/step2') == [2]


def test_asked_for_twice_at_once(tmp_path):
  """While a trace is under way, the next one waits for its end."""

  def ask(step):
    if step in (2, 3):
      os.kill(os.getpid(), signal.SIGUSR1)

  with Profiler(tmp_path, at=3, steps=3) as profiler:
    assert train(profiler, 8, on_step=ask) == [4, 7]


def test_a_run_that_ends_in_the_middle_of_a_trace(tmp_path):
  with Profiler(tmp_path, at=2, steps=100) as profiler:
    assert train(profiler, 3) == []
  assert steps_traced(tmp_path / 'profile/step2') == [2, 3]


def test_another_trace_is_under_way(tmp_path, capfd):
  """Someone else's: training goes on without."""
  with jax.profiler.trace(tmp_path / 'other'), Profiler(tmp_path, at=1, steps=1) as profiler:
    assert train(profiler, 2) == []
  assert capfd.readouterr().err.startswith('no trace of step 1: ')
  assert not list((tmp_path / 'profile/step1').iterdir())


def test_a_trace_that_cannot_be_written(tmp_path, capfd, monkeypatch):
  (tmp_path / 'profile').write_text('')
  with Profiler(tmp_path, at=1, steps=1) as profiler:
    assert train(profiler, 2) == []
  assert 'no trace of step 1: [Errno 20] Not a directory' in capfd.readouterr().err
  (tmp_path / 'profile').unlink()

  stop = jax.profiler.stop_trace

  def full():
    stop()
    raise OSError('No space left on device')

  monkeypatch.setattr(jax.profiler, 'stop_trace', full)
  with Profiler(tmp_path, at=1, steps=1) as profiler:
    assert train(profiler, 3) == [1]
  assert capfd.readouterr().err.endswith(
    f'the trace could not be written to {tmp_path}/profile/step1: No space left on device\n'
  )


def test_outside_the_main_thread(tmp_path):
  """There Python takes no signals; the rest works."""
  ended = []

  def run():
    with Profiler(tmp_path, at=1, steps=1) as profiler:
      ended.extend(train(profiler, 2))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert ended == [1]


# In a run.


def test_a_run_that_is_traced(tmp_path_factory, tmp_path, capfd):
  """Its trace is of the steps asked for, and what it says goes on as before."""
  folder = shared_folder(tmp_path_factory)
  config = from_config_dict(
    small_config(
      folder / 'data', steps=5, log_every=1, checkpoint_every=5, profile_at=3, profile_steps=2
    )
  )
  loop.pretrain(config, tmp_path / 'run')
  assert steps_traced(tmp_path / 'run/profile/step3') == [3, 4]
  rows = [row for row in read_metrics(tmp_path / 'run') if 'loss' in row]
  assert ['seconds/profile' in row for row in rows] == [False] * 3 + [True, False]
  assert all('seconds/compute' in row for row in rows[1:])
  assert rows[-1]['seconds/compute'] > 0
  lines = capfd.readouterr().err
  assert 'traces steps 3 to 4\n' in lines
  assert re.search(r'images/s  eta \S+  \(.*compute \d+%', lines)
  report = json.loads((tmp_path / 'run/report.json').read_text())
  spent = report['seconds_spent']
  assert {'compute', 'input', 'host', 'checkpoint', 'evaluation', 'profile'} == spent.keys()
  assert sum(spent[name] for name in ('compute', 'input', 'host')) <= report['train_seconds']


@pytest.mark.slow
def test_the_first_step_compiles_and_is_not_traced(tmp_path_factory, tmp_path):
  folder = shared_folder(tmp_path_factory)
  config = from_config_dict(
    small_config(folder / 'data', steps=2, log_every=2, checkpoint_every=2, profile_at=1)
  )
  loop.pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run/profile').exists()
