"""IGB: log losses, weighted by how far each is from where it began."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class IGBState(NamedTuple):
  """State of `igb`; everything is a task's own, shape ``(T,)``."""

  base: jax.Array  # mean loss at the end of the warm-up
  seen: jax.Array  # steps of the warm-up so far, int32


def igb(*, warmup_steps: int = 100, base_steps: int | None = None) -> Weighting:
  r"""Improvable gap balancing (IGB, its first form).

  The gap that a task can still improve by is its loss in units of what it was
  early in training, :math:`L_t / b_t`. The log losses are weighted by it:

  .. math:: \sum_t a_t \log L_t, \quad
     a = T\, \mathrm{softmax}(L / b) \text{, held constant}, \qquad
     w_t = a_t / L_t

  During the warm-up :math:`a_t = 1`: the direction of `uw_o`. :math:`b_t` is
  the mean of :math:`L_t` over its last ``base_steps``. Theirs is the training
  loss of one epoch: pass the number of steps in it. The weights have no fixed
  sum. Heads are weighted: the method weights losses. The second form, whose
  :math:`a` a reinforcement learner chooses, is not here.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / L
  a loss of zero or below   NaN for all; it does not count in the warm-up
  absent tasks              0, the smaller problem's answer for the rest. A
                            task's warm-up counts the steps it was present;
                            those still in it have the weight 1 / L, the others
                            share as above
  NaN or infinity           NaN in that step, which does not count
  ========================  ==================================================

  Args:
    warmup_steps: length of the warm-up, at least 1.
    base_steps: the last steps of the warm-up, from 1 to all of it; None: all.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.igb(warmup_steps=1)
    >>> state = weighting.init(2)
    >>> for losses in ([1.0, 4.0], [1.0, 2.0]):
    ...   stats = mtl.TaskStats(losses=jnp.array(losses))
    ...   weights, state = weighting.update(stats, state)
    >>> [round(float(w), 3) for w in weights]
    [1.245, 0.378]

  References:
    Dai et al., `Improvable Gap Balancing for Multi-Task Learning
    <https://arxiv.org/abs/2307.15429>`_, 2023
  """
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 1)
  if base_steps is None:
    base_steps = warmup_steps
  base_steps = _validate.integer('base_steps', base_steps, 1)
  _validate.in_range('base_steps', base_steps, 1, warmup_steps)

  def init_fn(num_tasks, key=None):
    del key
    return IGBState(
      base=jnp.ones((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'igb')
    valid = losses > 0
    warm = state.seen < warmup_steps
    done = mask & ~warm
    # Far beyond what the softmax tells apart, and never infinite.
    ratio = losses / jnp.maximum(state.base, jnp.finfo(losses.dtype).tiny)
    shares = _loss_common.softmax(jnp.minimum(ratio, 1e30), done)
    shares = _loss_common.count(done) * shares
    weights = jnp.where(warm, 1, shares) / jnp.where(valid, losses, 1)

    nth = state.seen + 1 - (warmup_steps - base_steps)
    step = (losses - state.base) / jnp.maximum(nth, 1)
    new = IGBState(
      base=jnp.where(warm & (nth >= 1), state.base + step, state.base),
      seen=jnp.minimum(state.seen + 1, warmup_steps),
    )
    new = _loss_common.keep_absent(mask & valid, new, state)
    return _loss_common.nan_unless(valid, weights, mask), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='igb',
      paper='Dai et al., 2023, https://arxiv.org/abs/2307.15429',
      invariance='full',
      weight_heads=True,
    ),
  )
