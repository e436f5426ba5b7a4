import os
import signal
import subprocess
import sys
import threading

import pytest
from repository import environment

from painformer_jax.training.interrupt import Interrupt


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number):
  before = [signal.getsignal(s) for s in Interrupt.SIGNALS]
  with Interrupt() as interrupt:
    assert not interrupt.stops()
    os.kill(os.getpid(), number)
    assert interrupt.asked and interrupt.stops()
  assert [signal.getsignal(s) for s in Interrupt.SIGNALS] == before


def test_the_second_signal_acts_at_once():
  with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
    os.kill(os.getpid(), signal.SIGINT)
    assert interrupt.asked
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_ends_the_process():
  code = """
import os, signal
from painformer_jax.training import interrupt as module
module._ONE_NOTICE = 0.5
with module.Interrupt() as interrupt:
  os.kill(os.getpid(), signal.SIGTERM)
  print(interrupt.asked, flush=True)
  os.kill(os.getpid(), signal.SIGTERM)
  print('the same notice', flush=True)
  module.time.sleep(0.6)
  os.kill(os.getpid(), signal.SIGTERM)
  print('still here')
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == -signal.SIGTERM and done.stdout == 'True\nthe same notice\n'


def test_while_nothing_is_to_be_saved_signals_end_the_process():
  code = """
import os, signal
from painformer_jax.training.interrupt import Interrupt
with Interrupt() as interrupt:
  with interrupt.at_once():
    pass
  os.kill(os.getpid(), signal.SIGINT)
  print(interrupt.asked, flush=True)
with Interrupt() as interrupt, interrupt.at_once():
  os.kill(os.getpid(), signal.SIGTERM)
  print('still here')
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == -signal.SIGTERM and done.stdout == 'True\n'
  assert done.stderr == 'stops as soon as what is done is saved; once more stops at once\n'


def test_an_ignored_signal_stays_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with Interrupt() as interrupt, interrupt.at_once():
      os.kill(os.getpid(), signal.SIGINT)
      assert not interrupt.asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back_without_a_signal():
  before = signal.getsignal(signal.SIGTERM)
  with Interrupt():
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_it_does_nothing():
  answers = []

  def run():
    with Interrupt() as interrupt:
      answers.append(interrupt.stops())

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert answers == [False]
