"""COSMOS: preferred losses, less their cosine with the preference."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common, _preference


def cosmos(
  *,
  cosine_weight: ArrayLike = 2.0,
  preference: _preference.Preference = None,
) -> Weighting:
  r"""Conditioned one-shot multi-objective search (COSMOS), its scalarization.

  The preferred sum of the losses, less the cosine of the losses with the
  preference :math:`\alpha`, which draws the losses to the preferred ratio. The
  weights are its gradient with respect to the losses:

  .. math:: \alpha^\top L - \lambda \cos(L, \alpha), \qquad
     w = \alpha - \frac{\lambda}{\|L\|}
     \Big(\frac{\alpha}{\|\alpha\|} - \cos(L, \alpha) \frac{L}{\|L\|}\Big)

  They sum to nothing in particular. A task whose loss is short of its share,
  beside a large :math:`\lambda`, has a negative weight: its loss is to rise.
  So heads are not weighted here, each descends its own loss; the paper's take
  the weights too. ``cosine_weight=0`` is `fixed` with these weights.

  The paper draws :math:`\alpha` from a Dirichlet distribution at every step
  and gives it to the network beside the input, so that one network holds the
  whole trade-off. The network is the user's; the preference may be traced,
  as an argument of the step in which the weighting is built, or by
  `mtljax.inject_hyperparams`.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  the preference; 1 by default
  losses as preferred       the preference
  all losses 0              the preference: there is no cosine
  negative losses           nothing special
  absent tasks              0, the smaller problem's answer for the rest, with
                            their preferences as given
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    cosine_weight: :math:`\lambda`, at least 0. The authors' code has 2 for
      Multi-MNIST, 8 for Multi-Fashion-MNIST, 3 for CelebA, 0.01 for fairness.
    preference: :math:`\alpha`, one a task, at least 0; None: 1/T, with T the
      tasks present.

  Returns:
    The `mtljax.Weighting`. Reads the losses; it has no state.

  Raises:
    ValueError: an argument is out of range, or the preference does not have
      one entry a task.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.cosmos(cosine_weight=1.0)
    >>> stats = mtl.TaskStats(losses=jnp.array([3.0, 4.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.477, 0.517]

  References:
    Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
    Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, 2021
  """
  _validate.in_range('cosine_weight', cosine_weight, 0)
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'cosmos')
    prefer = _preference.as_share(preference, mask, losses.dtype)
    losses = jnp.where(mask, losses, 0)
    length, towards = _loss_common.direction(losses)
    _, wanted = _loss_common.direction(prefer)
    off = wanted - jnp.sum(towards * wanted) * towards
    pull = jnp.asarray(cosine_weight, losses.dtype) / jnp.where(
      length > 0, length, 1
    )
    weights = prefer - jnp.where(length > 0, pull, 0) * off
    valid = jnp.isfinite(losses)
    return _loss_common.nan_unless(valid, weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='cosmos',
      paper='Ruchte and Grabocka, 2021, https://arxiv.org/abs/2103.13392',
      signed=True,
    ),
  )
