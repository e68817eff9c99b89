"""What the methods that learn weights on validation data share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import HYPERGRADIENTS, TaskStats


def checked(
  primary: Any, inner_learning_rate: Any, hypergradient: Any
) -> dict[str, Any]:
  """The arguments that a `mtljax._types.Lookahead` takes, if valid."""
  _validate.in_range('inner_learning_rate', inner_learning_rate, 0)
  _validate.one_of('hypergradient', hypergradient, HYPERGRADIENTS)
  return {
    'primary': _validate.tasks('primary', primary),
    'inner_learning_rate': inner_learning_rate,
    'hypergradient': hypergradient,
  }


def hypergradient_and_mask(
  stats: TaskStats, name: str
) -> tuple[jax.Array, jax.Array]:
  """The derivatives by the weights, 0 for absent tasks, and the mask."""
  if stats.hypergradient is None:
    raise ValueError(
      f'{name} needs stats.hypergradient, which is None: pass TaskStats('
      'hypergradient=mtl.hypergradient(...)(...)).'
    )
  rows = jnp.asarray(stats.hypergradient).astype(float)
  if stats.mask is None:
    return rows, jnp.ones(rows.shape[-1:], bool)
  mask = jnp.asarray(stats.mask, bool)
  return jnp.where(jnp.broadcast_to(mask, rows.shape), rows, 0), mask


def through_softmax(row: jax.Array, weights: jax.Array) -> jax.Array:
  """Derivatives by what the softmax is taken of, from those by the weights."""
  return weights * (row - jnp.sum(row * weights))
