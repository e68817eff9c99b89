"""Rows of a table that each belong to one of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class TaskRows(NamedTuple):
  """Rows that each have a task, with one label.

  Attributes:
    names: of the tasks, T.
    owner: of each row its task, ``(N,)``, int32.
    features: ``(N, D)``, float32.
    labels: ``(N,)``, float32.
    deviation: of the labels of each task, ``(T,)``, float32.
  """

  names: tuple[str, ...]
  owner: np.ndarray
  features: np.ndarray
  labels: np.ndarray
  deviation: np.ndarray


def task_rows(
  names: tuple[str, ...],
  owner: np.ndarray,
  features: np.ndarray,
  labels: np.ndarray,
) -> TaskRows:
  """The rows, with the deviations of their labels."""
  own = [labels[owner == task] for task in range(len(names))]
  deviation = np.stack([np.std(x) for x in own])
  return TaskRows(names, owner, features, labels, deviation)


def draw_rows(
  owner: np.ndarray, counts: Mapping[str, np.ndarray], seed: int
) -> dict[str, list[np.ndarray]]:
  """Draws rows of every task for each split, none twice.

  Args:
    owner: of each row its task, ``(N,)``.
    counts: of each split, how many rows of each task, ``(T,)``; together at
      most those there are.
    seed: of the draw.

  Returns:
    Of each split and task its rows, in random order.
  """
  rng = np.random.default_rng(seed)
  drawn: dict[str, list[np.ndarray]] = {split: [] for split in counts}
  for task in range(len(next(iter(counts.values())))):
    rows = rng.permutation(np.flatnonzero(owner == task))
    ends = np.cumsum([counts[split][task] for split in counts])
    if ends[-1] > len(rows):
      raise ValueError(
        f'counts ask for {ends[-1]} rows of task {task}, which has {len(rows)}.'
      )
    for split, part in zip(counts, np.split(rows, ends)[:-1], strict=True):
      drawn[split].append(part)
  return drawn


def by_size(owner: np.ndarray, num_tasks: int) -> np.ndarray:
  """The tasks, those with the most rows first, ``(T,)``."""
  return np.argsort(-np.bincount(owner, minlength=num_tasks), kind='stable')
