"""SLAW: losses divided by their running deviation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class SLAWState(NamedTuple):
  """State of `slaw`; everything is a task's own, shape ``(T,)``."""

  mean: jax.Array  # running mean of the loss
  variance: jax.Array  # running variance of the loss
  seen: jax.Array  # steps, int32


def slaw(*, decay: ArrayLike = 0.99, eps: ArrayLike = 1e-5) -> Weighting:
  r"""Scaled loss approximate weighting: about equal gradient norms.

  A loss whose gradient is long varies more from step to step. With
  :math:`s_t` the running standard deviation of the loss,

  .. math:: w_t = T\, \frac{1 / s_t}{\sum_u 1 / s_u}, \qquad
     s_t^2 = \mathrm{E}[L_t^2] - \mathrm{E}[L_t]^2

  where the means E run over all steps, this one included, for the first
  :math:`1 / (1 - \mathrm{decay})` steps (100), and are exponential with
  ``decay`` from then on. The weights sum to the number of tasks present, and
  are 1 at the first step. They approximate dividing by the gradients' norms at
  the price of no extra pass. Heads are weighted: the method weights losses.

  The variance is updated around the running mean. That is the same number as
  the difference of the formula, which in float32 loses it, and may be
  negative, where a loss varies little around its mean.

  After the first step a constant factor on a loss changes only the length of
  the update, as long as every deviation is above ``eps``.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a loss that is constant   the deviation counts as ``eps``: all the weight,
                            if the others' vary; equal if none does
  zero or negative losses   nothing special
  absent tasks              0; T counts those present, each with the history
                            of the steps it was present. One present for the
                            first time has weight 1, the rest share as above
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    decay: of the running means, from 0 to 1.
    eps: the least of the standard deviations, above 0, in units of a loss.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.slaw()
    >>> state = weighting.init(2)
    >>> for losses in ([3.0, 10.0], [2.0, 7.0]):
    ...   stats = mtl.TaskStats(losses=jnp.array(losses))
    ...   weights, state = weighting.update(stats, state)
    >>> [round(float(w), 3) for w in weights]
    [1.5, 0.5]

  References:
    Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for
    Efficient Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021
  """
  _validate.in_range('decay', decay, 0, 1)
  _validate.in_range('eps', eps, 0, open_low=True)

  def init_fn(num_tasks, key=None):
    del key
    return SLAWState(
      mean=jnp.zeros((num_tasks,), float),
      variance=jnp.zeros((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'slaw')
    seen = optax.safe_increment(state.seen)
    new_part = jnp.maximum(
      1 / seen.astype(losses.dtype), 1 - jnp.asarray(decay, losses.dtype)
    )
    off = losses - state.mean
    new = SLAWState(
      mean=state.mean + new_part * off,
      variance=(1 - new_part) * (state.variance + new_part * off**2),
      seen=seen,
    )
    deviation = jnp.maximum(jnp.sqrt(new.variance), eps)
    known = mask & (seen > 1)
    shares = _loss_common.softmax(-jnp.log(deviation), known)
    weights = jnp.where(seen > 1, _loss_common.count(known) * shares, 1)
    new = _loss_common.keep_absent(mask, new, state)
    return jnp.where(mask, weights, 0), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='slaw',
      paper='Crawshaw and Košecká, 2021, https://arxiv.org/abs/2109.08218',
      weight_heads=True,
    ),
  )
