"""ConicGrad: the best worst-case direction at an angle to the mean."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import cone_max_min
from mtljax.weightings import _common


class ConicGradState(NamedTuple):
  """State of `conic_grad`."""

  residual: jax.Array  # of the last solve, float32


def conic_grad(*, c: ArrayLike = 0.5) -> Weighting:
  r"""The best worst-case direction inside a cone around the mean gradient.

  With :math:`g_0` the mean of the gradients, the update has the direction of

  .. math:: \arg\max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \|d\| \le 1, \; g_0^\top d \ge c \|g_0\|

  and the length of :math:`g_0`. Its angle to the mean is at most
  :math:`\arccos c`, and where the cone holds a direction in which all losses
  fall, all of them do. The direction of `mgda`, if that is inside; ``c = 1``
  is the mean. CAGrad's ball of radius :math:`c'` lies in the cone of
  :math:`c = \sqrt{1 - c'^2}`, so for a step of given length the worst task
  gains no less here. The weights are not negative and
  have no fixed sum. Heads are not weighted.

  The problem is solved to accuracy from the Gramian. The paper takes a step on
  the dual's weights at a time, and inverts a matrix for each; its length is
  set apart from the direction too.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a search of a few
  steps, each a quadratic program of size T + 1.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                it counts in the mean, with weight in proportion,
                            and places no demand on ``d``
  all rows zero, mean 0     zeros
  no direction in the cone  the one in which the worst task loses least: the
  improves all tasks        update is not 0 at Pareto stationary points, unless
                            ``c = 0``
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    c: the least cosine of the update and the mean gradient, from 0 to 1.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.cone_max_min`.

  Raises:
    ValueError: ``c`` is not from 0 to 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.conic_grad(c=0.9)
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.886, 0.341]

  References:
    Hassanpour et al., `Fantastic Multi-Task Gradient Updates and How to Find
    Them In a Cone <https://arxiv.org/abs/2502.00217>`_, 2025
  """
  _validate.in_range('c', c, 0, 1)

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return ConicGradState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'conic_grad')
    weights, residual = cone_max_min(gramian, c, mask)
    residual = residual.astype(jnp.float32)
    return weights, state._replace(residual=residual)

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='conic_grad',
      paper='Hassanpour et al., 2025, https://arxiv.org/abs/2502.00217',
    ),
  )
