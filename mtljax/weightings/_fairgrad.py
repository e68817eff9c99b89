"""FairGrad: alpha-fair allocation of the improvement."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import fair_newton
from mtljax.weightings import _common


class FairGradState(NamedTuple):
  """State of `fairgrad`."""

  residual: jax.Array  # of the last solve, float32


def fairgrad(*, alpha: ArrayLike = 2.0) -> Weighting:
  r"""Fair resource allocation in multi-task learning.

  The update :math:`d = J^\top w` maximises the :math:`\alpha`-fair utility
  :math:`\sum_t (g_t^\top d)^{1-\alpha} / (1-\alpha)` in a small ball. The
  weights are positive and solve

  .. math:: (G w)_t = w_t^{-1/\alpha}

  They have no fixed sum. A small :math:`\alpha` favours the sum of the
  improvements, 1 is `nash_mtl` (proportional fairness), 2 minimises potential
  delay, and a large one favours the task that improves least. For orthogonal
  gradients :math:`w_t = \|g_t\|^{-2\alpha/(\alpha+1)}`. Only
  :math:`\alpha = 1` does not depend on the losses' scales. Heads are not
  weighted. (The official code multiplies the update by T and clips its norm.)

  Scaling a task's loss leaves the update as it is for ``alpha=1`` (invariance
  ``'full'``), and changes its direction otherwise (``'none'``). Costs the
  Gramian (T backward passes) and 5 to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  ||g||^(-2 alpha / (alpha + 1))
  zero rows                 0 for them, the smaller problem's answer for the
                            rest
  equal rows                equal
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights whose combination is
                            bounded, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    alpha: the fairness, above 0. In float32 the equation is solved to about
      1e-5 at 1 and 1e-3 at 2 where the gradients' lengths span six decades,
      and worse the further alpha is from there; from 10 up or 0.5 down such
      lengths may leave it unsolved. The residual tells.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, :math:`\max_t |w_t^{1/\alpha} (G w)_t - 1|`.

  Raises:
    ValueError: ``alpha`` is not above 0.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.fairgrad(alpha=2.0)
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 64.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.0625]

  References:
    Ban and Ji, `Fair Resource Allocation in Multi-Task Learning
    <https://arxiv.org/abs/2402.15638>`_, 2024
  """
  _validate.in_range('alpha', alpha, 0, open_low=True)
  is_nash = isinstance(alpha, (int, float)) and alpha == 1

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return FairGradState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'fairgrad')
    weights, residual = fair_newton(gramian, alpha, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='fairgrad',
      paper='Ban and Ji, 2024, https://arxiv.org/abs/2402.15638',
      invariance='full' if is_nash else 'none',
    ),
  )
