"""Dynamic weight average."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class DWAState(NamedTuple):
  """State of `dwa`; everything is a task's own, shape ``(T,)``."""

  mean: jax.Array  # of the losses in the window that is open
  seen: jax.Array  # steps in that window, int32
  last: jax.Array  # the mean of the last full window
  before: jax.Array  # the mean of the one before it
  windows: jax.Array  # full windows, counted up to 2, int32


def dwa(*, temperature: ArrayLike = 2.0, window: int = 25) -> Weighting:
  r"""Dynamic weight average: more weight where a loss falls more slowly.

  .. math:: w = T\, \mathrm{softmax}(r / \tau), \qquad
     r_t = \frac{\bar L_t(k - 1)}{\bar L_t(k - 2)}

  with :math:`\bar L_t(k)` the mean loss over the k-th window. The weights sum
  to the number of tasks present, and are 1 during the first two windows. The
  paper's window is an epoch: pass the number of steps in one. 25 steps are
  what the code of Nash-MTL uses for runs that have no epochs. Heads are
  weighted: the method weights losses. A factor on a loss leaves the weights as
  they are, so it acts as it would without weights.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a window's mean <= 0      NaN for all while the ratio divides by it
  absent tasks              0; T counts those present. Windows are counted
                            for each task in the steps it was present; one
                            with fewer than two has the ratio 1
  NaN or infinity           NaN, until its window is forgotten; in an
                            aggregator only in that step
  ========================  ==================================================

  Args:
    temperature: :math:`\tau`, above 0; a large one gives equal weights.
    window: steps that are averaged, at least 1.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0, or ``window`` is below 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.dwa(window=1)
    >>> state = weighting.init(2)
    >>> for losses in ([1.0, 1.0], [1.0, 0.5], [1.0, 0.5]):
    ...   stats = mtl.TaskStats(losses=jnp.array(losses))
    ...   weights, state = weighting.update(stats, state)
    >>> [round(float(w), 3) for w in weights]
    [1.124, 0.876]

  References:
    Liu et al., `End-to-End Multi-Task Learning with Attention
    <https://arxiv.org/abs/1803.10704>`_, 2019
  """
  _validate.in_range('temperature', temperature, 0, open_low=True)
  window = _validate.integer('window', window, 1)

  def init_fn(num_tasks, key=None):
    del key
    zeros, counts = jnp.zeros(num_tasks, float), jnp.zeros(num_tasks, jnp.int32)
    # Buffers of their own: a donated state must not hold one twice.
    return DWAState(zeros, counts, zeros.copy(), zeros.copy(), counts.copy())

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'dwa')
    ready = state.windows >= 2
    valid = ~ready | (state.before > 0)
    ratio = state.last / jnp.where(ready & valid, state.before, 1)
    ratio = jnp.where(ready, ratio, 1)
    shares = _loss_common.softmax(ratio, mask, temperature)
    weights = _loss_common.count(mask) * shares

    seen = state.seen + 1
    mean = state.mean + (losses - state.mean) / seen
    full = seen >= window
    new = DWAState(
      mean=jnp.where(full, 0, mean),
      seen=jnp.where(full, 0, seen),
      last=jnp.where(full, mean, state.last),
      before=jnp.where(full, state.last, state.before),
      windows=jnp.minimum(state.windows + full, 2),
    )
    new = _loss_common.keep_absent(mask, new, state)
    return _loss_common.nan_unless(valid, weights, mask), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='dwa',
      paper='Liu et al., 2019, https://arxiv.org/abs/1803.10704',
      weight_heads=True,
    ),
  )
