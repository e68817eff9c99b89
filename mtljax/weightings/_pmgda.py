"""PMGDA: MGDA at a preference, and a correction towards it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import linear_program, min_norm_simplex
from mtljax.solvers._qp import dot
from mtljax.weightings import _common, _loss_common, _preference


class PMGDAState(NamedTuple):
  """State of `pmgda`."""

  residual: jax.Array  # of the last solve, float32


def pmgda(
  *,
  preference: _preference.Preference = None,
  tolerance: ArrayLike = 0.01,
  strength: ArrayLike = 0.95,
) -> Weighting:
  r"""Preference-based multiple-gradient descent, the exact constraint.

  It looks for the point of the front on the ray of :math:`\lambda`: losses in
  proportion to the preference. :math:`h` is how far they are off it,

  .. math:: h(L) = \|L - (\hat\lambda^\top L) \hat\lambda\|, \qquad
     \hat\lambda = \lambda / \|\lambda\|

  Where :math:`h` is below ``tolerance`` the weights are those of `mgda`. Else,
  with :math:`\hat g_1, \dots, \hat g_T, \hat g_h` the unit gradients of the
  losses and of :math:`h`, the update is the point :math:`d` of their hull with

  .. math:: \max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \nabla h^\top d \ge \sigma \|\nabla h\|

  Weights are

  .. math:: w_t = \frac{\mu_t}{\|g_t\|}
     + \frac{\mu_h}{\|\nabla h\|} \frac{\partial h}{\partial L_t}

  with :math:`\mu` those of the hull. They may be negative, and have no fixed
  sum. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes), one quadratic program of
  size T and one linear program of size T + 2.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  losses on the ray          those of `mgda`
  a zero row                 off the ray it cannot be improved, and the
                             correction alone decides; on it as `mgda`
  :math:`\nabla h = 0`       those of `mgda`
  absent tasks               0, the smaller problem's answer for the rest
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    preference: :math:`\lambda`, one a task, at least 0, with a sum of 1; None:
      equal. May be traced. It is where the losses are to be: a large entry is a
      large loss.
    tolerance: of :math:`h`, in the unit of the losses. 0.01 in the authors'
      code.
    strength: :math:`\sigma`, from 0 to 1: which part of the steepest descent of
      :math:`h` a correction keeps. 0.95 in the authors' code.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.linear_program`.

  Raises:
    ValueError: the preference is not on the simplex, does not have one entry a
      task, or a number is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pmgda(preference=[0.5, 0.5])
    >>> stats = mtl.TaskStats(losses=jnp.array([3.0, 1]), gramian=jnp.eye(2))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.757, -0.586]

  References:
    Zhang, Lin and Zhang, `PMGDA: A Preference-based Multiple Gradient Descent
    Algorithm <https://arxiv.org/abs/2402.09492>`_, 2024
  """
  _preference.check_simplex(preference)
  _validate.in_range('tolerance', tolerance, 0)
  _validate.in_range('strength', strength, 0, 1)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return PMGDAState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'pmgda')
    losses, _ = _loss_common.losses_and_mask(stats, 'pmgda')
    losses = losses.astype(gramian.dtype)
    known = jnp.where(mask & jnp.isfinite(losses), losses, 0)
    prefer = _preference.as_share(preference, mask, losses.dtype)
    _, wanted = _loss_common.direction(prefer)
    off = known - dot(wanted, known) * wanted
    distance, slope = _loss_common.direction(jnp.where(mask, off, 0))

    seen = jnp.where(mask[:, None] & mask[None, :], gramian, 0)
    corrected, left, there = _correction(seen, slope, strength, mask)
    central, residual = min_norm_simplex(seen, mask)
    correct = there & (distance > tolerance)
    weights = jnp.where(correct, corrected, central)
    residual = jnp.where(correct, left, residual)
    weights = _loss_common.nan_unless(jnp.isfinite(losses), weights, mask)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='pmgda',
      paper='Zhang et al., 2024, https://arxiv.org/abs/2402.09492',
      signed=True,
    ),
  )


def _correction(
  gramian: jax.Array, slope: jax.Array, strength: ArrayLike, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Weights of the correction, the residual, and whether there is one."""
  size = len(slope)
  scale = jnp.max(jnp.diagonal(gramian))
  scale = jnp.where(scale > 0, scale, 1)
  products = gramian / scale
  rows = jnp.concatenate([jnp.eye(size, dtype=slope.dtype), slope[None]])
  products = dot(dot(rows, products), rows.T)
  norms = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0))
  tiny = jnp.sqrt(jnp.finfo(norms.dtype).tiny)
  some = norms > tiny
  inverse = jnp.where(some, 1 / jnp.where(some, norms, 1), 0)
  along = products * inverse[None, :]  # of row i with unit gradient j
  # The least gain is a variable from 0 on: all gains are raised by 1.
  count = jnp.concatenate([mask, jnp.ones(1, bool)]) & some
  # Of unit gradients, so with the right of what the sum does.
  tasks, last = along[:size] + 1, along[size]
  matrix = jnp.concatenate(
    [
      jnp.concatenate([tasks, -jnp.ones((size, 1), tasks.dtype)], axis=1),
      jnp.concatenate([last, jnp.zeros(1, last.dtype)])[None],
    ]
  )
  bounds = jnp.concatenate(
    [
      jnp.where(mask, 0, -jnp.inf).astype(tasks.dtype),
      (jnp.asarray(strength, last.dtype) * norms[size])[None],
    ]
  )
  is_gain = jnp.arange(size + 2) == size + 1
  used = jnp.concatenate([count, jnp.ones(1, bool)])
  x, residual = linear_program(
    is_gain.astype(tasks.dtype), matrix, bounds, used, is_gain
  )
  hull = x[:-1] * inverse
  weights = hull[:size] + hull[size] * slope
  return weights / jnp.sqrt(scale), residual, some[size]
