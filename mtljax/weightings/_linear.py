"""Constant weights: the sum, the mean, fixed weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


def _constant(weights_fn, init_check, info: MethodInfo) -> Weighting:
  """A weighting whose state is just the weights of all tasks present."""

  def init_fn(num_tasks, key=None):
    del key
    init_check(num_tasks)
    return weights_fn(num_tasks)

  def update_fn(stats, state):
    return weights_fn(state.shape[0], stats.mask), state

  return Weighting(init_fn, update_fn, frozenset(), info=info)


def sum_losses() -> Weighting:
  r"""The sum of the losses: every task has weight 1.

  .. math:: w_t = 1

  Also known as equal weighting (EW) and linear scalarization (LS). The
  weights sum to the number of tasks present. Heads get the same weight, so
  the update is the gradient of :math:`\sum_t L_t`.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Returns:
    The `mtljax.Weighting`. Reads nothing.

  Examples:
    >>> import mtljax as mtl
    >>> weighting = mtl.weightings.sum_losses()
    >>> stats = mtl.TaskStats()
    >>> weights, _ = weighting.update(stats, weighting.init(3))
    >>> print(weights)
    [1. 1. 1.]
  """

  def weights_fn(num_tasks, mask=None):
    ones = jnp.ones((num_tasks,), float)
    return ones if mask is None else ones * mask

  return _constant(
    weights_fn,
    lambda num_tasks: None,
    MethodInfo(name='sum_losses', paper='', weight_heads=True),
  )


def mean() -> Weighting:
  r"""The mean of the losses: every task has weight 1/T.

  .. math:: w_t = 1/T

  The weights sum to 1; with absent tasks, T counts those present. Heads get
  the same weight.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Returns:
    The `mtljax.Weighting`. Reads nothing.

  Examples:
    >>> import mtljax as mtl
    >>> weighting = mtl.weightings.mean()
    >>> weights, _ = weighting.update(mtl.TaskStats(), weighting.init(4))
    >>> print(weights)
    [0.25 0.25 0.25 0.25]
  """

  def weights_fn(num_tasks, mask=None):
    if mask is None:
      return jnp.full((num_tasks,), 1 / num_tasks, float)
    present = mask.astype(float)
    return present / jnp.maximum(jnp.sum(present), 1)

  return _constant(
    weights_fn,
    lambda num_tasks: None,
    MethodInfo(name='mean', paper='', weight_heads=True),
  )


def fixed(*, weights: Sequence[float] | jax.Array) -> Weighting:
  r"""Fixed weights, as given: scalarization.

  .. math:: w_t = \text{weights}_t

  The weights are not normalised, and an absent task's share is not given to
  the others. Heads get the same weights.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Args:
    weights: shape ``(T,)``, finite and not negative.

  Returns:
    The `mtljax.Weighting`. Reads nothing.

  Raises:
    ValueError: a weight is negative or not finite, or there are not T of them.

  Examples:
    >>> import mtljax as mtl
    >>> weighting = mtl.weightings.fixed(weights=[1.0, 0.1])
    >>> weights, _ = weighting.update(mtl.TaskStats(), weighting.init(2))
    >>> print(weights)
    [1.  0.1]

  References:
    Xin et al., `Do Current Multi-Task Optimization Methods in Deep Learning
    Even Help? <https://arxiv.org/abs/2209.11379>`_, 2022: tuned, they are the
    baseline to beat.
  """
  if weights is None:
    raise TypeError('weights=None must be a vector, one number a task.')
  _loss_common.check_vector(
    'weights', weights, 0, bound=', none of them negative'
  )

  def weights_fn(num_tasks, mask=None):
    del num_tasks
    values = jnp.array(weights, float, copy=True)
    return values if mask is None else values * mask

  def init_check(num_tasks):
    if jnp.shape(jnp.asarray(weights)) != (num_tasks,):
      raise ValueError(
        f'weights={weights!r} must have one entry for each of '
        f'num_tasks={num_tasks} tasks.'
      )

  return _constant(
    weights_fn,
    init_check,
    MethodInfo(
      name='fixed',
      paper='Xin et al., 2022, https://arxiv.org/abs/2209.11379',
      weight_heads=True,
    ),
  )
