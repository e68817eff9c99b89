"""Which tasks help which, one step ahead, and how that would group them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax.gradients import _pullback, value_and_task_grads

#: Above it the search over all groupings takes minutes.
_MOST_TASKS = 12


def task_affinity(
  fun: _pullback.LossFn,
  params: Any,
  *args: Any,
  learning_rate: ArrayLike,
  labels: _labels.Labels | None = None,
  update_own: bool = False,
  has_aux: bool = False,
) -> jax.Array:
  r"""By how much a step on one task lowers the loss of another.

  .. math:: Z_{st} = 1 - \frac{L_t(\theta - \eta\, g^s)}{L_t(\theta)}

  where the step on task s moves the shared parameters, and with ``update_own``
  those that it owns too: of the other tasks that is the same number, on the
  diagonal the proximal affinity of *Selective Task Group Updates*. It is
  averaged over training: over steps, by the caller. Positive: the step on s
  helps t.

  That it tells which tasks should be trained together is a claim, and a
  benchmark of such scores found them to say little of real gains: take it for a
  diagnosis. To first order it is the scalar product of the two gradients over
  the loss, which `similarity` has for no more than the Gramian.

  Costs T backward passes and 1 + T forward passes, the latter in a loop. Call
  it inside ``jax.jit``.

  ========================= ================================================
  input                     result
  ========================= ================================================
  a loss of 0               NaN or infinite in its column
  a loss below 0            the sign of the entry turns
  a zero gradient           0 in its row, to rounding
  ========================= ================================================

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`.
    params: the parameters.
    *args: the other arguments of ``fun``: a batch, say.
    learning_rate: :math:`\eta` of the step, of gradient descent.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.
    update_own: whether the step on a task moves what it owns.
    has_aux: whether the functions return ``(loss, aux)``.

  Returns:
    Shape ``(T, T)``: row s, the task stepped on, column t, the task measured;
    float32 or wider.

  Raises:
    ValueError: the learning rate is negative, or an option is no bool.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import task_affinity
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2 + w[1] ** 2, (w[0] - 3) ** 2])
    >>> print(task_affinity(task_losses, jnp.ones(2), learning_rate=0.25))
    [[ 0.75   -0.5625]
     [-1.5     0.75  ]]

  References:
    Fifty et al., `Efficiently Identifying Task Groupings for Multi-Task
    Learning <https://arxiv.org/abs/2109.04617>`_, 2021; Jeong and Yoon,
    `Selective Task Group Updates for Multi-Task Optimization
    <https://arxiv.org/abs/2502.11986>`_, 2025. On what such scores predict:
    Azorin et al., `"It's a Match!" - A Benchmark of Task Affinity Scores for
    Joint Learning <https://arxiv.org/abs/2301.02873>`_, 2023.
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.flag('update_own', update_own)
  losses, grads = value_and_task_grads(fun, labels=labels, has_aux=has_aux)(
    params, *args
  )
  losses = losses[0] if has_aux else losses
  num_tasks = losses.shape[0]
  flat = _labels.flatten_labels(labels, params, num_tasks)
  leaves, treedef = jax.tree.flatten(params)
  rows = jax.tree.leaves(_tree.conjugate(grads))

  def moved(task, label, leaf, row):
    if label == _labels.SHARED:
      step = row[task]
    elif not update_own:
      return leaf
    elif label == _labels.STACKED:
      here = jnp.arange(num_tasks) == task
      step = jnp.where(here.reshape(-1, *[1] * (row.ndim - 1)), row, 0)
    else:
      step = jnp.where(label == task, row, 0)
    return (leaf - learning_rate * step).astype(leaf.dtype)

  def after(task):
    new = [moved(task, *x) for x in zip(flat, leaves, rows, strict=True)]
    found = _pullback.task_losses(
      fun, jax.tree.unflatten(treedef, new), args, has_aux=has_aux
    )
    return found.astype(jnp.promote_types(found.dtype, jnp.float32))

  before = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
  return 1 - jax.lax.map(after, jnp.arange(num_tasks)) / before[None]


def best_groups(
  affinity: ArrayLike, num_groups: int, *, alone: float = 0.0
) -> list[list[int]]:
  r"""The grouping of tasks with the largest affinity inside of its groups.

  Exact: over all ways to divide the tasks into at most ``num_groups`` groups,
  the largest sum over tasks t of the mean over the others s of its group of
  :math:`Z_{st}`. By subsets, in about 3^T steps; the paper's search also lets a
  task train in groups that another one serves, this one does not.

  Args:
    affinity: :math:`Z`, shape ``(T, T)``, as of `task_affinity`, averaged over
      training; the diagonal is not read.
    num_groups: the most groups, at least 1.
    alone: what a task in a group of its own counts.

  Returns:
    The groups, each the indices of its tasks; in order of their first tasks.

  Raises:
    ValueError: the affinity is not square or not finite, there are more than
      twelve tasks, or no group is allowed.

  Example:
    >>> from mtljax.diagnostics import best_groups
    >>> best_groups([[0, 2, -1], [1, 0, -1], [-1, -1, 0]], 2)
    [[0, 1], [2]]

  References:
    Standley et al., `Which Tasks Should Be Learned Together in Multi-task
    Learning? <https://arxiv.org/abs/1905.07553>`_, 2020; Fifty et al.,
    `Efficiently Identifying Task Groupings for Multi-Task Learning
    <https://arxiv.org/abs/2109.04617>`_, 2021
  """
  num_groups = _validate.integer('num_groups', num_groups, 1)
  matrix = np.asarray(affinity, np.float64)
  if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
    raise ValueError(f'affinity of shape {matrix.shape} must be of (T, T).')
  count = len(matrix)
  matrix = np.where(np.eye(count, dtype=bool), 0, matrix)
  if not np.isfinite(matrix).all():
    raise ValueError('affinity has entries that are not finite.')
  if count > _MOST_TASKS:
    raise ValueError(
      f'affinity of {count} tasks: all groupings of more than {_MOST_TASKS} '
      'are too many to try; group fewer.'
    )
  scores = [_score(matrix, _members(group), alone) for group in range(2**count)]
  everyone = 2**count - 1
  best = list(scores)  # of one group
  choices = [list(range(2**count))]
  for _ in range(min(num_groups, count) - 1):
    best, chosen = _one_more(scores, best)
    choices.append(chosen)
  groups, left = [], everyone
  for chosen in reversed(choices):
    if left:
      groups.append(_members(chosen[left]))
      left ^= chosen[left]
  return sorted(groups)


def _one_more(
  scores: Sequence[float], best: Sequence[float]
) -> tuple[list[float], list[int]]:
  """Of every set its best division into one more group than ``best`` has.

  Returns:
    The scores, and the group of the first task.
  """
  found, chosen = [0.0], [0]
  for tasks in range(1, len(scores)):
    first = tasks & -tasks
    others = tasks ^ first
    value, group = scores[tasks], tasks
    part = others
    while part:
      part = (part - 1) & others
      one = scores[first | part] + best[others ^ part]
      if one > value:
        value, group = one, first | part
    found.append(value)
    chosen.append(group)
  return found, chosen


def _members(group: int) -> list[int]:
  return [t for t in range(group.bit_length()) if group >> t & 1]


def _score(matrix: np.ndarray, members: list[int], alone: float) -> float:
  if len(members) < 2:
    return alone * len(members)
  return float(matrix[np.ix_(members, members)].sum()) / (len(members) - 1)
