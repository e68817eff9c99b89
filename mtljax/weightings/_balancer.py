"""The balancer of EnCodec: target shares of the gradient at an output."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common, _preference


class BalancerState(NamedTuple):
  """State of `balancer`; everything is a task's own, shape ``(T,)``."""

  norms: jax.Array  # moving average, biased
  averaged: jax.Array  # its weights' sum


def balancer(
  *,
  preference: _preference.Preference = None,
  decay: ArrayLike = 0.999,
  total_norm: ArrayLike = 1.0,
) -> Weighting:
  r"""The loss balancer of EnCodec: every task its share of the gradient.

  Each gradient is divided by the moving average of its length and given the
  share of the whole that is wanted for it:

  .. math:: w_t = R\, \frac{\lambda_t}{\sum_s \lambda_s}
     \frac{1}{\langle \|g_t\| \rangle_\beta}

  where the average counts this step and is corrected for its start. So the
  preferences are shares, not weights in units of the losses. The weights have
  no fixed sum; the lengths of the terms sum to R on average. Heads are not
  weighted. The paper takes the gradients at the model's output:
  ``route='features'`` with the output as the features, or ``gramian_labels``
  of the layer that makes it. Its code averages the lengths of the samples'
  gradients over a batch, which the Gramian does not have; this is its
  ``per_batch_item=False``, the formula.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs the Gramian's diagonal (T backward passes) and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  :math:`R / \langle \|g\| \rangle`
  zero rows                 0 while their average is 0: they have no direction;
                            their share stays theirs
  equal or opposed rows     nothing special: only their norms are read
  a preference of 0         0
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the averages stand still
  ========================  ==================================================

  Args:
    preference: :math:`\lambda`, one a task, at least 0; None: equal.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    total_norm: R, above 0.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian.

  Raises:
    ValueError: an argument is out of range, or the preference does not have
      one entry a task.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.balancer(preference=[3.0, 1.0])
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 100.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.75, 0.025]

  References:
    Défossez et al., `High Fidelity Neural Audio Compression
    <https://arxiv.org/abs/2210.13438>`_, 2022
  """
  _validate.in_range('decay', decay, 0, 1, open_high=True)
  _validate.in_range('total_norm', total_norm, 0, open_low=True)
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    zeros = jnp.zeros((num_tasks,), float)
    return BalancerState(norms=zeros, averaged=zeros.copy())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'balancer')
    _, norms = row_normalize(gramian, mask)
    dtype = norms.dtype
    kept = jnp.asarray(decay, dtype)
    sums = kept * state.norms.astype(dtype) + (1 - kept) * norms
    averaged = kept * state.averaged.astype(dtype) + (1 - kept)
    usual = sums / averaged
    prefer = _preference.as_array(preference, mask, dtype)
    total = jnp.sum(prefer)
    shares = prefer / jnp.where(total > 0, total, 1)
    some = ~(usual <= 0)
    weights = jnp.asarray(total_norm, dtype) * shares
    weights = jnp.where(some, weights / jnp.where(some, usual, 1), 0)

    moved = mask & jnp.all(jnp.isfinite(norms))
    out = state.norms.dtype
    new = BalancerState(
      norms=jnp.where(moved, sums.astype(out), state.norms),
      averaged=jnp.where(moved, averaged.astype(out), state.averaged),
    )
    return _common.nan_unless_finite(weights, gramian, mask), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='balancer',
      paper='Défossez et al., 2022, https://arxiv.org/abs/2210.13438',
      invariance='full',
    ),
  )
