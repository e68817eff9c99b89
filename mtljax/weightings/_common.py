"""What the Gramian methods share."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtljax._types import TaskStats


def gramian_and_mask(
  stats: TaskStats,
  name: str,
  field: Literal['gramian', 'cross_gramian'] = 'gramian',
) -> tuple[jax.Array, jax.Array]:
  """The Gramian in float32 or wider, and the mask of the tasks present."""
  gramian = getattr(stats, field)
  if gramian is None:
    raise ValueError(
      f'{name} needs stats.{field}, which is None: pass '
      f'TaskStats({field}=...) of shape (T, T).'
    )
  gramian = jnp.asarray(gramian)
  if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
    raise ValueError(
      f'stats.{field} has shape {gramian.shape}; {name} needs (T, T).'
    )
  gramian = gramian.astype(jnp.promote_types(gramian.dtype, jnp.float32))
  if stats.mask is None:
    return gramian, jnp.ones(gramian.shape[0], bool)
  return gramian, jnp.asarray(stats.mask, bool)


def nan_unless_finite(
  weights: jax.Array, gramian: jax.Array, mask: jax.Array
) -> jax.Array:
  """NaN for the tasks present if one of their inner products is not finite."""
  both = mask[:, None] & mask[None, :]
  finite = jnp.all(jnp.isfinite(jnp.where(both, gramian, 0)))
  return jnp.where(mask, jnp.where(finite, weights, jnp.nan), 0)


def random_orders(
  key: jax.Array, num_tasks: int
) -> tuple[jax.Array, jax.Array]:
  """The next key, and an order of the tasks for each of them, ``(T, T)``.

  Each meets the others in its order; two tasks have no choice, and no draw.
  """
  if num_tasks <= 2:
    return key, jnp.tile(jnp.arange(num_tasks), (num_tasks, 1))
  key, draw = jax.random.split(key)
  orders = jax.vmap(lambda k: jax.random.permutation(k, num_tasks))(
    jax.random.split(draw, num_tasks)
  )
  return key, orders


def zero_residual() -> jax.Array:
  """The residual before the first step."""
  return jnp.zeros((), jnp.float32)
