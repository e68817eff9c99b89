"""GradDrop: one sign kept in every coordinate, drawn by its share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class GradDropState(NamedTuple):
  """State of `graddrop`."""

  rng_key: jax.Array  # typed key


def _drop(leaf: jax.Array, uniform: jax.Array, leak: jax.Array) -> jax.Array:
  """The update of one leaf ``(T, ...)`` for the numbers drawn."""
  rows = leaf.astype(_tree.accumulator(leaf.dtype))
  up = down = size = total = 0
  # Row by row: XLA's sums over the task axis are far slower on CPU.
  for row, kept in zip(rows, leak.astype(rows.dtype), strict=True):
    above, below = jnp.maximum(row, 0), jnp.minimum(row, 0)
    up, down = up + (above + kept * below), down + (below + kept * above)
    size, total = size + jnp.abs(row), total + row
  purity = 0.5 * (1 + total / jnp.where(size == 0, 1, size))
  out = jnp.where(purity > uniform, up, down)
  # Comparisons with a NaN are false and would drop it.
  return jnp.where(jnp.isfinite(size), out, jnp.nan).astype(leaf.dtype)


def _checked_leak(leak: Any) -> None:
  _validate.in_range('leak', leak, vector=True)
  if not isinstance(leak, jax.core.Tracer):
    for value in np.ravel(np.asarray(leak, float)).tolist():
      _validate.in_range('leak', value, 0, 1)


def graddrop(*, leak: ArrayLike = 0.0) -> _base.GradientRule:
  r"""Gradient sign dropout (GradDrop).

  In every coordinate the tasks' gradients agree on a sign with the purity

  .. math:: P = \frac12 \left(1 + \frac{\sum_t g_t}{\sum_t |g_t|}\right)

  One number U is drawn uniformly from [0, 1) a coordinate; where U < P the
  positive entries are kept, elsewhere the negative ones, and the update is

  .. math:: d = \sum_t \big(\ell_t + (1 - \ell_t) M_t\big) g_t

  with :math:`M_t` whether the entry was kept and :math:`\ell_t` the leak. In
  expectation an entry is multiplied by P if it is positive and by 1 - P if it
  is negative. The paper drops the gradients at the shared representation,
  summed over the batch and signed by the activation; this is the form on
  parameters, as in the codes of CAGrad and FAMO, which need no access to
  activations (they take the mean where this takes the sum: ``scale=1/T``).

  It gives no task weights: `mtljax.get_weights` raises, and heads are not
  weighted. Scaling a task's loss changes the update (invariance ``'none'``).
  Costs the T gradients and one number drawn a coordinate.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  zero rows                 no effect
  a zero coordinate         0
  equal rows                their sum: P is 0 or 1
  antiparallel rows         of one length: either row, by a coin a coordinate
  absent tasks              the smaller problem, with the same numbers drawn
  NaN or infinity           NaN in its coordinates, the others are not touched
  ========================  ==================================================

  Args:
    leak: :math:`\ell`, between 0 and 1, one number or one a task: how much of
      a dropped entry passes. 1 is the sum of the gradients.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients; its state holds a key.

  Raises:
    ValueError: ``leak`` is not between 0 and 1, or has another length than T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.graddrop(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 2.0], [0.5, -2.0]])}
    >>> update, state = tx.update(grads, tx.init(None))
    >>> float(update['w'][0]), abs(float(update['w'][1]))
    (1.5, 2.0)

  References:
    Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with
    Gradient Sign Dropout <https://arxiv.org/abs/2010.06808>`_, 2020
  """
  _checked_leak(leak)

  def init_fn(num_tasks, shared, key):
    del shared
    if np.ndim(leak) and np.shape(leak) != (num_tasks,):
      raise ValueError(
        f'leak has shape {np.shape(leak)}; give one number, or one a task: '
        f'(num_tasks,) = ({num_tasks},).'
      )
    return GradDropState(rng_key=key)

  def update_fn(rows, state):
    num_tasks = rows.leaves[0].shape[0]
    key, draw = jax.random.split(state.rng_key)
    leaks = jnp.broadcast_to(jnp.asarray(leak, float), (num_tasks,))

    def drop(i, leaf):
      uniform = jax.random.uniform(
        jax.random.fold_in(draw, i),
        leaf.shape[1:],
        _tree.accumulator(leaf.dtype),
      )
      return _drop(leaf, uniform, leaks)

    update = [drop(i, leaf) for i, leaf in enumerate(rows.leaves)]
    return _base.Outcome(update, GradDropState(key))

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='graddrop',
      paper='Chen et al., 2020, https://arxiv.org/abs/2010.06808',
      random=True,
    ),
    has_weights=False,
  )
