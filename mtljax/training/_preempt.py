"""SIGTERM, by which machines announce that they will be taken away."""

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
_before: list[Any] = []


def _note(*_: Any) -> None:
  for preemption in _noting:
    preemption.signalled = True


class Preempted(SystemExit):
  """The process was asked to end, and what it had done is saved.

  It ends the program with status 143, as SIGTERM does, but after the step under
  way and its checkpoint.

  Attributes:
    step: the step that was saved.
  """

  def __init__(self, step: int, directory: str | os.PathLike[str]):
    super().__init__(128 + signal.SIGTERM)
    self.step = step
    self._directory = directory

  def __str__(self) -> str:
    return (
      f'stopped by SIGTERM at step {self.step}, saved in {self._directory}; '
      'run the same command to go on'
    )


class Preemption:
  """Notes SIGTERM inside its ``with`` block, where it is then no longer fatal.

  Under `jax.distributed` the processes are told by its own notice, so that all
  stop after the same step, whichever got the signal. Outside the main thread,
  where Python sets no handlers, and if not ``enabled``, SIGTERM stays as it is.
  """

  def __init__(self, enabled: bool):
    main = threading.current_thread() is threading.main_thread()
    self._distributed = enabled and jax.distributed.is_initialized()
    self._handles = enabled and main and not self._distributed
    self.signalled = False

  def __enter__(self) -> Preemption:
    if self._handles:
      if not _noting:
        _before.append(signal.signal(signal.SIGTERM, _note))
      _noting.append(self)
    return self

  def __exit__(self, *error: Any) -> None:
    if self._handles:
      _noting.remove(self)
      if not _noting:
        signal.signal(signal.SIGTERM, _before.pop())

  def noticed(self) -> bool:
    """Whether to stop now; called once a step, by every process."""
    if self._distributed:
      return multihost_utils.reached_preemption_sync_point(next(_calls))
    return self.signalled
