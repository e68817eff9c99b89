"""PCGrad: gradient surgery, carried out on coefficients."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common


class PCGradState(NamedTuple):
  """State of `pcgrad`."""

  rng_key: jax.Array  # typed key


def _project(unit: jax.Array, orders: jax.Array) -> jax.Array:
  """Every task's projected unit gradient, as coefficients of unit gradients.

  Args:
    unit: the unit Gramian, shape ``(T, T)``.
    orders: row i is the order in which task i meets the others, ``(T, T)``.

  Returns:
    Row i holds the coefficients of task i, shape ``(T, T)``.
  """
  num_tasks = unit.shape[0]
  tasks = jnp.arange(num_tasks)

  def meet(position, coefficients):
    other = orders[:, position]
    inner = jnp.sum(unit[other] * coefficients, axis=1)
    # The minimum keeps a NaN.
    take = jnp.where(other == tasks, 0, -jnp.minimum(inner, 0))
    # Not a scatter, which on a CPU is a loop.
    chosen = other[:, None] == tasks[None]
    return coefficients + jnp.where(chosen, take[:, None], 0)

  eye = jnp.eye(num_tasks, dtype=unit.dtype)
  return jax.lax.fori_loop(0, num_tasks, meet, eye, unroll=num_tasks <= 2)


@jax.jit
def _weights(
  gramian: jax.Array, mask: jax.Array, orders: jax.Array
) -> jax.Array:
  """The sum of the projected gradients, as weights of the gradients."""
  unit, norms = row_normalize(gramian, mask)
  coefficients = _project(unit, orders)
  used = ~(norms <= 0)
  safe = jnp.where(used, norms, 1)
  # From unit gradients back to gradients. A row that is not used meets nobody.
  ratio = safe[:, None] / safe[None, :]
  terms = jnp.where(coefficients == 0, 0, coefficients * ratio)
  weights = jnp.sum(terms, axis=0)
  return _common.nan_unless_finite(weights, gramian, mask)


def pcgrad(*, reduction: Literal['sum', 'mean'] = 'sum') -> Weighting:
  r"""Projecting conflicting gradients.

  Each task i starts from its gradient, meets the other tasks j in a random
  order of its own, and takes the conflicting part out,

  .. math:: g_i \leftarrow g_i -
     \frac{\min(g_i^\top g_j, 0)}{\|g_j\|^2} g_j,

  with the original :math:`g_j`; the update adds up the results. They are
  combinations of the gradients, so only their coefficients are computed, from
  the Gramian. The weights are not negative and have no fixed sum; each is at
  least 1 (1/T for the mean). Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and T dependent steps of
  O(T^2).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 they neither take nor give: weight 1, without
                            effect
  equal rows                nothing special
  antiparallel rows         each projection is 0 up to rounding
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    reduction: ``'sum'`` (the paper) or ``'mean'`` of the projected gradients,
      over the tasks present.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; its state holds a key.

  Raises:
    ValueError: ``reduction`` is not known.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pcgrad()
    >>> stats = mtl.TaskStats(gramian=jnp.array([[1.0, -0.5], [-0.5, 1.0]]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1.5 1.5]

  References:
    Yu et al., `Gradient Surgery for Multi-Task Learning
    <https://arxiv.org/abs/2001.06782>`_, 2020
  """
  _validate.one_of('reduction', reduction, ('sum', 'mean'))

  def init_fn(num_tasks, key=None):
    del num_tasks
    key = jax.random.key(0) if key is None else jax.random.clone(key)
    return PCGradState(rng_key=key)

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'pcgrad')
    key, orders = _common.random_orders(state.rng_key, gramian.shape[0])
    weights = _weights(gramian, mask, orders)
    if reduction == 'mean':
      weights = weights / jnp.maximum(jnp.sum(mask), 1).astype(weights.dtype)
    return weights, state._replace(rng_key=key)

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='pcgrad',
      paper='Yu et al., 2020, https://arxiv.org/abs/2001.06782',
      random=True,
    ),
  )
