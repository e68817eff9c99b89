"""The geometric mean of the losses."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


def geometric() -> Weighting:
  r"""The geometric mean of the losses (geometric loss strategy, GLS).

  The weights are the gradient of the objective with respect to the losses:

  .. math:: \Big(\prod_t L_t\Big)^{1/T}, \qquad
     w_t = \frac{1}{T L_t} \Big(\prod_s L_s\Big)^{1/T}

  The direction is that of `uw_o`, so a constant factor on a loss changes only
  the length of the update. The weights sum to the ratio of the geometric to
  the harmonic mean, 1 or more; their product is :math:`T^{-T}`. Heads are
  weighted: the method is a function of the losses. The objective falls to 0 as
  soon as one loss does.

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  equal losses              1/T
  a loss of zero or below   NaN for all
  absent tasks              0; T counts those present
  NaN or infinity           NaN
  ========================  ==================================================

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.geometric()
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 4.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1.   0.25]

  References:
    Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and
    Geometric Loss Strategy for Multi-Task Learning
    <https://arxiv.org/abs/1904.08492>`_, 2019
  """

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'geometric')
    logs = jnp.log(losses)  # 0 for absent tasks
    num_present = _loss_common.count(mask)
    weights = jnp.exp(jnp.sum(logs) / num_present - logs) / num_present
    return _loss_common.nan_unless(losses > 0, weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='geometric',
      paper='Chennupati et al., 2019, https://arxiv.org/abs/1904.08492',
      invariance='direction',
      weight_heads=True,
    ),
  )
