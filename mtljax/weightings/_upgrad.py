"""UPGrad and DualProj: projections on the directions that harm no task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import dual_cone, dual_cones
from mtljax.weightings import _common, _preference


class DualConeState(NamedTuple):
  """State of `upgrad` and of `dual_proj`."""

  residual: jax.Array  # of the last solve, float32


#: From here on T problems side by side are slower than steps of all of them.
_MANY = 16


@jax.jit
def _project_each(
  gramian: jax.Array, preference: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The sum of the projections of each ``p_t g_t``; the largest residual."""
  if len(preference) > _MANY:
    return dual_cones(gramian, preference, mask)
  solve = jax.vmap(dual_cone, in_axes=(None, 0, None))
  weights, residuals = solve(gramian, jnp.diag(preference), mask)
  # An absent task has nothing to project.
  residual = jnp.max(jnp.where(mask, residuals, 0))
  return jnp.sum(jnp.where(mask[:, None], weights, 0), axis=0), residual


def _projection(
  solve: Callable[..., tuple[jax.Array, jax.Array]],
  preference: _preference.Preference,
  info: MethodInfo,
) -> Weighting:
  """A weighting whose ``solve(gramian, share, mask)`` is a projection."""
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return DualConeState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, info.name)
    share = _preference.as_share(preference, mask, gramian.dtype)
    weights, residual = solve(gramian, share, mask)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(init_fn, update_fn, frozenset({'gramian'}), info=info)


def upgrad(*, preference: _preference.Preference = None) -> Weighting:
  r"""Unconflicting projection of gradients (UPGrad).

  Each gradient is projected on the dual cone, the directions
  :math:`\{d : J d \ge 0\}` that harm no task, and the projections are added:

  .. math:: d = \sum_t \pi(p_t g_t), \qquad
     w = \sum_t \arg\min_{v \ge p_t e_t} v^\top G v

  with the preference :math:`p_t = 1/T`. The weights are at least the
  preference, and sum to at least its sum: 1. Where no two gradients conflict,
  the update is their mean. It harms no task, to first order; a task with a
  short gradient is protected like any other, because the T problems are
  solved for the unit Gramian. Heads are not weighted: only the shared
  parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``). Costs the Gramian (T backward passes) and T
  quadratic programs of size T in one batch, from 17 tasks on as products of
  matrices, with four of T x T held, see `mtljax.solvers.dual_cones`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                1/T for it, without effect; it counts in T
  equal rows                nothing special
  antiparallel rows         both projections are 0 up to rounding
  0 in the hull             the gradients' part in the span of the rows that
                            combine to 0 is taken out, so the update is 0 if
                            they are all the rows; finite
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is, and an
      absent task's share is not given to the others; None: 1/T, over the tasks
      present.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the largest
    residual of the last solves, see `mtljax.solvers.dual_cone`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.upgrad()
    >>> stats = mtl.TaskStats(gramian=jnp.array([[1.0, -0.5], [-0.5, 1.0]]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.75, 0.75]

  References:
    Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization
    <https://arxiv.org/abs/2406.16232>`_, 2024
  """
  info = MethodInfo(
    name='upgrad',
    paper='Quinton and Rey, 2024, https://arxiv.org/abs/2406.16232',
  )
  return _projection(_project_each, preference, info)


def dual_proj(*, preference: _preference.Preference = None) -> Weighting:
  r"""The projection of the mean gradient on the dual cone (DualProj, GEM).

  .. math:: d = \pi(J^\top p), \qquad
     w = \arg\min_{v \ge p} v^\top G v

  with the preference :math:`p_t = 1/T`. The weights are at least the
  preference, and sum to at least its sum: 1. `upgrad` projects the gradients
  one by one, and is the same for a one-hot preference. The update harms no
  task, to first order, however short its gradient. Heads are not weighted:
  only the shared parameters are in conflict. Scaling a task's loss changes
  the update (invariance ``'none'``). Costs the Gramian (T backward passes)
  and one quadratic program of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                1/T for it, without effect; it counts in T
  equal rows                nothing special
  antiparallel rows         an update of 0 up to rounding
  0 in the hull             finite; ``d`` is 0 if some combination with all
                            weights positive is
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is, and an
      absent task's share is not given to the others; None: 1/T, over the tasks
      present.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.dual_cone`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.dual_proj()
    >>> stats = mtl.TaskStats(gramian=jnp.array([[1.0, -2.0], [-2.0, 9.0]]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.5]

  References:
    Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
    <https://arxiv.org/abs/1706.08840>`_, 2017
  """
  info = MethodInfo(
    name='dual_proj',
    paper='Lopez-Paz and Ranzato, 2017, https://arxiv.org/abs/1706.08840',
  )
  return _projection(dual_cone, preference, info)
