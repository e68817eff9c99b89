"""Ordinary transformations on every task's gradient, before they are one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _tree, _validate
from mtljax.aggregators import _checks


def select_rows(mask: jax.Array, new: Any, old: Any) -> Any:
  """The new state where the mask is true; rows of it for a ``(T,)`` mask."""

  def one(n, o):
    where = mask.reshape(mask.shape + (1,) * (n.ndim - mask.ndim))
    if jnp.issubdtype(n.dtype, jax.dtypes.prng_key):
      n, o = jax.random.key_data(n), jax.random.key_data(o)
      kept = jnp.where(where.reshape(where.shape + (1,)), n, o)
      return jax.random.wrap_key_data(kept)
    return jnp.where(where, n, o)

  return jax.tree.map(one, new, old)


def all_finite(leaves: list[jax.Array]) -> jax.Array:
  """Whether all numbers are finite, shape ``()``."""
  return jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves], bool).all()


def per_task(
  tx: optax.GradientTransformation,
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Applies a transformation to each task's shared gradient by itself.

  To the left of an aggregator plain optax sees the task axis as part of the
  parameters: `optax.clip_by_global_norm` would clip the norm over all tasks
  together. This lifts it, with a state a task (T times its memory), which
  stands still where that task's gradient, or the new state, is not finite.
  Leaves that tasks own pass through.

  Args:
    tx: the transformation.
    num_tasks: T, a Python int.
    labels: see `mtljax.label_params`; None: all leaves are shared.

  Returns:
    An `optax.GradientTransformationExtraArgs` on per-task gradients; put it
    before the aggregator in `optax.chain`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> tx = mtl.per_task(optax.clip_by_global_norm(1.0), num_tasks=2)
    >>> grads = jnp.array([[3.0, 4.0], [0.3, 0.4]])
    >>> clipped, _ = tx.update(grads, tx.init(jnp.zeros(2)))
    >>> print(clipped.round(3))
    [[0.6 0.8]
     [0.3 0.4]]
  """
  num_tasks = _validate.num_tasks(num_tasks)
  tx = optax.with_extra_args_support(tx)

  def shared_of(tree: Any) -> list[Any]:
    flat = _labels.flatten_labels(labels, tree, num_tasks)
    return [
      x
      for x, label in zip(jax.tree.leaves(tree), flat, strict=True)
      if label == _labels.SHARED
    ]

  def for_each_task(x: Any) -> Any:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      tasks = jnp.arange(num_tasks)
      return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(x, tasks)
    return jnp.broadcast_to(x, (num_tasks, *x.shape))

  def init_fn(params):
    # Without leaves it is what `optax.tree.map_params` stands for parameters.
    shared = shared_of(params) if jax.tree.leaves(params) else params
    return jax.tree.map(for_each_task, tx.init(shared))

  def update_fn(updates, state, params=None, **extra_args):
    leaves, treedef = jax.tree.flatten(updates)
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    _checks.check_gradients(updates, flat, num_tasks, params)
    shared_params = None if params is None else shared_of(params)

    def update_one(gradient, state):
      return tx.update(gradient, state, shared_params, **extra_args)

    rows = shared_of(updates)
    shared, new = jax.vmap(update_one)(rows, state)
    good = jax.vmap(all_finite)(rows)
    if jax.tree.leaves(new):
      good &= jax.vmap(_tree.stays_finite)(new, state)
    state = select_rows(good, new, state)
    shared = iter(shared)
    leaves = [
      next(shared) if label == _labels.SHARED else leaf
      for leaf, label in zip(leaves, flat, strict=True)
    ]
    return jax.tree.unflatten(treedef, leaves), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
