"""BMTL: a convex increasing function of every loss."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


def bmtl(*, temperature: ArrayLike = 1.0, normalize: bool = False) -> Weighting:
  r"""Balanced multi-task learning: more weight for the larger losses.

  The objective and its gradient with respect to the losses are

  .. math:: \sum_t e^{L_t / \tau}, \qquad w_t = \frac{1}{\tau} e^{L_t / \tau}

  With ``normalize`` the objective is :math:`\tau \log \sum_t e^{L_t / \tau}`,
  which has the same minima and :math:`w = \mathrm{softmax}(L / \tau)`: `stch`
  with unit preferences. The two differ only in the length of the update. The
  weights sum to nothing in particular; normalised, to 1. A small temperature
  attends to the task with the largest loss, a large one to the sum. Heads are
  weighted: the method is a function of the losses.

  The weights are computed through their logarithms and do not overflow: where
  the largest would be above the cube root of the largest number of its dtype,
  7e12 in float32, all are shrunk by one factor to make it that.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(L / tau) / tau; normalised: 1
  zero or negative losses   nothing special
  L much larger than tau    finite, see above
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    temperature: :math:`\tau`, above 0, in units of a loss. The paper tunes it.
    normalize: whether the weights sum to 1.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.bmtl(temperature=2.0)
    >>> stats = mtl.TaskStats(losses=jnp.array([0.0, 2.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.5, 1.359]

  References:
    Liang and Zhang, `A Simple General Approach to Balance Task Difficulty in
    Multi-Task Learning <https://arxiv.org/abs/2002.04792>`_, 2020
  """
  _validate.in_range('temperature', temperature, 0, open_low=True)
  _validate.flag('normalize', normalize)

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'bmtl')
    if normalize:
      return _loss_common.softmax(losses, mask, temperature), state
    temper = jnp.asarray(temperature, losses.dtype)
    limit = jnp.log(jnp.finfo(losses.dtype).max) / 3
    top = jnp.max(jnp.where(mask, losses, -jnp.inf))
    largest = jnp.minimum(top / temper - jnp.log(temper), limit)
    weights = jnp.exp((losses - top) / temper + largest)
    return jnp.where(mask, weights, 0), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='bmtl',
      paper='Liang and Zhang, 2020, https://arxiv.org/abs/2002.04792',
      weight_heads=True,
    ),
  )
