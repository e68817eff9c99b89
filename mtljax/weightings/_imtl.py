"""IMTL-G: equal projections on every task's direction."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common


class IMTLGState(NamedTuple):
  """State of `imtl_g`."""

  residual: jax.Array  # spread of the projections, float32


def _pinv_ones(unit, used):
  """``pinv(U) 1`` over the rows used, with the cut-off ``T eps``."""
  both = used[:, None] & used[None, :]
  matrix = jnp.where(both, unit, 0)
  values, vectors = jnp.linalg.eigh(matrix)
  size = jnp.maximum(jnp.sum(used), 1).astype(unit.dtype)
  cut = size * jnp.finfo(unit.dtype).eps * jnp.max(jnp.abs(values))
  inverse = jnp.where(values > cut, 1 / jnp.where(values > cut, values, 1), 0)
  ones = used.astype(unit.dtype)

  def pinv(x):
    x = jnp.matmul(vectors.T, x, precision='highest')
    return jnp.matmul(vectors, inverse * x, precision='highest')

  y = pinv(ones)
  # Once more for what the decomposition's rounding has left over.
  return y + pinv(ones - jnp.matmul(matrix, y, precision='highest'))


def imtl_g() -> Weighting:
  r"""Impartial multi-task learning, the part on gradients (IMTL-G).

  The update :math:`d = J^\top w` has the same projection on every task's
  gradient direction :math:`u_t = g_t / \|g_t\|`, and the weights sum to 1:

  .. math:: w_t = \frac{y_t / \|g_t\|}{\sum_s y_s / \|g_s\|}, \qquad
     y = \mathrm{pinv}(U)\, 1, \quad U_{st} = u_s^\top u_t

  Weights may be negative, so heads are never weighted. Their size has no
  bound: it grows without limit where the raw sum
  :math:`\sum_t y_t / \|g_t\|` passes 0, and where that sum is negative the
  common projection is negative too, which means that the update is against
  every task. That is the paper's definition and is kept; see the guard below.

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``). Costs the Gramian (T backward passes) and one
  pseudo-inverse, O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; all rows zero: zeros
  equal rows                they share their weight equally
  rank-deficient rows       least squares: equal projections where they exist,
                            else as equal as can be; the residual tells
  directions with sum 0     such as antiparallel rows: equal in y, so the
                            shorter row weighs more: d = 0
  raw sum rounds to 0       divided by the sum of absolute values in place of
                            the sum: the projections are equal and not
                            negative, and the weights do not sum to 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last step: the largest :math:`|(U y)_t - 1|`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.imtl_g()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 9.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.75, 0.25]

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
  """

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return IMTLGState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'imtl_g')
    unit, norms = row_normalize(gramian, mask)
    used = ~(norms <= 0)
    y = _pinv_ones(unit, used)
    projections = jnp.matmul(unit, y, precision='highest')
    # They can be all 0 up to rounding, and y is then rounding too. Directions
    # whose equal projections are all 0 add up to 0.
    count = jnp.maximum(jnp.sum(used), 1).astype(unit.dtype)
    reach = jnp.sqrt(jnp.sum(jnp.where(used, projections, 0) ** 2))
    stuck = reach <= 32 * jnp.finfo(unit.dtype).eps * count**1.5
    y = jnp.where(stuck, used.astype(unit.dtype), y)
    off = jnp.max(jnp.where(used, jnp.abs(projections - 1), 0))
    smallest = jnp.min(jnp.where(used, norms, jnp.inf))
    raw = jnp.where(used, y * smallest / jnp.where(used, norms, 1), 0)
    total, size = jnp.sum(raw), jnp.sum(jnp.abs(raw))
    eps = 32 * used.shape[0] * jnp.finfo(raw.dtype).eps
    total = jnp.where(jnp.abs(total) <= eps * size, size, total)
    weights = raw / jnp.where(total == 0, 1, total)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=off.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='imtl_g',
      paper='Liu et al., 2021, https://openreview.net/forum?id=IMPnRXEWpvr',
      invariance='direction',
      signed=True,
    ),
  )
