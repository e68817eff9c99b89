"""Metrics between two lines of the log, kept on the device until asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtljax.training.loop._finite import NonFiniteLossError
from mtljax.training.step._absent import PRESENT

# Waiting for the device once in so many steps costs nothing that shows, and
# bounds the memory held and the steps run after a non-finite loss.
_FETCH_EVERY = 128


class Window:
  """Collects the metrics of steps and gives their means.

  Of a task, or a pair, that is not present in all steps: the mean over those
  where it is, and nothing where there are none.

  Nothing is read from the device until `means` (or every 128 steps).
  """

  def __init__(
    self, task_names: Sequence[str], state: Mapping[str, Any] | None = None
  ):
    self._task_names = tuple(task_names)
    self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
    self.reset()
    for name, (dtype, values) in (state or {}).items():
      self._values[name] = [np.asarray(value, dtype) for value in values]

  def get_state(self) -> dict[str, Any]:
    """What was noted since the last line, as JSON for another window."""
    self.fetch()
    return {
      name: [values[0].dtype.name, [np.asarray(x).tolist() for x in values]]
      for name, values in self._values.items()
    }

  def reset(self) -> None:
    """Starts a new window, and its clock."""
    self._values: dict[str, list[np.ndarray]] = {}
    self._examples = 0
    self._start = time.perf_counter()

  def restart_clock(self) -> None:
    """Leaves what has passed (compilation) out of the throughput."""
    self._examples = 0
    self._start = time.perf_counter()

  def add(
    self, step: int, metrics: Mapping[str, jax.Array], examples: int
  ) -> None:
    """Notes the metrics of a step, arrays that may still be computed."""
    self._pending.append((step, metrics))
    self._examples += examples
    if len(self._pending) >= _FETCH_EVERY:
      self.fetch()

  def fetch(self) -> None:
    """Waits for the steps noted.

    Raises:
      NonFiniteLossError: a loss among them is not finite.
    """
    pending, self._pending = jax.device_get(self._pending), []
    tasks = self._task_names
    for step, metrics in pending:
      shape = np.shape(metrics.get('losses'))
      if shape != (len(tasks),):
        raise ValueError(
          f"metrics['losses'] of the step has shape {shape}: it has to have "
          f'one loss for each of the {len(tasks)} task_names'
        )
      here = np.asarray(metrics.get(PRESENT, np.ones(len(tasks))), bool)
      for task, loss, counts in zip(
        tasks, metrics['losses'], here, strict=True
      ):
        if counts and not np.isfinite(loss):
          raise NonFiniteLossError(
            f'the loss of task {task!r} is {loss} at step {step}',
            step=step,
            task=task,
          )
      for name, value in metrics.items():
        if name == 'losses':  # of absent tasks, NaN is no number to add
          value = np.where(here, value, np.zeros_like(value))
        self._values.setdefault(name, []).append(value)

  def means(self) -> dict[str, Any]:
    """Means over the window by name, examples a second; starts the next."""
    self.fetch()
    seconds = time.perf_counter() - self._start
    line: dict[str, Any] = {}
    here = self._values.get(PRESENT)
    for name, values in self._values.items():
      wide = values[0].dtype == np.float64
      counts = None if name == PRESENT else _counts(here, values[0].shape)
      if counts is None:
        mean = np.mean(np.stack(values), axis=0, dtype=np.float64)
      else:
        mean = _mean_of_present(np.stack(values), counts)
      named = self._named(name, mean if wide else mean.astype(np.float32))
      if counts is not None:
        of = self._named(name, np.sum(counts, axis=0))
        named = {key: x for key, x in named.items() if of[key] > 0}
      line |= named
    if self._examples and seconds > 0:
      line['examples_per_second'] = round(self._examples / seconds, 1)
    self.reset()
    return line

  def _named(self, name: str, value: np.ndarray) -> dict[str, Any]:
    tasks = self._task_names
    one = {'losses': 'loss'}.get(name, name.removesuffix('s'))
    if value.shape == ():
      return {name: value}
    if value.shape == (len(tasks),):
      return {f'{one}/{task}': x for task, x in zip(tasks, value, strict=True)}
    if value.shape == (len(tasks), len(tasks)):
      return {
        f'{one}/{tasks[i]},{tasks[j]}': value[i, j]
        for i in range(len(tasks))
        for j in range(i + 1, len(tasks))
      }
    raise ValueError(
      f'metric {name!r} of the step has shape {value.shape}; it has to be a '
      f'scalar, one value a task ({len(tasks)},), or one a pair of tasks'
    )


def _counts(
  here: list[np.ndarray] | None, shape: tuple[int, ...]
) -> np.ndarray | None:
  """Which values of a metric are of a task, or a pair, that is present."""
  if here is None:
    return None
  each = np.stack(here) > 0
  pairs = each[:, :, None] & each[:, None, :]
  return next((x for x in (each, pairs) if x.shape[1:] == shape), None)


def _mean_of_present(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  total = np.sum(values, axis=0, where=counts, dtype=np.float64)
  return total / np.maximum(np.sum(counts, axis=0), 1)
