"""PBI: progress along a preferred direction, and the distance from it."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common, _preference


def pbi(
  *,
  penalty: ArrayLike = 5.0,
  preference: _preference.Preference = None,
  reference: _preference.Preference = None,
) -> Weighting:
  r"""Penalty-based boundary intersection (PBI).

  With :math:`\hat\lambda = \lambda / \|\lambda\|` the preferred direction from
  the ideal losses :math:`z`, the objective is how far the losses are along it
  and, times :math:`\theta`, how far they are off it. The weights are its
  gradient with respect to the losses:

  .. math:: d_1 + \theta d_2, \quad
     d_1 = \hat\lambda^\top (L - z), \quad
     r = L - z - d_1 \hat\lambda, \quad d_2 = \|r\|, \qquad
     w = \hat\lambda + \theta \frac{r}{\|r\|}

  They sum to nothing in particular. A task whose loss is short of its share
  has a negative weight for any :math:`\theta` that is not small: its loss is
  to rise. So heads are not weighted here, each descends its own loss.

  :math:`r / \|r\|` jumps at :math:`r = 0`; there, and where :math:`r` is no
  longer than rounding, it is 0. TorchJD adds 1e-12 under the root instead.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  losses as preferred       :math:`\hat\lambda`; so where all are ideal
  losses below the ideal    nothing special
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    penalty: :math:`\theta`, at least 0. 5 in the paper.
    preference: :math:`\lambda`, one a task, at least 0; None: equal. May be
      traced, as that of `cosmos`.
    reference: :math:`z`, the ideal losses, one a task; None: zeros.

  Returns:
    The `mtljax.Weighting`. Reads the losses; it has no state.

  Raises:
    ValueError: an argument is out of range, or a vector does not have one
      entry a task.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pbi(penalty=0.5)
    >>> stats = mtl.TaskStats(losses=jnp.array([3.0, 4.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.354, 1.061]

  References:
    Zhang and Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on
    Decomposition <https://ieeexplore.ieee.org/document/4358754>`_, 2007
  """
  _validate.in_range('penalty', penalty, 0)
  _preference.check(preference)
  _loss_common.check_vector('reference', reference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    _loss_common.check_length('reference', reference, num_tasks)
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'pbi')
    prefer = _preference.as_array(preference, mask, losses.dtype)
    if reference is not None:
      losses = losses - jnp.asarray(reference, losses.dtype)
    losses = jnp.where(mask, losses, 0)
    _, towards = _loss_common.direction(losses)
    _, wanted = _loss_common.direction(prefer)
    # The direction off the preferred one is the same for the unit vector.
    off = towards - jnp.sum(towards * wanted) * wanted
    length, off = _loss_common.direction(off)
    rounding = 8 * jnp.finfo(losses.dtype).eps
    off = jnp.where(length <= rounding, 0, off)
    weights = wanted + jnp.asarray(penalty, losses.dtype) * off
    valid = jnp.isfinite(losses)
    return _loss_common.nan_unless(valid, weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='pbi',
      paper='Zhang and Li, 2007, https://ieeexplore.ieee.org/document/4358754',
      signed=True,
    ),
  )
