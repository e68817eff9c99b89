"""SLW: every weighted gradient of the same norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common


class SLWState(NamedTuple):
  """State of `slw`: none."""


@jax.jit
def _weights(gramian: jax.Array, mask: jax.Array) -> jax.Array:
  _, norms = row_normalize(gramian, mask)
  used = ~(norms <= 0)
  smallest = jnp.min(jnp.where(used, norms, jnp.inf))
  inverse = jnp.where(used, smallest / jnp.where(used, norms, 1), 0)
  total = jnp.sum(inverse)
  count = jnp.sum(used).astype(norms.dtype)
  return count * inverse / jnp.where(total == 0, 1, total)


def slw() -> Weighting:
  r"""Scaled loss weighting by gradient norms (SLW).

  .. math:: w_t = T\, \frac{1 / \|g_t\|}{\sum_s 1 / \|g_s\|}

  The weights sum to T, and all :math:`w_t g_t` have the same norm. It is what
  SLAW approximates from the spread of the losses. Heads are weighted: the
  method weights losses. Scaling a task's loss changes the length of the update
  only (invariance ``'direction'``). The paper takes the gradients of the last
  shared layer: ``gramian_labels`` of `mtljax.aggregate`. Costs the Gramian (T
  backward passes) and O(T) beside it.

  Under other names, up to the length of the update: NTKMTL with the kernel of
  one sample, :math:`w_t = \sqrt{\mathrm{tr}\, G / G_{tt}}`, whose heads are
  not weighted, and DiBS-MTL with one step, which then clips the update's norm.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  all rows zero             zeros
  equal or opposed rows     nothing special: only their norms are read
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; it has no state.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.slw()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 9.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1.5 0.5]

  References:
    Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for
    Efficient Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021

    `NTKMTL <https://github.com/jianke0604/NTKMTL>`_, 2025, and `DiBS-MTL
    <https://arxiv.org/abs/2509.23948>`_, 2025: the equal updates
  """

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return SLWState()

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'slw')
    weights = _weights(gramian, mask)
    return _common.nan_unless_finite(weights, gramian, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='slw',
      paper='Crawshaw and Košecká, 2021, https://arxiv.org/abs/2109.08218',
      invariance='direction',
      weight_heads=True,
    ),
  )
