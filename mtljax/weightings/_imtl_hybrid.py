"""IMTL: scaled losses, and equal projections of their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax._types import MethodInfo, TaskStats, Weighting
from mtljax.weightings import _common, _loss_common
from mtljax.weightings._imtl import IMTLGState, imtl_g
from mtljax.weightings._imtl_l import IMTLLState, imtl_l


class IMTLState(NamedTuple):
  """State of `imtl`."""

  log_scale: jax.Array  # (T,)
  optimizer_state: Any  # Adam, one a task
  residual: jax.Array  # spread of the projections, float32


@jax.jit
def _update(
  gramian: jax.Array,
  losses: jax.Array,
  mask: jax.Array,
  learning_rate: jax.Array,
  state: IMTLState,
) -> tuple[jax.Array, IMTLState]:
  scales, scaling_state = imtl_l(learning_rate=learning_rate).update(
    TaskStats(losses=losses, mask=mask),
    IMTLLState(state.log_scale, state.optimizer_state),
  )
  scales = scales.astype(gramian.dtype)
  factors = jnp.where(mask, scales, 1)
  scaled = gramian * factors[:, None] * factors[None, :]
  shares, balance_state = imtl_g().update(
    TaskStats(gramian=scaled, mask=mask), IMTLGState(state.residual)
  )
  return scales * shares, IMTLState(*scaling_state, *balance_state)


def imtl(
  *, learning_rate: ArrayLike = 0.025, log_scale: ArrayLike = 0.0
) -> Weighting:
  r"""Impartial multi-task learning, both parts (IMTL).

  `imtl_l` scales the losses by learned factors :math:`e^{s_t}`, minimising
  :math:`\sum_t e^{s_t} L_t - s_t` over s too, and `imtl_g` then combines the
  gradients of the scaled losses:

  .. math:: w_t = e^{s_t} \alpha_t, \qquad \sum_t \alpha_t = 1

  with :math:`\alpha` the weights for which :math:`d = J^\top w` has the same
  projection on every task's gradient direction. The :math:`\alpha_t`, not the
  weights, sum to 1. The direction of the update is that of `imtl_g`; s decides
  its length. Scaling a task's loss changes the length only (invariance
  ``'direction'``). Weights may be negative, so heads are not weighted; the
  paper multiplies a head's loss by :math:`e^{s_t}`. Adam updates s, as in
  `imtl_l`. Costs the Gramian (T backward passes) and one pseudo-inverse,
  O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(s)
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; all rows zero: zeros
  dependent rows            equal or antiparallel ones too: as in `imtl_g`
  raw sum rounds to 0       as in `imtl_g`
  a loss of zero or below   its s grows without bound, as in `imtl_l`
  absent tasks              0, the smaller problem's answer for the rest; their
                            s and its Adam stand still
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    learning_rate: of the log scales, at least 0.
    log_scale: where they start.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian. Its state has the
    residual of `imtl_g`.

  Raises:
    ValueError: ``learning_rate`` is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.imtl(log_scale=1.0)
    >>> stats = mtl.TaskStats(
    ...   gramian=jnp.diag(jnp.array([1.0, 9.0])), losses=jnp.ones(2)
    ... )
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [2.0387, 0.6796]

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
  """
  scaling = imtl_l(learning_rate=learning_rate, log_scale=log_scale)

  def init_fn(num_tasks, key=None):
    del key
    return IMTLState(*scaling.init(num_tasks), _common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'imtl')
    losses, _ = _loss_common.losses_and_mask(stats, 'imtl')
    return _update(gramian, losses, mask, jnp.asarray(learning_rate), state)

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='imtl',
      paper='Liu et al., 2021, https://openreview.net/forum?id=IMPnRXEWpvr',
      invariance='direction',
      signed=True,
    ),
  )
