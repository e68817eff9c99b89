"""GCond, reconstructed from its description."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class GCondState(NamedTuple):
  """State of `gcond`."""

  last: Any  # (T, ...) a leaf: the gradients of the step before
  norms: jax.Array  # (T,), moving averages of the lengths, biased
  averaged: jax.Array  # (T,), the sum of the averages' weights


class _Arbitration(NamedTuple):
  """The gradients so far, as rows of coefficients of those given."""

  rows: jax.Array  # (T, T)
  products: jax.Array  # (T, T), of the gradients so far
  settled: jax.Array  # (T, T) bool, the pairs that need no more


def _angle(cosine: jax.Array, levels: tuple, power: ArrayLike) -> jax.Array:
  """From 0 at the weak level by pi/2 at the main one to pi at the critical."""
  weak, main, critical = levels
  half = jnp.pi / 2
  below_weak = jnp.clip((weak - cosine) / (weak - main), 0, 1)
  below_main = jnp.clip((main - cosine) / (main - critical), 0, 1)
  return half * (below_weak**power + below_main**power)


def _cosines(state: _Arbitration) -> jax.Array:
  """Of the pairs still open, 1 for the others."""
  open_pairs = jnp.where(state.settled, 1, _tree.cosines(state.products))
  return jnp.where(jnp.isnan(open_pairs), 1, open_pairs)


def arbitrate(
  gramian: jax.Array,
  scores: jax.Array,
  mask: jax.Array,
  levels: tuple,
  power: ArrayLike = 2.0,
) -> jax.Array:
  """The weights of the gradients, once no pair is in conflict that was not met.

  Args:
    gramian: ``(T, T)``.
    scores: ``(T,)``; of a pair the larger wins, of equal ones the first.
    mask: ``(T,)``, the tasks present.
    levels: the weak, the main and the critical cosine.
    power: of the ramps between them.

  Returns:
    ``(T,)``, 0 for absent tasks.
  """
  size, dtype = gramian.shape[0], gramian.dtype

  def goes_on(state):
    return jnp.min(_cosines(state)) < levels[0]

  def step(state):
    cosines = _cosines(state)
    a, b = jnp.unravel_index(jnp.argmin(cosines), cosines.shape)
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    wins = scores[a] >= scores[b]
    winner, loser = jnp.where(wins, a, b), jnp.where(wins, b, a)
    angle = _angle(cosines[a, b], levels, power).astype(dtype)
    flat = angle >= jnp.pi / 2
    products = state.products
    product = products[loser, winner]
    from_loser = jnp.where(flat, 1, jnp.sin(angle))
    # The sine of pi is not 0 in floating point.
    from_winner = jnp.where(angle >= jnp.pi, 0, jnp.sin(angle))
    from_loser = from_loser * product / products[winner, winner]
    from_winner = from_winner * product / products[loser, loser]

    def project(rows):
      lost = rows[loser] - from_loser * rows[winner]
      won = rows[winner] - from_winner * rows[loser]
      return rows.at[loser].set(lost).at[winner].set(won)

    return _Arbitration(
      rows=project(state.rows),
      products=project(project(products).T),
      settled=state.settled.at[a, b].set(True).at[b, a].set(True),
    )

  nothing = jnp.diagonal(gramian) <= 0
  out = ~mask | nothing
  start = _Arbitration(
    rows=jnp.eye(size, dtype=dtype),
    products=jnp.where(jnp.isfinite(gramian), gramian, 0),
    settled=out[:, None] | out[None, :] | jnp.eye(size, dtype=bool),
  )
  end = jax.lax.while_loop(goes_on, step, start)
  return jnp.where(mask, jnp.sum(jnp.where(mask[:, None], end.rows, 0), 0), 0)


def gcond(
  *,
  weak_cosine: ArrayLike = 0.0,
  main_cosine: ArrayLike = -0.5,
  critical_cosine: ArrayLike = -0.8,
  power: ArrayLike = 2.0,
  stability_weight: ArrayLike = 0.8,
  decay: ArrayLike = 0.9,
) -> _base.GradientRule:
  r"""GCond, reconstructed: conflicts settled pair by pair, the worst first.

  As long as a pair of gradients has a cosine c below ``weak_cosine``, that with
  the lowest is settled. Of the two, the one with the higher score wins:

  .. math:: \text{score}_t = \lambda \cos(g_t, g_t^{\text{before}})
     + (1 - \lambda) \frac{\|g_t\|}{\langle \|g_t\| \rangle_\beta}

  and both are projected, more the worse the conflict is,

  .. math:: g_l \leftarrow g_l - \sin\big(\min(\alpha, \tfrac\pi 2)\big)
     \frac{g_l^\top g_w}{\|g_w\|^2} g_w, \qquad
     g_w \leftarrow g_w - \sin(\alpha)
     \frac{g_l^\top g_w}{\|g_l\|^2} g_l

  with :math:`\alpha` from 0 at ``weak_cosine`` by :math:`\pi / 2` (both are
  projected wholly) at ``main_cosine`` to :math:`\pi` at ``critical_cosine`` and
  below (only the loser is), by a power of the share of the way. A pair is met
  once. The update is the sum. The angles, levels, powers and the parts of the
  score are the paper's as they have been described; that the sines are shares
  of a projection, and the forms of score and ramp, are reconstructed.

  The paper takes the gradients of several micro-batches together: give
  `mtljax.training.make_train_step` a ``microbatch_size``. The weights have no
  fixed sum and may be negative, so heads are never weighted. Scaling a task's
  loss changes the update's direction (invariance ``'none'``). Costs the T
  gradients, their Gramian and at most T (T - 1) / 2 rounds of O(T^2). The state
  holds T numbers a shared parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero row                in conflict with none
  equal rows                their sum
  antiparallel rows         the winner's
  equal cosines             the first pair is settled first, and of equal ones
                            rounding tells which is lower
  absent tasks              the smaller problem's answer for the rest; what is
                            kept of them stands still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    weak_cosine: below it a pair is in conflict; from -1 to 1.
    main_cosine: below ``weak_cosine``.
    critical_cosine: below ``main_cosine``, at least -1.
    power: of the ramps, above 0.
    stability_weight: :math:`\lambda`, from 0 to 1.
    decay: :math:`\beta` of the mean lengths, at least 0 and below 1.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.gcond(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [-1.0, 0.5]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(update['w'])
    [1.  0.5]

  References:
    Limarenko and Studenikina, `GCond: Gradient Conflict Resolution via
    Accumulation-based Stabilization for Large-Scale Multi-Task Learning
    <https://arxiv.org/abs/2509.07252>`_, 2025 (reconstructed)
  """
  named = {
    'weak_cosine': weak_cosine,
    'main_cosine': main_cosine,
    'critical_cosine': critical_cosine,
  }
  for name, value in named.items():
    _validate.in_range(name, value, -1, 1)
  given = list(named.items())
  for (above, high), (below, low) in zip(given, given[1:], strict=False):
    known = not any(isinstance(x, jax.core.Tracer) for x in (high, low))
    if known and not low < high:
      raise ValueError(f'{below}={low!r} must be below {above}={high!r}.')
  _validate.in_range('power', power, 0, open_low=True)
  _validate.in_range('stability_weight', stability_weight, 0, 1)
  _validate.in_range('decay', decay, 0, 1, open_high=True)

  def init_fn(num_tasks, shared, key):
    del key
    return GCondState(
      last=_base.zero_rows(shared, num_tasks),
      norms=jnp.zeros((num_tasks,), float),
      averaged=jnp.zeros((num_tasks,), float),
    )

  def update_fn(rows, state):
    mask = rows.present
    gramian = _tree.gramian_of(rows.leaves)
    dtype = gramian.dtype
    ok = jnp.all(jnp.isfinite(gramian))
    norms = jnp.sqrt(jnp.diagonal(gramian))

    pairs = list(zip(rows.leaves, state.last, strict=True))
    products = sum(
      jnp.sum((g.astype(old.dtype) * old).reshape(len(mask), -1), axis=1)
      for g, old in pairs
    )
    lengths = jnp.sqrt(
      sum(jnp.sum((old * old).reshape(len(mask), -1), 1) for _, old in pairs)
    )
    both = norms * lengths
    stability = jnp.where(both > 0, products / jnp.where(both > 0, both, 1), 0)
    kept = jnp.asarray(decay, dtype)
    means = kept * state.norms.astype(dtype) + (1 - kept) * norms
    averaged = kept * state.averaged.astype(dtype) + (1 - kept)
    strength = norms * averaged / jnp.where(means > 0, means, 1)
    part = jnp.asarray(stability_weight, dtype)
    scores = part * stability.astype(dtype) + (1 - part) * strength

    levels = tuple(jnp.asarray(x, dtype) for x in named.values())
    weights = arbitrate(
      gramian, scores, mask, levels, jnp.asarray(power, dtype)
    )
    weights = jnp.where(mask, jnp.where(ok, weights, jnp.nan), 0)
    moved = mask & ok
    out = state.norms.dtype
    new = GCondState(
      last=[
        jnp.where(
          moved.reshape((-1,) + (1,) * (old.ndim - 1)), g.astype(old.dtype), old
        )
        for g, old in pairs
      ],
      norms=jnp.where(moved, means.astype(out), state.norms),
      averaged=jnp.where(moved, averaged.astype(out), state.averaged),
    )
    return _base.Outcome(
      _base.weighted_sum(weights, rows.leaves, rows.leaves), new, weights
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='gcond',
      paper='Limarenko and Studenikina, 2025, https://arxiv.org/abs/2509.07252',
      signed=True,
    ),
    keeps_rows=True,
  )
