"""Trimmed mean: every coordinate's mean without its extremes."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


def _selection(num_tasks: int, trim: int) -> list[tuple[int, int]]:
  """Compare-exchanges that bring the extremes to the ends."""
  pairs = []
  for i in range(trim):
    low, high = i, num_tasks - 1 - i
    pairs += [(j, j + 1) for j in range(low, high)]
    pairs += [(j - 1, j) for j in range(high - 1, low, -1)]
  return pairs


def _merge_exchange(num_tasks: int) -> list[tuple[int, int]]:
  """Compare-exchanges that sort (Batcher's merge exchange, Knuth 5.2.2M)."""
  pairs = []
  top = 1 << max(num_tasks - 1, 1).bit_length() - 1
  p = top
  while p > 0:
    q, r, d = top, 0, p
    while True:
      pairs += [(i, i + d) for i in range(num_tasks - d) if i & p == r]
      if q == p:
        break
      d, q, r = q - p, q // 2, p
    p //= 2
  return pairs


def _exchanged(
  rows: Iterable[jax.Array], pairs: Iterable[tuple[int, int]]
) -> list[jax.Array]:
  """The rows after the compare-exchanges; a NaN spreads in its coordinate."""
  rows = list(rows)
  for i, j in pairs:
    rows[i], rows[j] = (
      jnp.minimum(rows[i], rows[j]),
      jnp.maximum(rows[i], rows[j]),
    )
  return rows


def _of_all(leaf: jax.Array, trim: int) -> jax.Array:
  """The trimmed mean of a leaf ``(T, ...)``."""
  num_tasks = leaf.shape[0]
  sort, select = _merge_exchange(num_tasks), _selection(num_tasks, trim)
  shortest = sort if len(sort) < len(select) else select
  rows = _exchanged(leaf, shortest)[trim : num_tasks - trim]
  acc = _tree.accumulator(leaf.dtype)
  return sum(x.astype(acc) for x in rows) / len(rows)


def _of_present(leaf: jax.Array, mask: jax.Array, trim: int) -> jax.Array:
  """The same over the tasks present, of which the number is not static."""
  acc = _tree.accumulator(leaf.dtype)
  count = jnp.sum(mask)
  cut = jnp.minimum(trim, jnp.maximum(count - 1, 0) // 2)
  column = mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
  rows = _exchanged(
    jnp.where(column, leaf, jnp.inf), _merge_exchange(leaf.shape[0])
  )
  total = sum(
    jnp.where((i >= cut) & (i < count - cut), x.astype(acc), 0)
    for i, x in enumerate(rows)
  )
  return total / jnp.maximum(count - 2 * cut, 1)


def trimmed_mean(*, trim: int = 1) -> _base.GradientRule:
  r"""Trimmed mean: robust to tasks with outlying gradients.

  In every coordinate the ``trim`` largest and the ``trim`` smallest of the
  tasks' entries are left out, and the rest is averaged:

  .. math:: d_i = \frac{1}{T - 2k} \sum_{t = k + 1}^{T - k} g_{(t), i}, \qquad
     g_{(1), i} \le \dots \le g_{(T), i}

  The extremes are found by comparisons of whole rows, without a full sort
  where few are trimmed, and left out rather than subtracted: one huge entry
  costs no precision. It gives no task weights: `mtljax.get_weights` raises,
  and heads are not weighted. Scaling a task's loss changes the update
  (invariance ``'none'``). Costs the T gradients and about 2 k T comparisons a
  coordinate; the state is empty.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient, with ``trim=0``
  zero rows                 entries like others
  equal rows                the row
  antiparallel rows         nothing special
  absent tasks              the smaller problem; if fewer than 2 k + 1 are
                            present, as many are trimmed at each end as leave
                            one or two: the median
  infinity                  an extreme like others: it is trimmed, or reaches
                            its coordinate
  NaN                       NaN in its coordinates, the others are not touched
  ========================  ==================================================

  Args:
    trim: k, how many entries to leave out at each end, a Python int. 0 is the
      mean.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: ``trim`` is not an int of at least 0, or T is below 2 k + 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.trimmed_mean(num_tasks=3, trim=1)
    >>> grads = {'w': jnp.array([[1.0, 0.0], [3.0, 1.0], [1e9, 2.0]])}
    >>> update, state = tx.update(grads, tx.init(None))
    >>> print(update['w'])
    [3. 1.]

  References:
    Yin et al., `Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates <https://arxiv.org/abs/1803.01498>`_, 2018
  """
  trim = _validate.integer('trim', trim, 0)

  def init_fn(num_tasks, shared, key):
    del num_tasks, shared, key
    return optax.EmptyState()

  def update_fn(rows, state):
    def one(leaf):
      if rows.mask is None:
        out = _of_all(leaf, trim)
      else:
        out = _of_present(leaf, rows.mask, trim)
      return out.astype(leaf.dtype)

    return _base.Outcome([one(leaf) for leaf in rows.leaves], state)

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='trimmed_mean',
      paper='Yin et al., 2018, https://arxiv.org/abs/1803.01498',
    ),
    has_weights=False,
    min_tasks=2 * trim + 1,
  )
