"""GO4Align: one weight for each group of tasks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class GO4AlignState(NamedTuple):
  """State of `go4align`."""

  log_shares: jax.Array  # (T,), log p up to a constant


def _segments(
  values: jax.Array, used: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean and sum of squared deviations of ``values[i:j]`` at ``[i, j]``.

  Only entries that are used count; the arrays have the shape
  ``(T + 1, T + 1)``, and an empty segment costs nothing.
  """
  num = values.shape[0]
  starts = jnp.arange(num + 1)

  def extend(carry, element):
    count, mean, cost = carry
    position, value, use = element
    use = use & (starts <= position)
    count = count + use
    off = jnp.where(use, value - mean, 0)
    mean = mean + off / jnp.maximum(count, 1)
    cost = cost + off * jnp.where(use, value - mean, 0)
    return (count, mean, cost), (mean, cost)

  zeros = jnp.zeros((num + 1,), values.dtype)
  _, (means, costs) = jax.lax.scan(
    extend, (zeros, zeros, zeros), (jnp.arange(num), values, used)
  )
  costs = jnp.concatenate([zeros[None], costs]).T
  means = jnp.concatenate([zeros[None], means]).T
  ends = starts[None, :]
  return means, jnp.where(starts[:, None] <= ends, costs, jnp.inf)


def group_means(
  values: jax.Array, mask: jax.Array, num_groups: int
) -> jax.Array:
  """Every value replaced by the mean of its group, by optimal k-means.

  On a line the groups are intervals, so the optimum is found by dynamic
  programming over the sorted values. Entries outside the mask are ignored.
  """
  num = values.shape[0]
  order = jnp.argsort(jnp.where(mask, values, jnp.inf))
  means, costs = _segments(jnp.where(mask, values, 0)[order], mask[order])
  positions = jnp.arange(num)
  ends = jnp.arange(num + 1)

  def add_group(_, carry):
    best, centers = carry  # for the first j values; centers has a row each
    total = best[:, None] + costs
    start = jnp.argmin(total, axis=0)
    mean = means[start, ends]
    inside = positions[None, :] >= start[:, None]
    centers = jnp.where(inside, mean[:, None], centers[start])
    return jnp.min(total, axis=0), centers

  # No group covers only the empty beginning.
  best = jnp.where(ends == 0, 0, jnp.inf).astype(values.dtype)
  centers = jnp.zeros((num + 1, num), values.dtype)
  _, centers = jax.lax.fori_loop(0, num_groups, add_group, (best, centers))
  return jnp.zeros_like(values).at[order].set(centers[num])


def go4align(
  *, num_groups: int = 2, learning_rate: ArrayLike = 1e-4
) -> Weighting:
  r"""Group optimization for multi-task alignment.

  Losses are brought to one scale, tempered by the risk so far, and tasks with
  similar results share one weight, the mean of their group:

  .. math:: p \leftarrow \frac{p\, e^{-\eta L}}{\sum_s p_s e^{-\eta L_s}},
     \qquad v_t = \frac{\sum_s L_s}{L_t} p_t, \qquad
     w_t = \mathrm{mean}\{v_s : s \text{ in the group of } t\}

  with p uniform at first, and the groups by k-means on v. The weights have no
  fixed sum; for equal losses they are 1. Heads are weighted: the method
  weights losses.

  The definition is that of the authors' code. It runs Lloyd's algorithm from a
  random start on the host. Here the groups are the optimum of the same
  k-means objective, by dynamic programming in the graph: the same from step to
  step for the same losses, and never worse. Where groupings are equally good,
  one is chosen by the values alone.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(K T^2) beside it, K groups.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  no more than num_groups   v: every task is a group
  equal v                   equal
  a loss of zero or below   NaN for all
  absent tasks              0, the smaller problem's answer for the rest; p is
                            theirs among those present, up to a constant
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    num_groups: how many groups, at least 1; 1 gives all tasks the mean of v.
    learning_rate: :math:`\eta`, at least 0, in units of an inverse loss.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.go4align(num_groups=2, learning_rate=0.0)
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 10.0, 10.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(3))
    >>> [round(float(w), 2) for w in weights]
    [7.0, 0.7, 0.7]

  References:
    Shen et al., `GO4Align: Group Optimization for Multi-Task Alignment
    <https://arxiv.org/abs/2404.06486>`_, 2024
  """
  num_groups = _validate.integer('num_groups', num_groups, 1)
  _validate.in_range('learning_rate', learning_rate, 0)

  def init_fn(num_tasks, key=None):
    del key
    return GO4AlignState(log_shares=jnp.zeros((num_tasks,), float))

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'go4align')
    rate = jnp.asarray(learning_rate, losses.dtype)
    logs = jnp.where(mask, state.log_shares - rate * losses, state.log_shares)
    shares = _loss_common.softmax(logs, mask)
    valid = losses > 0
    safe = jnp.where(valid, losses, 1)
    scaled = jnp.sum(jnp.where(mask, safe, 0)) / safe * shares
    weights = group_means(scaled, mask, num_groups)
    # A common constant does not matter, and would lose digits as it grows.
    new = GO4AlignState(log_shares=logs - jnp.max(logs))
    return _loss_common.nan_unless(valid, weights, mask), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='go4align',
      paper='Shen et al., 2024, https://arxiv.org/abs/2404.06486',
      weight_heads=True,
    ),
  )
