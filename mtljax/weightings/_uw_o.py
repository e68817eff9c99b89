"""UW-O and UW-SO: uncertainty weighting with its minimum put in."""

from __future__ import annotations

import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common

_PAPER = 'Kirchdorfer et al., 2024, https://arxiv.org/abs/2408.07985'


def uw_o() -> Weighting:
  r"""Optimal uncertainty weighting (UW-O): every loss divided by itself.

  Instead of learning the noise levels as `uncertainty` does, their minimum
  :math:`\sigma_t = L_t` of :math:`L_t / \sigma_t + \log \sigma_t` is put in,
  as a constant:

  .. math:: w_t = 1 / L_t

  That is the gradient of :math:`\sum_t \log L_t`, the scale-invariant (SI)
  baseline: a constant factor on a loss changes nothing, for the shared
  parameters and for the heads. The weights sum to nothing in particular, and
  grow as the losses fall. Heads are weighted: the method weights losses.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / L
  a loss of zero or below   NaN for all: it has no logarithm
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.uw_o()
    >>> stats = mtl.TaskStats(losses=jnp.array([0.5, 100.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [2.   0.01]

  References:
    Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, 2024
  """

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'uw_o')
    weights = 1 / losses
    return _loss_common.nan_unless(losses > 0, weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='uw_o', paper=_PAPER, invariance='full', weight_heads=True
    ),
  )


def uw_so(*, temperature: ArrayLike = 1.0) -> Weighting:
  r"""Soft optimal uncertainty weighting (UW-SO).

  The inverse losses of `uw_o`, made comparable by a softmax over the tasks:

  .. math:: w = \mathrm{softmax}\left(\frac{1}{\tau L}\right)

  The weights sum to 1 over the tasks present. The smallest loss weighs most,
  more so with a small temperature; a large one gives the mean. Heads are
  weighted: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a loss of zero or below   NaN for all: it has no noise level
  one far smaller loss      1 for it, 0 for the others, if below 1 / tau too
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    temperature: :math:`\tau`, above 0, in units of an inverse loss. The paper
      tunes it for each data set; there is no value that fits all.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.uw_so(temperature=1.0)
    >>> stats = mtl.TaskStats(losses=jnp.array([0.5, 1.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.731, 0.269]

  References:
    Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, 2024
  """
  _validate.in_range('temperature', temperature, 0, open_low=True)

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'uw_so')
    weights = _loss_common.softmax(1 / losses, mask, temperature)
    return _loss_common.nan_unless(losses > 0, weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(name='uw_so', paper=_PAPER, weight_heads=True),
  )
