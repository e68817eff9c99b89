"""CAGrad: the best worst-case direction near the mean gradient."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import ball_max_min
from mtljax.weightings import _common


class CAGradState(NamedTuple):
  """State of `cagrad`."""

  residual: jax.Array  # of the last solve, float32


def cagrad(
  *, c: ArrayLike = 0.4, rescale: Literal['none', 'c_squared', 'c'] = 'none'
) -> Weighting:
  r"""Conflict-averse gradient descent.

  With :math:`g_0` the mean of the gradients, the update is

  .. math:: d = \arg\max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|,

  so :math:`w_t = 1/T + c \|g_0\| w^*_t / \|g_{w^*}\|`, where :math:`w^*`
  minimises :math:`g_w^\top g_0 + c \|g_0\| \|g_w\|` over the simplex. The
  weights are not negative and sum to 1 or more. ``c = 0`` is the mean; a large
  ``c`` has the direction of `mgda`. For ``c < 1`` it converges to a minimum of
  the mean loss. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a search of a few
  steps, each a quadratic program of size T; two tasks have a closed form.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 + c
  a zero row                1/T for it; it counts in the mean and places no
                            demand on ``d``, so it does not stop the others
  all rows zero, mean 0     1/T
  equal rows                they share the second term equally
  0 in the hull, c >= 1     finite; ``d`` harms no task, and is 0 if some
                            combination with all weights positive is 0
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    c: the radius relative to the mean's norm, at least 0. In the paper 0.4 for
      NYUv2 and 0.2 for Cityscapes.
    rescale: what ``d`` is divided by: ``'none'`` nothing (the paper),
      ``'c_squared'`` :math:`1 + c^2`, ``'c'`` :math:`1 + c`.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.ball_max_min`.

  Raises:
    ValueError: ``c`` is negative or ``rescale`` is not known.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.cagrad(c=0.4)
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.947, 0.5]

  References:
    Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
    <https://arxiv.org/abs/2110.14048>`_, 2021
  """
  _validate.in_range('c', c, 0)
  _validate.one_of('rescale', rescale, ('none', 'c_squared', 'c'))

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return CAGradState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'cagrad')
    radius = jnp.asarray(c, gramian.dtype)
    extra, residual = ball_max_min(gramian, radius, mask)
    present = mask.astype(gramian.dtype)
    weights = present / jnp.maximum(jnp.sum(present), 1) + extra
    if rescale == 'c_squared':
      weights = weights / (1 + radius**2)
    elif rescale == 'c':
      weights = weights / (1 + radius)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='cagrad',
      paper='Liu et al., 2021, https://arxiv.org/abs/2110.14048',
    ),
  )
