"""The update that a method makes of a pass, by each route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mtljax import _labels, _tree
from mtljax._types import Aggregator, TaskStats
from mtljax.aggregators import _aggregate
from mtljax.gradients import _task_grads
from mtljax.gradients._pullback import Mode, Pullback


def _weighted_update(
  method: Aggregator, pullback: Pullback, weights: jax.Array
) -> Any:
  """The update by weighted backward passes, with no Jacobian kept."""
  conventions = method.conventions
  shared = pullback.combined(weights * conventions.scale)
  own = pullback.own(_aggregate.head_weights(conventions, weights, None))
  return pullback.split.merge(_aggregate.clip(conventions, shared), own)


def _gramian_rows(
  method: Aggregator, pullback: Pullback, mode: Mode
) -> list[jax.Array]:
  return _task_grads.gramian_rows(
    pullback, pullback.rows(mode), method.gramian_labels
  )


def _gramian(
  method: Aggregator, pullback: Pullback, route: str, mode: Mode
) -> jax.Array | None:
  if 'gramian' not in method.needs:
    return None
  if route == 'features':
    return _tree.gramian_of(pullback.features())
  return _tree.gramian_of(_gramian_rows(method, pullback, mode))


def cross_gramian(
  method: Aggregator, first: Pullback, second: Pullback, *, mode: Mode
) -> jax.Array:
  """Inner products between the gradients of two passes, shape ``(T, T)``."""
  return _tree.products_of(
    _gramian_rows(method, first, mode), _gramian_rows(method, second, mode)
  )


def direction(
  method: Aggregator,
  pullback: Pullback,
  state: Any,
  *,
  params: Any,
  route: str,
  mode: Mode,
  recompute: jax.Array | None,
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
    mode: how T backward passes run.
    recompute: whether the weights are due, shape ``()``; None: always.
    cross: gives the cross-Gramian, called only where the weights are computed;
      None if the method does not read it.
    extra: further arguments of the method's ``update``.
  """
  if method.update_from_sum is not None:
    return method.update_from_sum(
      pullback.summed(), state, params, losses=pullback.losses, **extra
    )
  if route == 'jacobian' and recompute is None and method.weighting is None:
    if cross is not None:
      extra = {**extra, 'cross_gramian': cross()}
    return method.update(
      pullback.task_grads(mode), state, params, losses=pullback.losses, **extra
    )
  if route == 'jacobian' and recompute is None:
    # Not `update`: its `observe` waits for the next call, the step's does not.
    labels, tree = list(pullback.split.labels), pullback.task_grads(mode)
    leaves, state = _aggregate.apply(
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
    return jax.tree.unflatten(pullback.split.treedef, leaves), state

  def decide(state):
    stats = TaskStats(
      losses=pullback.losses,
      gramian=_gramian(method, pullback, route, mode),
      cross_gramian=None if cross is None else cross(),
    )
    return _aggregate.decide(method.weighting, stats, state)

  if recompute is None:
    state = decide(state)
  else:
    state = jax.lax.cond(recompute, decide, lambda s: s, state)
  return _weighted_update(method, pullback, state.weights), state
