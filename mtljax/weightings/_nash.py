"""Nash-MTL: the Nash bargaining solution between the tasks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import fair_newton
from mtljax.weightings import _common


class NashMTLState(NamedTuple):
  """State of `nash_mtl`."""

  residual: jax.Array  # of the last solve, float32


def nash_mtl() -> Weighting:
  r"""Multi-task learning as a bargaining game.

  The weights are positive and solve

  .. math:: w_t (G w)_t = 1, \qquad t = 1 \ldots T

  They have no fixed sum; the update :math:`J^\top w` has norm
  :math:`\sqrt T` whatever the losses' scales are, and improves every task. It
  is a strictly convex problem, solved by Newton's method. The paper clips the
  norm of the update afterwards: an option of the aggregator. Heads are
  weighted. For two tasks :math:`w_t = 1 / (\|g_t\| \sqrt{1 + \cos})`.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs the Gramian (T backward passes) and 5 to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / ||g||
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  equal rows                equal
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights that combine to an
                            update shorter than sqrt(T), with a residual of
                            order 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, :math:`\max_t |w_t (G w)_t - 1|`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.nash_mtl()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.5]

  References:
    Navon et al., `Multi-Task Learning as a Bargaining Game
    <https://arxiv.org/abs/2202.01017>`_, 2022
  """

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return NashMTLState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'nash_mtl')
    weights, residual = fair_newton(gramian, 1.0, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='nash_mtl',
      paper='Navon et al., 2022, https://arxiv.org/abs/2202.01017',
      invariance='full',
      weight_heads=True,
    ),
  )
