"""Scores of a multi-task method over several metrics: delta-m, mean rank."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def delta_m(
  metrics: ArrayLike, baseline: ArrayLike, higher_is_better: Sequence[bool]
) -> np.ndarray:
  r"""Average relative drop against single-task baselines; lower is better.

  .. math:: \Delta_m = \frac{100}{N} \sum_{n=1}^{N}
      (-1)^{\sigma_n} \frac{M_n - B_n}{B_n}

  with :math:`\sigma_n = 1` where a higher value is better. It is computed on
  the host in float64.

  All metrics weigh the same, so a task with many metrics weighs more: of the
  nine of NYUv2, five belong to the surface normals. `delta_m_tasks` averages
  within a task first, and the two can disagree in sign. Name the metrics with
  the number. A metric with a small baseline can rule the average.

  ============================= =============================================
  input                         result
  ============================= =============================================
  metrics equal the baseline    0
  a metric is NaN or infinite   NaN or infinite
  baseline 0                    ValueError: the ratio is undefined
  baseline negative             ValueError: the sign would be turned round
  baseline NaN or infinite      ValueError
  ============================= =============================================

  Args:
    metrics: the method's metrics, shape ``(..., N)``; leading axes are
      methods or seeds.
    baseline: the single-task values, shape ``(N,)``, positive.
    higher_is_better: one bool a metric.

  Returns:
    Percent, shape ``(...)``.

  Raises:
    ValueError: shapes do not fit or a baseline is not positive and finite.

  Example:
    Accuracy falls from 0.80 to 0.76, the error from 0.50 to 0.45:

    >>> print(delta_m([0.76, 0.45], [0.80, 0.50], [True, False]).round(4))
    -2.5

  References:
    Maninis, Radosavovic and Kokkinos, `Attentive Single-Tasking of Multiple
    Tasks <https://arxiv.org/abs/1904.08918>`_, 2019; in this form Liu et al.,
    `Conflict-Averse Gradient Descent for Multi-task Learning
    <https://arxiv.org/abs/2110.14048>`_, 2021.
  """
  return np.mean(_relative_drop(metrics, baseline, higher_is_better), axis=-1)


def delta_m_tasks(
  metrics: ArrayLike,
  baseline: ArrayLike,
  higher_is_better: Sequence[bool],
  task_of_metric: Sequence[Hashable],
) -> np.ndarray:
  r"""Delta-m with each task weighing the same; lower is better.

  The relative drops of `delta_m` are averaged within each task, then over the
  K tasks:

  .. math:: \Delta_m = \frac{100}{K} \sum_k \frac{1}{N_k} \sum_{n \in k}
      (-1)^{\sigma_n} \frac{M_n - B_n}{B_n}

  The same edge cases as `delta_m`. With as many metrics in every task the two
  are equal. Some papers print the negative of this number.

  Args:
    metrics: the method's metrics, shape ``(..., N)``.
    baseline: the single-task values, shape ``(N,)``, positive.
    higher_is_better: one bool a metric.
    task_of_metric: the task of each metric, by name or number.

  Returns:
    Percent, shape ``(...)``.

  Raises:
    ValueError: shapes do not fit or a baseline is not positive and finite.

  Example:
    Task a falls by 10 % in both of its metrics, b rises by 10 % in its one:

    >>> higher, tasks = [True, True, True], ['a', 'a', 'b']
    >>> print(delta_m_tasks([9, 9, 11], [10, 10, 10], higher, tasks).round(4))
    0.0
    >>> print(delta_m([9, 9, 11], [10, 10, 10], higher).round(4))
    3.3333

  References:
    Vandenhende et al., `Multi-Task Learning for Dense Prediction Tasks: A
    Survey <https://arxiv.org/abs/2004.13379>`_, 2021; Senushkin et al.,
    `Independent Component Alignment for Multi-Task Learning
    <https://arxiv.org/abs/2305.19000>`_, 2023.
  """
  drops = _relative_drop(metrics, baseline, higher_is_better)
  if len(task_of_metric) != drops.shape[-1]:
    raise ValueError(
      f'task_of_metric must name a task for each of the {drops.shape[-1]} '
      f'metrics, got {len(task_of_metric)} names.'
    )
  members: dict[Hashable, list[int]] = {}
  for index, task in enumerate(task_of_metric):
    members.setdefault(task, []).append(index)
  tasks = [np.mean(drops[..., index], axis=-1) for index in members.values()]
  return np.mean(np.stack(tasks, axis=-1), axis=-1)


def mean_rank(table: ArrayLike, higher_is_better: Sequence[bool]) -> np.ndarray:
  r"""Each method's rank among the listed methods, averaged over the metrics.

  Rank 1 is the best, and ties share the average of their ranks. The number
  depends on the list: it can not be compared between lists, and a method that
  joins changes the others.

  ====================== ====================================================
  input                  result
  ====================== ====================================================
  ties                   the average of the places they take: 1.5 and 1.5
  NaN                    ranks last, tied with infinitely bad
  one method             1
  ====================== ====================================================

  Args:
    table: a row a method and a column a metric, shape ``(methods, N)``.
    higher_is_better: one bool a metric.

  Returns:
    Mean ranks, shape ``(methods,)``.

  Raises:
    ValueError: shapes do not fit.

  Example:
    >>> print(mean_rank([[0.9, 1.0], [0.8, 1.0]], [True, False]))
    [1.25 1.75]

  References:
    Navon et al., `Multi-Task Learning as a Bargaining Game
    <https://arxiv.org/abs/2202.01017>`_, 2022.
  """
  values = np.asarray(table, np.float64)
  if values.ndim != 2 or values.size == 0:
    raise ValueError(
      f'table must have a row a method and a column a metric, got shape '
      f'{values.shape}.'
    )
  badness = values * _signs(higher_is_better, values.shape[-1])
  badness = np.where(np.isnan(badness), np.inf, badness)
  mine, others = badness[:, None], badness[None]
  better = np.sum(others < mine, axis=1)
  tied = np.sum(others == mine, axis=1)  # counts the method itself
  return np.mean(better + (tied + 1) / 2, axis=-1)


def _relative_drop(
  metrics: ArrayLike, baseline: ArrayLike, higher_is_better: Sequence[bool]
) -> np.ndarray:
  """Percent by which each metric is worse than its baseline."""
  values = np.asarray(metrics, np.float64)
  base = np.asarray(baseline, np.float64)
  if base.ndim != 1 or base.size == 0:
    raise ValueError(
      f'baseline must have shape (N,) with N >= 1, got {base.shape}.'
    )
  if values.shape[-1:] != base.shape:
    raise ValueError(
      f'metrics must have the {base.size} metrics of baseline on the last '
      f'axis, got shape {values.shape}.'
    )
  signs = _signs(higher_is_better, base.size)
  bad = np.flatnonzero(~(np.isfinite(base) & (base > 0)))
  if bad.size:
    raise ValueError(
      f'baseline[{bad[0]}] is {base[bad[0]]:g}, but a relative change needs a '
      'positive, finite baseline; leave this metric out of delta-m or measure '
      'it on a positive scale.'
    )
  return 100.0 * signs * (values - base) / base


def _signs(higher_is_better: Sequence[bool], size: int) -> np.ndarray:
  """-1 where higher is better, else 1."""
  flags = np.asarray(higher_is_better)
  if flags.shape != (size,):
    raise ValueError(
      f'higher_is_better must have one bool for each of the {size} metrics, '
      f'got shape {flags.shape}.'
    )
  if flags.dtype != np.bool_ and not np.isin(flags, (0, 1)).all():
    raise ValueError(
      f'higher_is_better must hold bools, got {list(higher_is_better)}.'
    )
  return np.where(flags.astype(bool), -1.0, 1.0)
