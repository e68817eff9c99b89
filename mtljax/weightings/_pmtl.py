"""Pareto MTL: the least norm within the region of a preference."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import min_norm_simplex
from mtljax.solvers._qp import dot
from mtljax.weightings import _common, _loss_common, _preference


class PMTLState(NamedTuple):
  """State of `pmtl`."""

  step: jax.Array  # int32
  inside: jax.Array  # bool: the region has been reached
  residual: jax.Array  # of the last solve, float32


def pmtl(
  *,
  preference: _preference.Preference = None,
  others: ArrayLike | None = None,
  warmup_steps: int = 100,
) -> Weighting:
  r"""Pareto multi-task learning.

  Preferences :math:`u_1, \dots, u_K`, unit vectors, divide the losses into
  regions: that of :math:`u` is where it has the largest scalar product with
  the losses, so the losses are about in proportion to it. A constraint is
  active where another preference is nearer, and the update is the shortest
  vector in the hull of the tasks' gradients and those of the active ones:

  .. math:: c_k(L) = (u_k - u)^\top L, \qquad
     w = \alpha + \sum_{k: c_k > 0} \beta_k (u_k - u), \qquad
     (\alpha, \beta) = \arg\min_{\Delta} \|J^\top w\|^2

  First, for at most ``warmup_steps`` steps and until no constraint is active,
  only the constraints are descended, :math:`\alpha = 0`. Weights may be
  negative and have no fixed sum; the authors' code divides them by the mean of
  their sizes. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a quadratic program of
  size T + K.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  no active constraint       those of `mgda`
  a zero row                 the update is 0, as of `mgda`
  absent tasks               0; preferences lose their entries, and the rest is
                             the smaller problem's answer
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    preference: :math:`u` up to its length, one a task, at least 0, with a sum
      of 1; None: equal. May be traced. It is where the losses are to be: a
      large entry is a large loss.
    others: the other preferences, shape ``(K, T)``, on the simplex; the nearer
      they are, the narrower the region. Rows equal to ``preference`` are of no
      effect. None: the corners of the simplex.
    warmup_steps: how many steps may go by before the tasks count.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.min_norm_simplex`.

  Raises:
    ValueError: a preference is not on the simplex or does not have one entry a
      task, or the number of steps is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pmtl(
    ...   preference=[0.5, 0.5], others=[[0.9, 0.1], [0.1, 0.9]])
    >>> stats = mtl.TaskStats(losses=jnp.array([3.0, 1]), gramian=jnp.eye(2))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.287, -0.597]

  References:
    Lin et al., `Pareto Multi-Task Learning
    <https://arxiv.org/abs/1912.12854>`_, 2019
  """
  _preference.check_simplex(preference)
  _check_others(others)
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 0)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    if others is not None and np.shape(others)[1] != num_tasks:
      raise ValueError(
        f'others of shape {np.shape(others)} must have one column for each of '
        f'num_tasks={num_tasks} tasks.'
      )
    return PMTLState(
      step=jnp.zeros((), jnp.int32),
      inside=jnp.zeros((), bool),
      residual=_common.zero_residual(),
    )

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'pmtl')
    losses, _ = _loss_common.losses_and_mask(stats, 'pmtl')
    losses = losses.astype(gramian.dtype)
    size = gramian.shape[0]
    prefer = _preference.as_share(preference, mask, losses.dtype)
    corners = jnp.eye(size) if others is None else others
    rest = jnp.where(mask[None], jnp.asarray(corners, losses.dtype), 0)
    towards = jax.vmap(lambda x: _loss_common.direction(x)[1])
    there = jnp.any(rest > 0, axis=1)
    apart = towards(rest) - towards(prefer[None])
    apart = jnp.where(there[:, None], apart, 0)
    known = jnp.where(mask & jnp.isfinite(losses), losses, 0)
    # Against rounding: the same preference is not nearer than itself.
    rounding = 8 * jnp.finfo(losses.dtype).eps * jnp.max(jnp.abs(known))
    active = dot(apart, known) > rounding
    inside = state.inside | ~jnp.any(active)
    warming = ~inside & (state.step < warmup_steps)

    rows = jnp.concatenate([jnp.eye(size, dtype=apart.dtype), apart])
    counts = jnp.concatenate([mask & ~warming, active])
    # A task that is absent has entries of 0 in all rows that count.
    seen = jnp.where(mask[:, None] & mask[None, :], gramian, 0)
    hull, residual = min_norm_simplex(dot(dot(rows, seen), rows.T), counts)
    weights = dot(hull, rows)
    weights = _loss_common.nan_unless(jnp.isfinite(losses), weights, mask)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    step = jnp.minimum(state.step + 1, warmup_steps)
    return weights, PMTLState(step, inside, residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='pmtl',
      paper='Lin et al., 2019, https://arxiv.org/abs/1912.12854',
      signed=True,
    ),
  )


def _check_others(others: Any) -> None:
  if others is None or isinstance(others, jax.core.Tracer):
    return
  try:
    array = np.asarray(others, dtype=float)
  except (TypeError, ValueError):
    array = np.zeros(())
  if array.ndim != 2:
    raise ValueError(
      f'others={others!r} must be numbers, a row a preference and a column a '
      'task.'
    )
  for row in array:
    _preference.check_simplex(row, 'others')
