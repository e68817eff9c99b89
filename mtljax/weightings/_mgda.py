"""MGDA: the point of least norm in the hull of the gradients."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import min_norm_unit, row_normalize
from mtljax.weightings import _common


class MGDAState(NamedTuple):
  """State of `mgda`."""

  residual: jax.Array  # of the last solve, float32


def mgda(
  *, normalize: Literal['none', 'l2', 'loss', 'loss+'] = 'none'
) -> Weighting:
  r"""The multiple-gradient descent algorithm.

  .. math:: w = \arg\min_{w \ge 0,\ \sum_t w_t = 1} w^\top G w

  The weights sum to 1. The update :math:`J^\top w` is the shortest vector in
  the convex hull of the gradients; it harms no task, and is 0 exactly at
  Pareto stationary points. It is solved to rounding, not by a fixed number of
  Frank-Wolfe steps. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and one quadratic program
  of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                all on it (shared, if several), so the update is
                            0: such a point is Pareto stationary
  equal rows                they share their weight equally
  0 in the hull             combine the rows to 0 up to rounding
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    normalize: how the gradients are scaled for *finding* the weights, which
      then apply to the gradients as they are: ``'none'``, ``'l2'``
      (:math:`g_t / \|g_t\|`), ``'loss'`` (:math:`g_t / L_t`), ``'loss+'``
      (:math:`g_t / (L_t \|g_t\|)`). A loss of 0 counts as an infinitely long
      gradient, and a negative one makes the weights NaN. Where several
      combinations of the scaled gradients are 0, rounding chooses among them,
      and the update is that of its choice.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian, and the losses for ``'loss'``
    and ``'loss+'``. Its state has the residual of the last solve, see
    `mtljax.solvers.min_norm_simplex`.

  Raises:
    ValueError: ``normalize`` is not known.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.mgda()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.8, 0.2]

  References:
    Désidéri, `Multiple-gradient descent algorithm (MGDA) for multiobjective
    optimization <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012

    Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
    <https://arxiv.org/abs/1810.04650>`_, 2018
  """
  _validate.one_of('normalize', normalize, ('none', 'l2', 'loss', 'loss+'))
  by_loss = normalize in ('loss', 'loss+')

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return MGDAState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'mgda')
    unit, norms = row_normalize(gramian, mask)
    if normalize in ('l2', 'loss+'):
      # Not norms / norms: a NaN has to stay one.
      norms = jnp.where(norms > 0, 1, norms)
    if by_loss:
      if stats.losses is None:
        raise ValueError(
          f'mgda(normalize={normalize!r}) needs stats.losses, which is None.'
        )
      losses = jnp.where(mask, stats.losses, 1).astype(norms.dtype)
      losses = jnp.where(losses < 0, jnp.nan, losses)
      # A loss of 0 divides by the least number instead: among several, the
      # gradients decide.
      tiny = jnp.finfo(norms.dtype).tiny
      losses = jnp.where(losses == 0, tiny, losses)
      norms = jnp.where(norms == 0, 0 * losses, norms / losses)
    weights, residual = min_norm_unit(unit, norms, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  needs = ('gramian', 'losses') if by_loss else ('gramian',)
  return Weighting(
    init_fn,
    update_fn,
    frozenset(needs),
    info=MethodInfo(
      name='mgda',
      paper='Sener and Koltun, 2018, https://arxiv.org/abs/1810.04650',
    ),
  )
