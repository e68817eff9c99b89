"""Ctrl-C speaks as SIGTERM does."""

import signal

import pytest

from mtljax.training import Preempted, exit_on_error
from mtljax.training._preempt import Preemption


@pytest.fixture(autouse=True)
def pythons_own_handler():
  """What a notebook's client ran before may have left another."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_noted_and_a_second_one_stops_at_once():
  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(KeyboardInterrupt), Preemption(True) as preemption:
    signal.raise_signal(signal.SIGINT)
    assert preemption.noticed()
    assert preemption.signal == signal.SIGINT
    signal.raise_signal(signal.SIGINT)
    pytest.fail('the second was noted only')
  assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_program_is_left_alone():
  def own(number, frame):
    del number, frame

  before = signal.signal(signal.SIGINT, own)
  try:
    with Preemption(True):
      assert signal.getsignal(signal.SIGINT) is own
    assert signal.getsignal(signal.SIGINT) is own
  finally:
    signal.signal(signal.SIGINT, before)


def test_programs_end_with_the_status_of_ctrl_c(capsys):
  with pytest.raises(SystemExit) as ended, exit_on_error():
    raise Preempted(7, 'out/checkpoints', signal.SIGINT)
  assert ended.value.code == 130
  said = capsys.readouterr().err
  assert 'stopped by Ctrl-C at step 7, saved in out/checkpoints' in said
