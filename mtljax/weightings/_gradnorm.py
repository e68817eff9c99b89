"""GradNorm: weights learned so that tasks train at the same rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common, _loss_common


class GradNormState(NamedTuple):
  """State of `gradnorm`."""

  loss_weights: jax.Array  # (T,)
  first_losses: jax.Array  # (T,); 0 before a task's first step
  optimizer_state: Any  # Adam, one a task


@jax.jit
def _gradient(
  gramian: jax.Array,
  weights: jax.Array,
  ratios: jax.Array,
  alpha: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """The gradient of the loss on norms in the weights, for a fixed target."""
  _, norms = row_normalize(gramian, mask)
  count = jnp.maximum(jnp.sum(mask), 1).astype(norms.dtype)
  sizes = weights * norms
  mean_size = jnp.sum(jnp.where(mask, sizes, 0)) / count
  mean_ratio = jnp.sum(jnp.where(mask, ratios, 0)) / count
  relative = ratios / jnp.where(mean_ratio == 0, 1, mean_ratio)
  target = mean_size * relative**alpha
  return jnp.where(mask, jnp.sign(sizes - target) * norms, 0)


@jax.jit
def _update(
  gramian: jax.Array,
  losses: jax.Array,
  mask: jax.Array,
  alpha: jax.Array,
  learning_rate: jax.Array,
  min_weight: jax.Array,
  state: GradNormState,
) -> tuple[jax.Array, GradNormState]:
  old = state.loss_weights
  dtype = old.dtype
  count = _loss_common.count(mask)
  # What the tasks present have together they keep; they are told it is T.
  share = jnp.sum(jnp.where(mask, old, 0))
  share = jnp.where(share == 0, 1, share)
  weights = jnp.where(mask, old * (count / share), 0)

  first = state.first_losses
  first = jnp.where(mask & (first == 0), losses, first)
  started = first != 0
  ratios = jnp.where(started, losses / jnp.where(started, first, 1), 1)
  gradient = _gradient(
    gramian,
    weights.astype(gramian.dtype),
    ratios.astype(gramian.dtype),
    alpha,
    mask,
  )
  direction, optimizer_state = _loss_common.adam_step(
    gradient.astype(dtype), state.optimizer_state, mask
  )
  moved = weights - learning_rate * direction
  moved = jnp.maximum(moved, min_weight)
  total = jnp.sum(jnp.where(mask, moved, 0))
  moved = moved * (share / jnp.where(total == 0, 1, total))
  new = GradNormState(jnp.where(mask, moved, old), first, optimizer_state)
  return weights, new


def gradnorm(
  *,
  alpha: ArrayLike = 1.5,
  learning_rate: ArrayLike = 0.025,
  min_weight: ArrayLike = 1e-3,
) -> Weighting:
  r"""Gradient normalisation (GradNorm).

  Adam moves the weights down the gradient of

  .. math:: \sum_t \Big| w_t \|g_t\| - \bar G\, r_t^\alpha \Big|, \qquad
     \bar G = \frac1T \sum_s w_s \|g_s\|, \quad
     r_t = \frac{L_t / L_t(0)}{\frac1T \sum_s L_s / L_s(0)}

  in which :math:`\bar G r_t^\alpha` is a constant, and scales them to sum to T
  again. A task that trains more slowly than the others, :math:`r_t > 1`, is
  given a longer gradient. The weights of a step are those from before its
  update. :math:`L_t(0)` is the loss in the task's first step. Heads are
  weighted: the method weights losses. Scaling a task's loss changes the update
  (invariance ``'none'``) until the weights have made up for it. The paper
  takes the gradients of the last shared layer: ``gramian_labels`` of
  `mtljax.aggregate`. Costs the Gramian (T backward passes) and O(T) beside
  it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                its own weight has no gradient; the norms' mean
                            counts it
  equal or opposed rows     nothing special: only their norms are read
  below ``min_weight``      a weight is held there before the scaling (the paper
                            has no bound, and a step may pass 0)
  a first loss of 0         its ratio is 1 until a loss is not 0, which is then
                            its first
  a negative ratio          NaN from the next step on, unless alpha is whole;
                            in an aggregator they stand still in that step
  absent tasks              0, the smaller problem's answer for the rest; their
                            weight and Adam stand still
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    alpha: how strongly the rates are made equal, at least 0; 0 makes the norms
      equal. In the paper 1.5 for NYUv2, 0.12 for its toy problem.
    learning_rate: of the weights, at least 0.
    min_weight: what a step may not take a weight below, at least 0.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian.

  Raises:
    ValueError: an argument is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.gradnorm()
    >>> stats = mtl.TaskStats(
    ...   gramian=jnp.diag(jnp.array([1.0, 100.0])), losses=jnp.ones(2)
    ... )
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1. 1.]
    >>> weights, _ = weighting.update(stats, state)
    >>> [round(float(w), 4) for w in weights]
    [1.025, 0.975]

  References:
    Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing
    in Deep Multitask Networks <https://arxiv.org/abs/1711.02257>`_, 2018
  """
  _validate.in_range('alpha', alpha, 0)
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('min_weight', min_weight, 0)

  def init_fn(num_tasks, key=None):
    del key
    ones = jnp.ones((num_tasks,), float)
    return GradNormState(
      ones, jnp.zeros_like(ones), _loss_common.adam_init(ones)
    )

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'gradnorm')
    losses, _ = _loss_common.losses_and_mask(stats, 'gradnorm')
    weights, state = _update(
      gramian,
      losses,
      mask,
      jnp.asarray(alpha, gramian.dtype),
      jnp.asarray(learning_rate, losses.dtype),
      jnp.asarray(min_weight, losses.dtype),
      state,
    )
    return _common.nan_unless_finite(weights, gramian, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='gradnorm',
      paper='Chen et al., 2018, https://arxiv.org/abs/1711.02257',
      weight_heads=True,
    ),
  )
