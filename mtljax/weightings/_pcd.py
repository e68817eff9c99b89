"""PCD: the primary task's gradient, bent as little as the others need."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import nonneg_qp, row_normalize
from mtljax.weightings import _common


class PCDState(NamedTuple):
  """State of `pcd`."""

  squared_norms: jax.Array  # moving average, biased, (T,)
  averaged: jax.Array  # its weights' sum, (T,)
  residual: jax.Array  # of the last solve, float32


@jax.jit
def _weights(
  gramian: jax.Array,
  mask: jax.Array,
  usual: jax.Array,
  tau: jax.Array,
  primary: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The weights, and how far a constraint is from being met.

  Args:
    gramian: shape ``(T, T)``.
    mask: the tasks present, shape ``(T,)``.
    usual: the squared norm by which each is scaled, shape ``(T,)``.
    tau: shape ``(T,)``.
    primary: the index of the primary task.
  """
  unit, norms = row_normalize(gramian, mask)
  used = ~(norms <= 0)
  is_primary = jnp.arange(len(norms)) == primary
  others = used & ~is_primary
  scaled = used & ~(usual <= 0)
  lengths = jnp.where(used, norms, 0) / jnp.sqrt(jnp.where(scaled, usual, 1))
  first = lengths[primary]
  asked = jnp.where(others, tau * lengths, 0)
  # In x_j = mu_j ||s_j g_j||: the multipliers, at least 0.
  slope = jnp.where(others, unit[primary] * first - asked, 0)
  x, residual = nonneg_qp(unit, slope, others)
  y = jnp.where(is_primary, first, jnp.where(others, x, 0))
  image = jnp.matmul(unit, y, precision='highest')

  # The least violation of constraints that exclude each other misses one of
  # them by all that it asks for.
  missed = jnp.where(others, jnp.maximum(asked - image, 0), 0)
  part = jnp.where(asked > 0, missed / jnp.where(asked > 0, asked, 1), 0)
  infeasible = jnp.max(part) > 0.5
  squared = jnp.sum(y * image)
  rounding = 8 * jnp.finfo(norms.dtype).eps * jnp.sum(jnp.abs(y)) ** 2
  nothing = squared <= rounding
  length = jnp.sqrt(jnp.where(nothing, 1, squared))

  safe = jnp.where(used, norms, 1)
  weights = norms[primary] * (y / length) / safe
  weights = jnp.where(nothing, 0, weights)
  weights = jnp.where(infeasible, is_primary.astype(y.dtype), weights)
  # Without a primary gradient there is no update.
  weights = jnp.where(used & ~(first <= 0), weights, 0)
  return weights, jnp.maximum(residual, jnp.max(part))


@jax.jit
def _average(
  squares: jax.Array, mask: jax.Array, decay: jax.Array, state: PCDState
) -> tuple[jax.Array, PCDState]:
  """The usual squared norms, and the state that has seen these."""
  dtype = squares.dtype
  squares = jnp.where(mask, squares, 0)
  old = state.squared_norms.astype(dtype)
  averages = jnp.where(mask, decay * old + (1 - decay) * squares, old)
  old = state.averaged.astype(dtype)
  averaged = jnp.where(mask, decay * old + (1 - decay), old)
  usual = averages / jnp.where(averaged > 0, averaged, 1)
  kept = jnp.all(jnp.isfinite(squares))
  out = state.averaged.dtype
  return usual, state._replace(
    squared_norms=jnp.where(kept, averages.astype(out), state.squared_norms),
    averaged=jnp.where(kept, averaged.astype(out), state.averaged),
  )


def pcd(
  *,
  primary: int = 0,
  tau: ArrayLike = 0.02,
  decay: ArrayLike = 0.999,
  eps: ArrayLike = 1e-8,
) -> Weighting:
  r"""Priority-constrained descent (PCD): one task leads.

  With the gradients scaled by their usual length, :math:`\hat g_t = g_t /
  \sqrt{\hat v_t + \epsilon}`, the update has the direction of

  .. math:: \arg\min_d \|d - \hat g_1\|^2 \quad\text{s.t.}\quad
     \hat g_t^\top d \ge \tau \|\hat g_t\|^2, \quad t \ne 1

  and the norm of the primary task's gradient :math:`g_1`. :math:`\hat v_t` is
  the moving average of :math:`\|g_t\|^2`, corrected for its start. Each other
  task gets the fraction :math:`\tau` of the progress that its own scaled
  gradient would give it. The weights are not negative and have no fixed sum.
  Heads are not weighted: it is the shared update that is bent. Scaling a
  task's loss by a constant leaves the direction, and the norm follows the
  primary's (invariance ``'direction'``, up to ``eps``). Costs the Gramian (T
  backward passes) and one quadratic program of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  no conflict               a multiple of the primary alone: 1
  primary row zero          zeros: there is no update
  primary task absent       the same
  another row zero          0 for it: it asks for nothing
  equal rows                nothing special
  antiparallel to primary   tau > 0: the constraint wins, along its own
                            gradient; tau = 0, or within rounding of it: zeros
  exclusive constraints     the primary alone: 1, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the averages stand still
  ========================  ==================================================

  Args:
    primary: the index of the primary task.
    tau: from 0 to 1, for all or one for each task, shape ``(T,)``, of which
      the primary's is not read.
    decay: :math:`\beta`, of the averages, at least 0 and below 1.
    eps: added to the averages of the squared norms, at least 0.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve: the larger of that of `mtljax.solvers.nonneg_qp` and the
    largest part of its progress that a task misses.

  Raises:
    ValueError: an argument is out of its range, or there is no such task.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pcd(tau=0.0)
    >>> stats = mtl.TaskStats(gramian=jnp.array([[1.0, -0.6], [-0.6, 1.0]]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.25, 0.75]

  References:
    Varam and AlHajri, `Not All Objectives Are Born Equal: Priority-Constrained
    Descent for Hierarchical Multi-Objective Optimization
    <https://arxiv.org/abs/2606.29521>`_, 2026
  """
  primary = _validate.integer('primary', primary, 0)
  # The primary's own entry of a vector is not read, whatever it is.
  limits = () if isinstance(tau, (jax.Array, np.ndarray)) else (0, 1)
  _validate.in_range('tau', tau, *limits, vector=True)
  _validate.in_range('decay', decay, 0, 1)
  if isinstance(decay, (int, float)) and decay == 1:
    raise ValueError(
      f'decay={decay!r} must be below 1: the averages would never start.'
    )
  _validate.in_range('eps', eps, 0)

  def init_fn(num_tasks, key=None):
    del key
    if primary >= num_tasks:
      raise ValueError(
        f'primary={primary} must be the index of one of num_tasks={num_tasks} '
        'tasks.'
      )
    if jnp.asarray(tau).shape not in ((), (num_tasks,)):
      shape = jnp.asarray(tau).shape
      raise ValueError(
        f'tau has shape {shape}; it must be one number or have shape '
        f'({num_tasks},).'
      )
    return PCDState(
      jnp.zeros((num_tasks,), float),
      jnp.zeros((num_tasks,), float),
      _common.zero_residual(),
    )

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'pcd')
    dtype = gramian.dtype
    usual, state = _average(
      jnp.diagonal(gramian), mask, jnp.asarray(decay, dtype), state
    )
    usual = usual + jnp.asarray(eps, dtype)
    taus = jnp.broadcast_to(jnp.asarray(tau, dtype), usual.shape)
    weights, residual = _weights(gramian, mask, usual, taus, primary)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='pcd',
      paper='Varam and AlHajri, 2026, https://arxiv.org/abs/2606.29521',
      invariance='direction',
    ),
  )
