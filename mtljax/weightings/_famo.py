"""FAMO: fast adaptive multitask optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common

_OFFSET = 1e-8  # the paper's, under the logarithm


class FAMOState(NamedTuple):
  """State of `famo`; everything is a task's own, shape ``(T,)``."""

  logits: jax.Array
  log_losses: jax.Array  # log D at the last update
  present: jax.Array  # the tasks of the last update, bool
  optimizer_state: Any  # Adam, one a task


def famo(
  *,
  learning_rate: ArrayLike = 0.025,
  weight_decay: ArrayLike = 1e-3,
  min_losses: Sequence[float] | jax.Array | None = None,
) -> Weighting:
  r"""Fast adaptive multitask optimization: equal rates of improvement.

  With :math:`D_t = L_t - b_t + 10^{-8}` and :math:`z = \mathrm{softmax}(\xi)`,
  the model descends along the gradient of :math:`c \sum_t z_t \log D_t`, where
  :math:`c = 1 / \sum_t (z_t / D_t)` is held constant:

  .. math:: w_t = \frac{z_t / D_t}{\sum_s z_s / D_s}

  After the step the losses of the same batch say how much each task improved,
  and the logits move towards those that improved least:

  .. math:: \delta = \log D(\theta_k) - \log D(\theta_{k+1}), \qquad
     \xi \leftarrow \mathrm{Adam}\big(\xi,\;
     J_\mathrm{softmax}^\top \delta + \gamma \xi\big)

  The weights sum to 1. Heads are weighted: the method weights losses. A factor
  on a loss changes only the length of the update, if no ``min_losses`` are
  given. The train step evaluates the losses after its update, one more forward
  pass. The optax face sees them only with the next call, so on the next batch.
  (The authors' code also clips the update's norm to 1: ``max_norm``.)

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``); with ``min_losses``, which do not scale along, it changes
  the direction too (invariance ``'none'``). Costs one backward pass and the T
  losses once more, after the step.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  L_t = b_t                 1 for it, nearly
  L_t below b_t             NaN for all; after a step: as NaN
  absent tasks              0, the smaller problem's answer for the rest;
                            their logits and Adam stand still
  NaN or infinity           NaN; after a step: that task has not been observed
                            and does not count in the change of the logits
  ========================  ==================================================

  Args:
    learning_rate: of the logits, at least 0.
    weight_decay: :math:`\gamma`, at least 0, part of Adam's gradient as in
      PyTorch. The paper has 0.001, and 0.01 for Cityscapes; the authors'
      example 0.01, the default of their class 1e-5.
    min_losses: lower bounds b of the losses, one a task; None: zeros.

  Returns:
    The `mtljax.Weighting`. Reads the losses, and observes those after a step.

  Raises:
    ValueError: an argument is out of range, or ``min_losses`` does not have
      one entry a task.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.famo()
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 4.0]))
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [0.8 0.2]
    >>> state = weighting.observe(jnp.array([0.5, 4.0]), state)
    >>> print(state.logits.round(3))
    [-0.025  0.025]

  References:
    Liu et al., `FAMO: Fast Adaptive Multitask Optimization
    <https://arxiv.org/abs/2306.03792>`_, 2023
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('weight_decay', weight_decay, 0)
  _loss_common.check_vector('min_losses', min_losses)

  def log_excess(losses):
    """``log D``, NaN where ``D`` is not positive."""
    if min_losses is not None:
      losses = losses - jnp.asarray(min_losses, losses.dtype)
    excess = losses + _OFFSET
    valid = (excess > 0) & (excess < jnp.inf)
    return jnp.log(jnp.where(valid, excess, jnp.nan))

  def init_fn(num_tasks, key=None):
    del key
    _loss_common.check_length('min_losses', min_losses, num_tasks)
    logits = jnp.zeros((num_tasks,), float)
    return FAMOState(
      logits=logits,
      log_losses=jnp.zeros((num_tasks,), float),
      present=jnp.zeros((num_tasks,), bool),
      optimizer_state=_loss_common.adam_init(logits),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'famo')
    logs = jnp.where(mask, log_excess(losses), 0)
    weights = _loss_common.softmax(state.logits - logs, mask)
    valid = ~jnp.isnan(logs)
    new = state._replace(log_losses=logs, present=mask)
    return _loss_common.nan_unless(valid, weights, mask), new

  def observe_fn(losses_after, state):
    after = jnp.asarray(losses_after).astype(float)
    logs = log_excess(after)
    seen = state.present & jnp.isfinite(logs)
    after = jnp.where(seen, logs, 0)
    change = jnp.where(seen, state.log_losses - after, 0)
    shares = _loss_common.softmax(state.logits, seen)
    gradient = shares * (change - jnp.sum(shares * change))
    gradient = gradient + jnp.asarray(weight_decay, after.dtype) * state.logits
    direction, optimizer_state = _loss_common.adam_step(
      gradient, state.optimizer_state, seen
    )
    rate = jnp.asarray(learning_rate, after.dtype)
    return state._replace(
      logits=state.logits - rate * direction, optimizer_state=optimizer_state
    )

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    observe=observe_fn,
    info=MethodInfo(
      name='famo',
      paper='Liu et al., 2023, https://arxiv.org/abs/2306.03792',
      invariance='direction' if min_losses is None else 'none',
      weight_heads=True,
    ),
  )
