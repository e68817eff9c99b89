"""SON-GOKU, reconstructed from its description."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class SonGokuState(NamedTuple):
  """State of `son_goku`."""

  averages: Any  # (T, ...) a leaf: moving averages of the gradients, biased
  conflicts: jax.Array  # (T, T) bool, symmetric, as of the last look
  steps: jax.Array  # () int32


def color_tasks(conflicts: jax.Array, mask: jax.Array) -> jax.Array:
  """Greedy colours, those of most conflicts first (Welsh and Powell).

  Args:
    conflicts: ``(T, T)`` bool, symmetric.
    mask: ``(T,)`` bool, the tasks to colour.

  Returns:
    ``(T,)`` int32 from 0, -1 for the others: each has the first colour that no
    task in conflict with it has. Of equal numbers of conflicts the first task
    goes first.
  """
  size = conflicts.shape[0]
  edges = conflicts & mask[:, None] & mask[None, :] & ~jnp.eye(size, dtype=bool)
  order = jnp.argsort(-jnp.sum(edges, axis=1), stable=True)

  def color(i, colors):
    task = order[i]
    near = jnp.where(edges[task], colors, -1)
    taken = jnp.any(near[None, :] == jnp.arange(size)[:, None], axis=1)
    first = jnp.argmin(taken).astype(colors.dtype)
    return colors.at[task].set(jnp.where(mask[task], first, -1))

  return jax.lax.fori_loop(0, size, color, jnp.full((size,), -1, jnp.int32))


def son_goku(
  *,
  decay: ArrayLike = 0.9,
  threshold: ArrayLike = 0.2,
  refresh_steps: int = 32,
  anneal_steps: int = 200,
) -> _base.GradientRule:
  r"""SON-GOKU, reconstructed: tasks in conflict are trained at other steps.

  The moving averages of the tasks' gradients say who is in conflict. Every R
  steps, at step k = 0, R, 2R ..., they make a graph:

  .. math:: a_t \leftarrow \beta a_t + (1 - \beta) g_t, \qquad
     \{s, t\} \in E \iff -\cos(a_s, a_t) > \tau_k, \qquad
     d = \sum_{t : c_t = k \bmod m} g_t

  where c is a colouring of it with m colours, no two tasks in conflict of one
  colour: greedy, those with most conflicts first. :math:`\tau_k` falls from 1,
  without conflicts and so with all tasks in a step, linearly to ``threshold``.
  The paper describes these parts; how :math:`\tau` falls and the numbers are
  those of this library. A task has the weight 1 where it is active, 0 where it
  is not, so the weights have no fixed sum. Heads are weighted: a task that is
  not active is not trained.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate, O(T^2) at the steps
  that look, and the colouring, O(T^2). The state holds T numbers a shared
  parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero average            in conflict with none
  equal averages            never in conflict
  antiparallel averages     in conflict as soon as :math:`\tau` is below 1
  absent tasks              they are not coloured, the smaller problem's answer
                            for the rest; their averages stand still
  NaN or infinity           NaN, be the task active or not; averages and
                            conflicts stand still
  ========================  ==================================================

  Args:
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    threshold: the last :math:`\tau`, from 0 to 1.
    refresh_steps: R, at least 1.
    anneal_steps: the steps in which :math:`\tau` falls, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients. Its counter is a scalar: keep
    it out of the batch of a `jax.vmap`, or every step looks.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.son_goku(num_tasks=3, anneal_steps=0)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [-1.0, 0.1], [1.0, 1.0]])}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...   update, state = tx.update(grads, state, params)
    ...   print(mtl.get_weights(state), update['w'])
    [0. 1. 0.] [-1.   0.1]
    [1. 0. 1.] [2. 1.]

  References:
    Patapati and Srinivasan, `Graph Coloring for Multi-Task Learning
    <https://arxiv.org/abs/2509.16959>`_, 2025 (reconstructed)
  """
  _validate.in_range('decay', decay, 0, 1, open_high=True)
  _validate.in_range('threshold', threshold, 0, 1)
  refresh_steps = _validate.integer('refresh_steps', refresh_steps, 1)
  anneal_steps = _validate.integer('anneal_steps', anneal_steps, 0)

  def init_fn(num_tasks, shared, key):
    del key
    return SonGokuState(
      averages=_base.zero_rows(shared, num_tasks),
      conflicts=jnp.zeros((num_tasks, num_tasks), bool),
      steps=jnp.zeros((), jnp.int32),
    )

  def update_fn(rows, state):
    mask = rows.present

    def averaged(old, new):
      kept = jnp.asarray(decay, old.dtype)
      return old + _tree.scale_leaf(
        jnp.where(mask, 1 - kept, 0), new.astype(old.dtype) - old
      )

    averages = [
      averaged(a, g) for a, g in zip(state.averages, rows.leaves, strict=True)
    ]
    # Their largest is finite if all are.
    sizes = [
      jnp.max(
        jnp.abs(_tree.present(rows.mask, g).reshape(len(mask), -1)),
        axis=1,
        initial=0,
      )
      for g in rows.leaves
    ]
    ok = jnp.all(jnp.isfinite(jnp.stack(sizes)))
    averages = _base.keep_unless(ok, averages, state.averages)

    def look(conflicts):
      done = jnp.minimum(state.steps / max(anneal_steps, 1), 1)
      done = done if anneal_steps else jnp.ones_like(done)
      cosines = _tree.cosines(_tree.gramian_of(averages))
      level = 1 - done * (1 - jnp.asarray(threshold, done.dtype))
      found = -cosines > level.astype(cosines.dtype)
      return jnp.where(ok, found & ~jnp.eye(len(mask), dtype=bool), conflicts)

    conflicts = jax.lax.cond(
      state.steps % refresh_steps == 0, look, lambda c: c, state.conflicts
    )
    colors = color_tasks(conflicts, mask)
    number = jnp.maximum(jnp.max(colors) + 1, 1)
    active = mask & (colors == state.steps % number)
    weights = jnp.where(ok, active.astype(float), jnp.nan)
    weights = jnp.where(mask, weights, 0)
    some = [_tree.present(active, x) for x in rows.leaves]
    return _base.Outcome(
      _base.weighted_sum(weights, some, rows.leaves),
      SonGokuState(averages, conflicts, state.steps + 1),
      weights,
      own=weights,
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='son_goku',
      paper='Patapati and Srinivasan, 2025, https://arxiv.org/abs/2509.16959',
      weight_heads=True,
    ),
    keeps_rows=True,
  )
