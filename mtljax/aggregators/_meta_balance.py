"""MetaBalance: auxiliary gradients brought near the primary one's length."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class MetaBalanceState(NamedTuple):
  """State of `meta_balance`."""

  averaged: jax.Array  # (T,), the sum of the averages' weights
  norms: Any  # (T,) a leaf: moving averages of the lengths, biased


def meta_balance(
  *,
  primary: int = 0,
  relax_factor: ArrayLike = 0.7,
  decay: ArrayLike = 0.9,
) -> _base.GradientRule:
  r"""MetaBalance: auxiliary gradients near the primary one's length.

  In every parameter array apart, with :math:`m_t` the moving average of the
  length of task t's gradient there and p the primary task, the update is

  .. math:: d = \sum_t \Big( r \frac{m_p}{m_t} + 1 - r \Big) g_t, \qquad
     m_t \leftarrow \beta m_t + (1 - \beta) \|g_t\|

  which leaves the primary gradient as it is. ``relax_factor=1`` gives all the
  same usual length, 0 is the sum of the gradients. There are no task weights:
  the factors differ from array to array. Heads take their own gradients. The
  averages are corrected for their start, which changes nothing but where tasks
  were absent. The state holds T numbers a shared array.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero row                it adds nothing
  an average of 0           the gradient times :math:`1 - r`
  equal, antiparallel rows  nothing special: only lengths are read
  absent tasks              they add nothing, and their averages stand still;
                            without an average of the primary task the others
                            are added as they are
  NaN or infinity           not finite where a task's gradient is not; the
                            averages stand still
  ========================  ==================================================

  Args:
    primary: the index of the primary task.
    relax_factor: r, from 0 to 1.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.meta_balance(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 10.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> [round(float(x), 3) for x in update['w']]
    [1.0, 3.7]

  References:
    He et al., `MetaBalance: Improving Multi-Task Recommendations via Adapting
    Gradient Magnitudes of Auxiliary Tasks <https://arxiv.org/abs/2203.06801>`_,
    2022
  """
  primary = _validate.integer('primary', primary, 0)
  _validate.in_range('relax_factor', relax_factor, 0, 1)
  _validate.in_range('decay', decay, 0, 1, open_high=True)

  def init_fn(num_tasks, shared, key):
    del key
    if primary >= num_tasks:
      raise ValueError(
        f'primary={primary} must be below num_tasks={num_tasks}.'
      )
    return MetaBalanceState(
      averaged=jnp.zeros((num_tasks,), float),
      norms=jax.tree.map(lambda p: jnp.zeros((num_tasks,), float), shared),
    )

  def update_fn(rows, state):
    mask = rows.present
    kept = jnp.asarray(decay, state.averaged.dtype)
    averaged = kept * state.averaged + (1 - kept)
    averaged = jnp.where(mask, averaged, state.averaged)
    sums, update = [], []
    for leaf, old in zip(rows.leaves, state.norms, strict=True):
      norms = jnp.sqrt(jnp.diagonal(_tree.leaf_products(leaf, leaf)))
      new = kept * old + (1 - kept) * norms.astype(old.dtype)
      new = jnp.where(mask, new, old)
      usual = new / jnp.where(averaged > 0, averaged, 1)
      some = ~(usual <= 0)
      ratio = usual[primary] / jnp.where(some, usual, 1)
      ratio = jnp.where(some, ratio, 0)
      known = averaged[primary] > 0
      factor = relax_factor * jnp.where(known, ratio, 1) + (1 - relax_factor)
      # The primary gradient itself is not rounded.
      factor = jnp.where(jnp.arange(len(factor)) == primary, 1, factor)
      update.append(_tree.combine_leaf(factor, leaf))
      sums.append(new)
    ok = jnp.all(jnp.isfinite(jnp.stack(sums)))
    state = MetaBalanceState(
      averaged=jnp.where(ok, averaged, state.averaged),
      norms=_base.keep_unless(ok, sums, state.norms),
    )
    return _base.Outcome(update, state)

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='meta_balance',
      paper='He et al., 2022, https://arxiv.org/abs/2203.06801',
    ),
    keeps_rows=True,
    has_weights=False,
  )
