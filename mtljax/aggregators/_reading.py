"""Reading weights and statistics out of any optimizer state."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mtljax.aggregators import _aggregate, _gradient_based

# Other people's states may have fields of the same names.
_OURS = (_aggregate.AggregateState, _gradient_based.GradientState)


def _children(node: Any) -> list[tuple[str, Any]]:
  """One level down, with the names of a state's fields only."""
  if hasattr(node, '_fields'):
    return [(name, getattr(node, name)) for name in node._fields]
  if isinstance(node, Mapping):
    return [('', v) for v in node.values()]
  if isinstance(node, (tuple, list)):
    return [('', v) for v in node]
  if dataclasses.is_dataclass(node) and not isinstance(node, type):
    return [
      (f.name, getattr(node, f.name))
      for f in dataclasses.fields(node)
      if f.name not in ('params', 'model_state')
    ]
  if hasattr(node, 'opt_state'):  # an `nnx.Optimizer`
    return [('opt_state', node.opt_state)]
  return []


def _array(node: Any) -> jax.Array | np.ndarray | None:
  """The node as an array, out of an ``nnx.Variable`` too, or None."""
  if isinstance(node, (jax.Array, np.ndarray)):
    return node
  get_value = getattr(type(node), 'get_value', None)
  return None if get_value is None else _array(get_value(node))


def _outermost_first(state: Any) -> Iterator[tuple[str, Any]]:
  queue = deque([('', state)])
  while queue:
    name, node = queue.popleft()
    yield name, node
    queue.extend(_children(node))


def _find(state: Any, field: str) -> Any | None:
  for name, node in _outermost_first(state):
    array = _array(node) if name == field else None
    if array is not None:
      return array
  return None


def _find_in_ours(state: Any, find: Callable[[Any], Any]) -> Any | None:
  """What is found in the outermost state of a method that has it."""
  for _, node in _outermost_first(state):
    found = find(node) if isinstance(node, _OURS) else None
    if found is not None:
      return found
  return None


def find_weights(state: Any) -> jax.Array | None:
  """`get_weights`, or None where there are none."""
  return _find_in_ours(state, lambda ours: _array(ours.weights))


def get_weights(state: Any) -> jax.Array:
  """The task weights of the last update.

  Args:
    state: the state of an aggregator, of a chain or wrapper around one, a
      `mtljax.training.TrainState` or a ``flax.nnx.Optimizer``.

  Returns:
    Shape ``(T,)``, as the method defines them: before ``scale`` and
    ``max_norm``. Of several aggregators, the outermost and first one's:
    `mtljax.flat_regions` gives the weights of the loss gradients. Zeros before
    the first update.

  Raises:
    ValueError: no state in it holds weights.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.sum_losses(num_tasks=2)
    >>> grads = {'w': jnp.ones((2, 3))}
    >>> _, state = tx.update(grads, tx.init({'w': jnp.zeros(3)}))
    >>> print(mtl.get_weights(state))
    [1. 1.]
  """
  weights = find_weights(state)
  if weights is None:
    raise ValueError(
      'state holds no task weights: it is not the state of an aggregator, or '
      'the method gives none.'
    )
  return weights


def get_stats(state: Any) -> dict[str, jax.Array]:
  """What the last update left behind for diagnosis, where it was kept.

  Args:
    state: as for `get_weights`.

  Returns:
    A dictionary with those of ``'gramian'`` ``(T, T)`` and ``'residual'``
    ``()`` (how far the solver was from its optimality conditions) that the
    state holds.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.nash_mtl(num_tasks=2)
    >>> grads = {'w': jnp.eye(2)}
    >>> _, state = tx.update(grads, tx.init({'w': jnp.zeros(2)}))
    >>> sorted(mtl.get_stats(state))
    ['gramian', 'residual']
  """
  found = {
    name: _find_in_ours(state, lambda ours, name=name: _find(ours, name))
    for name in ('gramian', 'residual')
  }
  return {name: value for name, value in found.items() if value is not None}
