"""The update that a method makes of a pass, by each route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mtljax import _labels, _tree
from mtljax._types import Aggregator, TaskStats
from mtljax.aggregators import _aggregate
from mtljax.gradients import _gramian
from mtljax.gradients._passes import Passes
from mtljax.gradients._pullback import Pullback


def _weighted_update(
  method: Aggregator,
  pullback: Pullback,
  combined: Callable[[jax.Array], list[jax.Array]],
  weights: jax.Array,
) -> Any:
  """The update by weighted backward passes, with no Jacobian kept."""
  conventions = method.conventions
  shared = combined(weights * conventions.scale)
  own = pullback.own(_aggregate.head_weights(conventions, weights, None))
  return pullback.split.merge(_aggregate.clip(conventions, shared), own)


def _gramian_and_combine(method, pullback, route, passes, chunk_size):
  """The Gramian, if the method reads it, and how to weigh the shared leaves."""
  if 'gramian' not in method.needs:
    return None, pullback.combined
  if route == 'features':
    return _tree.gramian_of(pullback.features()), pullback.combined
  marked = _gramian.marked_leaves(pullback, method.gramian_labels)
  return _gramian.gramian_and_combine(pullback, passes, marked, chunk_size)


def cross_gramian(
  method: Aggregator, first: Pullback, second: Pullback, *, passes: Passes
) -> jax.Array:
  """Inner products between the gradients of two passes, shape ``(T, T)``."""
  marked = _gramian.marked_leaves(first, method.gramian_labels)
  return _gramian.products(first, second, passes, marked)


def direction(
  method: Aggregator,
  pullback: Pullback,
  state: Any,
  *,
  params: Any,
  route: str,
  passes: Passes,
  chunk_size: int | None,
  held: bool,
  holds: bool,
  cross: Callable[[], jax.Array] | None,
  extra: dict[str, Any],
) -> tuple[Any, Any]:
  """The update that the method makes of this pass, and its next state.

  Args:
    method: the aggregator.
    pullback: the pass to step on.
    state: the method's state.
    params: the parameters.
    route: one of the routes, not ``'auto'``.
    passes: how T backward passes run.
    chunk_size: the tasks in a block of the Gramian; None: all.
    held: whether the weights are those of the step before.
    holds: whether those of this step are held after it.
    cross: gives the cross-Gramian, called only where the weights are computed;
      None if the method does not read it.
    extra: further arguments of the method's ``update``.
  """
  if method.update_from_sum is not None:
    return method.update_from_sum(
      pullback.summed(), state, params, losses=pullback.losses, **extra
    )
  if held:
    weights = state.weights
    return _weighted_update(method, pullback, pullback.combined, weights), state
  if route == 'jacobian' and method.weighting is None:
    if cross is not None:
      extra = {**extra, 'cross_gramian': cross()}
    return method.update(
      pullback.task_grads(passes),
      state,
      params,
      losses=pullback.losses,
      **extra,
    )
  if route == 'jacobian':
    # Not `update`: its `observe` waits for the next call, the step's does not.
    labels, tree = list(pullback.split.labels), pullback.task_grads(passes)
    leaves, new = _aggregate.apply(
      method.weighting,
      method.conventions,
      labels,
      _labels.flatten_gramian_labels(method.gramian_labels, labels, tree),
      jax.tree.leaves(tree),
      pullback.losses,
      None if cross is None else cross(),
      None,
      state,
    )
    update = jax.tree.unflatten(pullback.split.treedef, leaves)
    return update, _aggregate.hold(new, state) if holds else new

  gramian, combined = _gramian_and_combine(
    method, pullback, route, passes, chunk_size
  )
  stats = TaskStats(
    losses=pullback.losses,
    gramian=gramian,
    cross_gramian=None if cross is None else cross(),
  )
  new = _aggregate.decide(method.weighting, stats, state)
  update = _weighted_update(method, pullback, combined, new.weights)
  return update, _aggregate.hold(new, state) if holds else new
