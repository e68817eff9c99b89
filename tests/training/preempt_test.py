"""SIGTERM saves and ends; see kill_test.py for the run that goes on."""

import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.training import Preempted, exit_on_error
from mtljax.training._preempt import Preemption
from mtljax.training.loop._window import Window


def test_sigterm_is_noted_and_the_handler_restored():
  before = signal.getsignal(signal.SIGTERM)
  with Preemption(True) as preemption:
    assert not preemption.noticed()
    signal.raise_signal(signal.SIGTERM)
    assert preemption.noticed()
  assert signal.getsignal(signal.SIGTERM) == before
  with Preemption(True) as preemption:
    assert not preemption.noticed()


@pytest.mark.parametrize('enabled', [True, False])
def test_handlers_are_left_alone_elsewhere(enabled):
  before = signal.getsignal(signal.SIGTERM)
  found = []

  def enter():
    with Preemption(enabled):
      found.append(signal.getsignal(signal.SIGTERM))

  if enabled:
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
  else:
    enter()
  assert found == [before]


def test_programs_end_with_the_status_of_sigterm(capsys):
  with pytest.raises(SystemExit) as ended, exit_on_error():
    raise Preempted(7, 'out/checkpoints')
  assert ended.value.code == 143
  said = capsys.readouterr().err
  assert 'step 7, saved in out/checkpoints; run the same command' in said


def test_a_window_goes_on_with_the_same_means():
  metrics = [
    {'losses': jnp.array([0.1, 1 / 3]) * i, 'norm': jnp.float32(i)}
    for i in range(1, 5)
  ]
  whole, first = Window(['a', 'b']), Window(['a', 'b'])
  for i, m in enumerate(metrics):
    whole.add(i, m, 8)
  for i, m in enumerate(metrics[:3]):
    first.add(i, m, 8)
  second = Window(['a', 'b'], first.get_state())
  second.add(3, metrics[3], 8)
  expected, found = whole.means(), second.means()
  for name in ('loss/a', 'loss/b', 'norm'):
    assert found[name] == expected[name]
    assert found[name].dtype == np.float32
