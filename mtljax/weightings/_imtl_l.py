"""IMTL-L: learned scales of the losses."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class IMTLLState(NamedTuple):
  """State of `imtl_l`."""

  log_scale: jax.Array  # (T,)
  optimizer_state: Any  # Adam, one a task


def imtl_l(
  *, learning_rate: ArrayLike = 0.025, log_scale: ArrayLike = 0.0
) -> Weighting:
  r"""Impartial multi-task learning, the part on losses (IMTL-L).

  The objective is minimised over the parameters and over :math:`s_t`, the log
  scale of task t, together:

  .. math:: \sum_t e^{s_t} L_t - s_t, \qquad w_t = e^{s_t}

  At the minimum over s every scaled loss is 1 and :math:`w_t = 1 / L_t`, which
  is `uw_o`. The weights sum to nothing in particular. Heads are weighted: the
  method weights losses. Adam updates s here, apart from the model's optimizer,
  so that its weight decay and learning rate do not touch it.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(s)
  a loss of zero or below   the objective has no minimum over s: the weight
                            grows without bound
  absent tasks              0; their s and its Adam stand still
  NaN or infinity           that task's s is NaN from then on; in an
                            aggregator it stays as it was
  ========================  ==================================================

  Args:
    learning_rate: of the log scales, at least 0.
    log_scale: where they start.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: ``learning_rate`` is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.imtl_l()
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 100.0]))
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1. 1.]
    >>> print(state.log_scale.round(3))
    [ 0.    -0.025]

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('log_scale', log_scale, vector=True)

  def init_fn(num_tasks, key=None):
    del key
    start = _loss_common.one_a_task('log_scale', log_scale, num_tasks)
    return IMTLLState(start, _loss_common.adam_init(start))

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'imtl_l')
    weights = jnp.exp(state.log_scale)
    direction, optimizer_state = _loss_common.adam_step(
      weights * losses - 1, state.optimizer_state, mask
    )
    rate = jnp.asarray(learning_rate, weights.dtype)
    new = IMTLLState(state.log_scale - rate * direction, optimizer_state)
    return jnp.where(mask, weights, 0), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='imtl_l',
      paper='Liu et al., 2021, https://openreview.net/forum?id=IMPnRXEWpvr',
      weight_heads=True,
    ),
  )
