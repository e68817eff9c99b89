"""M-ConFIG: ConFIG on moving averages, one task's gradient a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo, TaskStats
from mtljax.aggregators import _gradient_based as _base
from mtljax.weightings import _conflict_free, _preference


class MConFIGState(NamedTuple):
  """State of `m_config`."""

  averages: Any  # (T, ...) a leaf: the first moments, biased
  products: jax.Array  # (T, T), inner products of the averages
  counts: jax.Array  # (T,) int32, gradients in each average
  turns: jax.Array  # (T,) int32, the step of the last of them, 0 before it
  steps: jax.Array  # (1,) int32
  updates: jax.Array  # (1,) int32, since every task has an average
  last: Any  # (1, ...) a leaf: what Adam's first moment would be
  residual: jax.Array  # of the last solve, float32


def _due(state: MConFIGState, mask: jax.Array | None) -> jax.Array:
  """The task present that has waited longest, the first of equals."""
  turns = state.turns
  if mask is not None:
    turns = jnp.where(mask, turns, jnp.iinfo(turns.dtype).max)
  return jnp.argmin(turns)


def m_config(
  *, b1: ArrayLike = 0.9, preference: _preference.Preference = None
) -> _base.GradientRule:
  r"""M-ConFIG: ConFIG on moving averages, one task's gradient a step.

  Step k takes the gradient of task :math:`t = k \bmod T` alone:

  .. math:: m_t \leftarrow \beta_1 m_t + (1 - \beta_1) g_t, \qquad
     d_k = \mathrm{ConFIG}\Big(\frac{m_s}{1 - \beta_1^{n_s}}, s = 1 \ldots T
     \Big)

  with :math:`n_s` the gradients in an average, and ConFIG that of
  `conflict_free`. The update is the gradient whose first moment in Adam,
  corrected for its start, is :math:`d_k`:

  .. math:: \frac{M_k - \beta_1 M_{k - 1}}{1 - \beta_1}, \qquad
     M_k = (1 - \beta_1^k)\, d_k

  so ``optax.adam(learning_rate, b1=b1)`` after it is the paper's method, with
  its second moment of this pseudo-gradient. Until every task has an average
  the update is 0; the authors' Adam counts its steps from there, optax's
  counts these too. Heads are not weighted and take the step's gradients. The
  weights are those of the corrected averages, have no fixed sum and may be
  negative.

  Scaling a task's loss changes the update (invariance ``'none'``): only the
  direction of :math:`d_k` does not see it. Costs one backward pass, O(T) a
  coordinate and one pseudo-inverse in `mtljax.training.make_train_step` (route
  ``'losses'``), where the gradients of the other tasks are not computed; on the
  optax face they are there and not read. The state holds T + 1 numbers a
  shared parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero average            the smaller problem's answer for the rest
  equal, antiparallel       as of `conflict_free`: zero where averages are
  averages                  opposed
  absent tasks              the one present that has waited longest is due;
                            averages of absent ones stand still and are not in
                            the update. With none present: 0
  NaN or infinity           NaN, if in the gradient of the task due; its average
                            stands still. Others are not read
  ========================  ==================================================

  Args:
    b1: :math:`\beta_1`, at least 0 and below 1; give the Adam after it the
      same.
    preference: of `conflict_free`: the cosines' ratios; None: ones.

  Returns:
    The `mtljax.Aggregator`. Reads the gradient of one task. Its state has the
    residual of `conflict_free`.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.m_config(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(update['w'])
    [0. 0.]
    >>> update, state = tx.update(grads, state, params)
    >>> [round(float(x), 3) for x in update['w']]
    [1.5, 1.5]

  References:
    Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024
  """
  _validate.in_range('b1', b1, 0, 1, open_high=True)
  config = _conflict_free.conflict_free(preference=preference)

  def init_fn(num_tasks, shared, key):
    return MConFIGState(
      averages=_base.zero_rows(shared, num_tasks),
      products=jnp.zeros((num_tasks, num_tasks), float),
      counts=jnp.zeros((num_tasks,), jnp.int32),
      turns=jnp.zeros((num_tasks,), jnp.int32),
      steps=jnp.zeros((1,), jnp.int32),
      updates=jnp.zeros((1,), jnp.int32),
      last=_base.zero_rows(shared, 1),
      residual=config.init(num_tasks, key=key).residual,
    )

  def update_fn(rows, state):
    size = state.products.shape[0]
    mask = jnp.ones((size,), bool) if rows.mask is None else rows.mask
    task, some = _due(state, rows.mask), jnp.any(mask)
    dtype = state.products.dtype
    kept = jnp.asarray(b1, dtype)

    given = [_tree.present(some, g) for g in rows.leaves]
    old = [
      jax.lax.dynamic_index_in_dim(a, task, keepdims=True)
      for a in state.averages
    ]
    new = [
      kept.astype(a.dtype) * a + (1 - kept).astype(a.dtype) * g.astype(a.dtype)
      for a, g in zip(old, given, strict=True)
    ]
    products = _tree.products_of(new, state.averages)[0].astype(dtype)
    itself = _tree.gramian_of(new)[0, 0].astype(dtype)
    products = products.at[task].set(itself)
    # A row's inner products are all finite, unless its numbers are not.
    ok = jnp.isfinite(itself)
    moved = ok & some
    new = [jnp.where(moved, n, o) for n, o in zip(new, old, strict=True)]
    gramian = state.products.at[task].set(products).at[:, task].set(products)
    gramian = jnp.where(moved, gramian, state.products)
    counts = state.counts.at[task].add(moved)
    steps = state.steps + 1
    turns = state.turns.at[task].set(jnp.where(some, steps[0], 0))
    turns = jnp.where(some, turns, state.turns)

    corrected = 1 - kept ** counts.astype(dtype)
    inverse = 1 / jnp.where(counts > 0, corrected, 1)
    weights, solved = config.update(
      TaskStats(
        gramian=gramian * inverse[:, None] * inverse[None, :], mask=mask
      ),
      _conflict_free.ConflictFreeState(state.residual),
    )
    ready = some & jnp.all((counts > 0) | ~mask)
    weights = jnp.where(ready, weights.astype(dtype), 0)
    updates = state.updates + (ready & ok)
    size_of = 1 - kept ** updates[0].astype(dtype)
    factors = weights * inverse * size_of
    # Of the old averages, corrected for the one that has changed: with what
    # is written depending on it, they are read before, and changed in place.
    firsts = [
      _tree.combine_leaf(factors, a)[None]
      + factors[task].astype(a.dtype) * (n - o)
      for a, n, o in zip(state.averages, new, old, strict=True)
    ]
    fine = ok
    for first in firsts:
      fine = fine & jnp.all(jnp.isfinite(first))
    averages = [
      jax.lax.dynamic_update_index_in_dim(a, jnp.where(fine, n, o)[0], task, 0)
      for a, n, o in zip(state.averages, new, old, strict=True)
    ]
    good = ready & fine

    def one(first, before, like):
      part = kept.astype(first.dtype)
      out = (first - part * before) / (1 - part)
      out = jnp.where(ready, out, 0)
      return jnp.where(ok, out, jnp.nan)[0].astype(like.dtype)

    return _base.Outcome(
      [
        one(*leaf) for leaf in zip(firsts, state.last, rows.leaves, strict=True)
      ],
      MConFIGState(
        averages=averages,
        products=jnp.where(fine, gramian, state.products),
        counts=jnp.where(fine, counts, state.counts),
        turns=turns,
        steps=steps,
        updates=jnp.where(fine, updates, state.updates),
        last=_base.keep_unless(good, firsts, state.last),
        residual=jnp.where(good, solved.residual, state.residual),
      ),
      jnp.where(mask, jnp.where(ok, weights, jnp.nan), 0),
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='m_config',
      paper='Liu et al., 2024, https://arxiv.org/abs/2408.11104',
      signed=True,
    ),
    keeps_rows=True,
    due=_due,
  )
