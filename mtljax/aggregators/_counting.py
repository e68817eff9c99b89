"""What counts: statistics of the tasks present, and states that are finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _tree
from mtljax._types import TaskStats


def masked_stats(stats: TaskStats) -> TaskStats:
  """Statistics in which absent tasks read as zero, whatever they held."""
  mask = stats.mask
  if mask is None:
    return stats
  both = mask[:, None] & mask[None, :]

  def clean(value, where):
    return None if value is None else jnp.where(where, value, 0)

  columns = mask
  if stats.hypergradient is not None:
    columns = jnp.broadcast_to(mask, stats.hypergradient.shape)
  rows = mask
  if stats.feature_norms is not None:
    rows = jnp.broadcast_to(mask[:, None], stats.feature_norms.shape)
  return TaskStats(
    losses=clean(stats.losses, mask),
    gramian=clean(stats.gramian, both),
    cross_gramian=clean(stats.cross_gramian, both),
    hypergradient=clean(stats.hypergradient, columns),
    feature_norms=clean(stats.feature_norms, rows),
    mask=mask,
  )


def stay_unless(ok: jax.Array, new: Any, old: Any) -> Any:
  """The new state, or the old one where a step, or the new one, is not finite.

  Counters and keys, scalars that are not floating, move on: one that depends on
  numbers would make a condition on it a batched one under `jax.vmap`.
  """
  ok = ok & _tree.stays_finite(new, old)

  def one(n, o):
    counts = n.ndim == 0 and not jnp.issubdtype(n.dtype, jnp.floating)
    if n is o or counts:
      return n
    return jnp.where(ok, n, o)

  return jax.tree.map(one, new, old)
