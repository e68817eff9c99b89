"""Groups of tasks as numbers, all groupings of them, and what they are worth.

A group is a number whose bit t says whether task t is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def groups(num_tasks: int) -> list[int]:
  """All groups, single tasks too."""
  return list(range(1, 2**num_tasks))


def members(group: int) -> list[int]:
  """The tasks of a group."""
  return [t for t in range(group.bit_length()) if group >> t & 1]


def group_of(tasks) -> int:
  """The group of tasks."""
  return sum(1 << t for t in tasks)


def masks(num_tasks: int) -> np.ndarray:
  """A row of zeros and ones for each group, ``(2**T - 1, T)``."""
  numbers = np.array(groups(num_tasks))[:, None]
  return (numbers >> np.arange(num_tasks) & 1).astype(np.float32)


def groupings(num_tasks: int, most: int) -> list[tuple[int, ...]]:
  """All ways to divide the tasks into at most ``most`` groups."""

  def divide(left: int, room: int) -> Iterator[tuple[int, ...]]:
    if not left:
      yield ()
      return
    if not room:
      return
    first = left & -left
    others = left ^ first
    part = others
    while True:  # of all subsets of the others, the largest first
      group = first | part
      for rest in divide(left ^ group, room - 1):
        yield (group, *rest)
      if not part:
        return
      part = (part - 1) & others

  return list(divide(2**num_tasks - 1, most))


def relative_gains(
  metrics: np.ndarray, higher_is_better: np.ndarray
) -> np.ndarray:
  """What each task gains in each group, in percent of its metric alone.

  Args:
    metrics: a row a group, in order, ``(2**T - 1, T)``; only those of members
      are read.
    higher_is_better: one bool a task.

  Returns:
    The same shape: 0 for a task alone, NaN outside of a group.

  Raises:
    ValueError: a metric of a task alone is not positive, or not finite.
  """
  num_tasks = metrics.shape[1]
  alone = np.array([metrics[(1 << t) - 1, t] for t in range(num_tasks)])
  if not (np.isfinite(alone).all() and (alone > 0).all()):
    raise ValueError(f'tasks alone have metrics {alone}, not all positive')
  sign = np.where(higher_is_better, 1, -1)
  found = 100 * sign * (metrics - alone) / alone
  return np.where(masks(num_tasks) > 0, found, np.nan)


def pair_gains(gains: np.ndarray) -> np.ndarray:
  """Row s, column t: what t gains from s, ``(T, T)``; 0 on the diagonal."""
  num_tasks = gains.shape[1]
  found = np.zeros((num_tasks, num_tasks))
  for s in range(num_tasks):
    for t in range(num_tasks):
      if s != t:
        found[s, t] = gains[group_of((s, t)) - 1, t]
  return found


def worth(gains: np.ndarray, grouping: tuple[int, ...]) -> float:
  """The mean over tasks of what each gains in its group."""
  return float(np.mean([gains[g - 1, t] for g in grouping for t in members(g)]))


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
  """The entries of pairs, in both directions."""
  return matrix[~np.eye(len(matrix), dtype=bool)]
