"""Uncertainty weighting."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class UncertaintyState(NamedTuple):
  """State of `uncertainty`."""

  log_variance: jax.Array  # (T,)
  optimizer_state: Any


def uncertainty(
  *,
  learning_rate: ArrayLike = 0.025,
  log_variance: ArrayLike = 0.0,
  likelihood: Literal['gaussian', 'softmax'] = 'gaussian',
) -> Weighting:
  r"""Homoscedastic uncertainty (UW): each task learns its noise level.

  The objective is minimised over the parameters and over :math:`s_t`, the log
  variance of task t, together:

  .. math:: \sum_t a e^{-s_t} L_t + \tfrac12 s_t, \quad w_t = a e^{-s_t}

  with :math:`a = 1/2` for a Gaussian likelihood and :math:`a = 1` for a
  softmax. The weights sum to nothing in particular. Heads are weighted: the
  method weights losses. Adam updates s here, apart from the model's optimizer,
  so that its weight decay and learning rate do not touch it.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  :math:`a e^{-s}`, as for any other
  a loss of 0 or less       finite: s falls, and the weight grows
  absent tasks              0; their log variance and Adam stand still
  NaN or infinity           those of this step do not read the losses; the
                            task's own are NaN from the next step on; in an
                            aggregator NaN in that step only
  ========================  ==================================================

  Args:
    learning_rate: of the log variances; 0.025 is what later papers use.
    log_variance: where the log variances start; the original starts at 0,
      LibMTL at -0.5.
    likelihood: ``'gaussian'`` or ``'softmax'``.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: the likelihood is not known, or the learning rate is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.uncertainty()
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 100.0]))
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [0.5 0.5]
    >>> print(state.log_variance.round(3))
    [0.    0.025]

  Edge cases: a masked task keeps its log variance; a negative loss drives its
  log variance down without bound, as the paper's objective does.

  References:
    Kendall et al., `Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics <https://arxiv.org/abs/1705.07115>`_, 2018
  """
  _validate.one_of('likelihood', likelihood, ('gaussian', 'softmax'))
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('log_variance', log_variance, vector=True)
  factor = 0.5 if likelihood == 'gaussian' else 1.0

  def init_fn(num_tasks, key=None):
    del key
    start = _loss_common.one_a_task('log_variance', log_variance, num_tasks)
    return UncertaintyState(start, _loss_common.adam_init(start))

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'uncertainty')
    weights = factor * jnp.exp(-state.log_variance)
    direction, optimizer_state = _loss_common.adam_step(
      0.5 - weights * losses, state.optimizer_state, mask
    )
    rate = jnp.asarray(learning_rate, weights.dtype)
    new = UncertaintyState(
      state.log_variance - rate * direction, optimizer_state
    )
    return jnp.where(mask, weights, 0), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='uncertainty',
      paper='Kendall et al., 2018, https://arxiv.org/abs/1705.07115',
      weight_heads=True,
    ),
  )
