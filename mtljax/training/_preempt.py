"""SIGTERM, by which machines announce that they go away, and Ctrl-C."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

# The processes of one run call `Preemption.noticed` equally often. They agree
# on one of these calls, as the steps of a study's runs all start at 1.
_calls = itertools.count(1)
# Python has one handler a signal; runs in step with each other share it.
_noting: list[Preemption] = []
_before: dict[int, Any] = {}
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _note(number: int, frame: Any) -> None:
  del frame
  if number == signal.SIGINT and any(p.signal == number for p in _noting):
    raise KeyboardInterrupt  # the second Ctrl-C does not wait for the step
  for preemption in _noting:
    preemption.signal = number


class Preempted(SystemExit):
  """The process was asked to end, and what it had done is saved.

  It ends the program with the status of its signal (SIGTERM: 143, Ctrl-C: 130),
  but after the step under way and its checkpoint.

  Attributes:
    step: the step that was saved.
  """

  def __init__(
    self,
    step: int,
    directory: str | os.PathLike[str],
    number: int = signal.SIGTERM,
  ):
    super().__init__(128 + number)
    self.step = step
    self._name = 'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'
    self._directory = directory

  def __str__(self) -> str:
    return (
      f'stopped by {self._name} at step {self.step}, '
      f'saved in {self._directory}; run the same command to go on'
    )


class Preemption:
  """Notes SIGTERM and Ctrl-C in its ``with`` block, where they do not end it.

  A second Ctrl-C raises KeyboardInterrupt at once. SIGINT is left alone where a
  program has its own handler of it, or ignores it.

  Under `jax.distributed` the processes are told by its own notice, so that all
  stop after the same step, whichever got the signal. Outside the main thread,
  where Python sets no handlers, and if not ``enabled``, SIGTERM stays as it is.
  """

  def __init__(self, enabled: bool):
    main = threading.current_thread() is threading.main_thread()
    self._distributed = enabled and jax.distributed.is_initialized()
    self._handles = enabled and main and not self._distributed
    self.signal: int | None = None

  def __enter__(self) -> Preemption:
    if self._handles:
      if not _noting:
        for number in _SIGNALS:
          before = signal.getsignal(number)
          if number == signal.SIGTERM or before is signal.default_int_handler:
            _before[number] = signal.signal(number, _note)
      _noting.append(self)
    return self

  def __exit__(self, *error: Any) -> None:
    if self._handles:
      _noting.remove(self)
      if not _noting:
        while _before:
          signal.signal(*_before.popitem())

  def noticed(self) -> bool:
    """Whether to stop now; called once a step, by every process."""
    if self._distributed:
      return multihost_utils.reached_preemption_sync_point(next(_calls))
    return self.signal is not None
