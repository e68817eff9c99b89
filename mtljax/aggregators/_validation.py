"""Losses of a validation batch, for the methods that ask for them."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.weightings import _coba

State = TypeVar('State')


def _is_ours(node: Any) -> bool:
  return isinstance(node, _coba.ValidationState)


def observe_validation(losses: ArrayLike, state: State) -> State:
  """Shows the losses of a validation batch to a method that follows them.

  That is `coba` with ``source='validation'``, wherever in the state it is.
  Call it between two steps, inside `jax.jit` if it is to be fast: before every
  step, as the paper does, or at times.

  Args:
    losses: of a validation batch, shape ``(T,)``; NaN for a task that it does
      not have.
    state: that of the method, of a chain around it, or a
      `mtljax.training.TrainState`.

  Returns:
    The state, of the same structure.

  Raises:
    ValueError: nothing in the state follows validation losses, or the losses
      have another shape.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.coba(num_tasks=2, source='validation', warmup_steps=2)
    >>> state = tx.init({'w': jnp.zeros(3)})
    >>> for losses in ([1.0, 1.0], [0.9, 0.5]):
    ...   state = mtl.observe_validation(losses, state)
    >>> _, state = tx.update({'w': jnp.ones((2, 3))}, state)
    >>> print(mtl.get_weights(state).round(3))
    [0.791 0.209]
  """
  losses = jnp.asarray(losses)
  found = []

  def one(node):
    if not _is_ours(node):
      return node
    found.append(node)
    shape = node.history.first.shape
    if losses.shape != shape:
      raise ValueError(
        f'losses has shape {losses.shape}; the method was built for {shape}.'
      )
    mask = ~jnp.isnan(losses)
    return node._replace(history=_coba.observed(losses, mask, node.history))

  state = jax.tree.map(one, state, is_leaf=_is_ours)
  if not found:
    raise ValueError(
      'state holds no method that follows validation losses; build one with '
      "source='validation', such as mtl.coba."
    )
  return state
