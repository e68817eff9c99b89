"""What the methods that compare two batches share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def project_simplex(values: jax.Array, mask: jax.Array) -> jax.Array:
  """The nearest point of the simplex of the tasks present; 0 for the others."""
  lowest = jnp.finfo(values.dtype).min
  # The projection ignores a constant, and is exact near 0.
  top = jnp.max(jnp.where(mask, values, lowest))
  shifted = jnp.where(mask, jnp.where(mask, values, top) - top, -jnp.inf)
  projected = optax.projections.projection_simplex(shifted)
  return jnp.where(mask, projected, 0)


def start(iterate: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The tasks' shares among those present, and what they hold of the whole.

  Uniform shares where those present hold nothing.
  """
  held = jnp.where(mask, iterate, 0)
  total = jnp.sum(held)
  uniform = mask / jnp.maximum(jnp.sum(mask), 1).astype(held.dtype)
  shares = held / jnp.where(total > 0, total, 1)
  return jnp.where(total > 0, shares, uniform), total


def keep(
  iterate: jax.Array, shares: jax.Array, total: jax.Array, mask: jax.Array
) -> jax.Array:
  """The next iterate: of absent tasks, or after a NaN, the one before."""
  new = jnp.where(mask, shares * total, iterate).astype(iterate.dtype)
  return jnp.where(jnp.all(jnp.isfinite(new)), new, iterate)
