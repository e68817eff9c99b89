"""EPO: to the point of the front at which weighted losses are equal."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import linear_program
from mtljax.solvers._qp import dot
from mtljax.weightings import _common, _loss_common, _preference


class EPOState(NamedTuple):
  """State of `epo`."""

  residual: jax.Array  # of the last solve, float32


def epo(
  *, preference: _preference.Preference = None, tolerance: ArrayLike = 1e-4
) -> Weighting:
  r"""Exact Pareto optimal search, the form with linear programs.

  It looks for the point of the front at which all :math:`r_t L_t` are equal:
  a task that is preferred more has the smaller loss. With
  :math:`\hat L_t = r_t L_t / \sum_s r_s L_s`, how far it is from there is
  :math:`\mu = \sum_t \hat L_t \log(T \hat L_t)`, and

  .. math:: a_t = r_t (\log(T \hat L_t) - \mu), \qquad
     \max_{w \in \Delta} a^\top G w
     \;\text{ s.t. }\; (Gw)_t \ge b_t

  is the step that balances most, taken while :math:`\mu` is above
  ``tolerance``. Where no entry of :math:`Ga` is above 0, :math:`b = 0`;
  otherwise tasks with :math:`(Ga)_t > 0` have no bound, the others
  :math:`b_t = (Ga)_t`, and the one with the largest :math:`r_t L_t` has
  :math:`b_t = 0`. Once balanced, the step is the one that descends most,

  .. math:: \max_{w \in \Delta} \textstyle\sum_t (Gw)_t
     \;\text{ s.t. }\; Gw \ge 0, \;
     a^\top G w \ge \min(0, \max_t (Ga)_t),

  without the last bound if nothing keeps it. The weights sum to 1; the authors'
  code multiplies them by T, as ``scale=num_tasks`` does. Heads are weighted, as
  there. While it balances, losses of single tasks may rise.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and one or two linear
  programs of size T, see `mtljax.solvers.linear_program`: a task whose gradient
  is shorter than 1e-5 of the longest is not seen in float32.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  a zero row                 no demand on the rest
  all rows zero              everything on one task, the update is 0
  a preference of 0          the task's loss does not count in the balance
  a loss of 0                as the least number above it
  a loss below 0             NaN
  absent tasks               0, the smaller problem's answer for the rest
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    preference: :math:`r`, one a task, at least 0, with a sum of 1; None:
      equal. May be traced, as that of `cosmos`.
    tolerance: :math:`\mu` up to which the losses count as balanced. 1e-4 in the
      authors' code.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.linear_program`.

  Raises:
    ValueError: the preference is not on the simplex, does not have one entry a
      task, or the tolerance is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.epo(preference=[0.25, 0.75])
    >>> stats = mtl.TaskStats(losses=jnp.ones(2), gramian=jnp.eye(2))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.0, 1.0]

  References:
    Mahapatra and Rajan, `Multi-Task Learning with User Preferences: Gradient
    Descent with Controlled Ascent in Pareto Optimization
    <https://proceedings.mlr.press/v119/mahapatra20a.html>`_, 2020
  """
  _preference.check_simplex(preference)
  _validate.in_range('tolerance', tolerance, 0)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return EPOState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'epo')
    losses, _ = _loss_common.losses_and_mask(stats, 'epo')
    losses = losses.astype(gramian.dtype)
    valid = jnp.isfinite(losses) & (losses >= 0)
    prefer = _preference.as_share(preference, mask, losses.dtype)
    pairs = mask[:, None] & mask[None, :]
    scale = jnp.max(jnp.where(mask, jnp.diagonal(gramian), 0))
    used = jnp.where(pairs, gramian / jnp.where(scale > 0, scale, 1), 0)

    weighted = jnp.where(mask & valid, prefer * losses, 0)
    off, adjust = _adjustments(weighted, prefer, mask)
    pull = dot(used, adjust)
    improved = mask & (pull > 0)
    worst = weighted >= jnp.max(weighted)
    bounds = jnp.where(improved, -jnp.inf, pull)
    bounds = jnp.where(worst, 0, bounds)
    bounds = jnp.where(jnp.any(improved), bounds, 0)
    bounds = jnp.where(mask, bounds, -jnp.inf)
    balance = off > tolerance
    highest = jnp.max(jnp.where(mask, pull, -jnp.inf))
    keep = jnp.where(balance, -jnp.inf, jnp.minimum(0, highest))
    matrix = jnp.concatenate([used, pull[None]])
    objective = jnp.where(balance, pull, jnp.sum(used, axis=0))
    zero = jnp.where(mask, 0, -jnp.inf).astype(used.dtype)
    bounds = jnp.where(balance, bounds, zero)

    def solve(last):
      return linear_program(
        objective, matrix, jnp.concatenate([bounds, last[None]]), mask
      )

    # With the last bound, and without.
    both = jax.vmap(solve)(jnp.stack([keep, jnp.full_like(keep, -jnp.inf)]))
    chosen = jnp.where(jnp.isinf(both[1][0]), 1, 0)
    weights, residual = both[0][chosen], both[1][chosen]
    weights = _loss_common.nan_unless(valid, weights, mask)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='epo',
      paper='Mahapatra and Rajan, 2020, '
      'https://proceedings.mlr.press/v119/mahapatra20a.html',
      weight_heads=True,
    ),
  )


def _adjustments(
  weighted: jax.Array, prefer: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """How far weighted losses are from equal, and the direction back."""
  tiny = jnp.finfo(weighted.dtype).tiny
  total = jnp.sum(weighted)
  shares = jnp.maximum(weighted / jnp.where(total > 0, total, 1), tiny)
  logs = jnp.where(mask, jnp.log(jnp.sum(mask) * shares), 0)
  off = jnp.sum(shares * logs)
  adjust = jnp.where(mask, prefer * (logs - off), 0)
  return jnp.where(total > 0, off, 0), jnp.where(total > 0, adjust, 0)
