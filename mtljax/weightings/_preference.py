"""What the methods that take a preference share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.weightings import _loss_common

Preference = Sequence[float] | jax.Array | None


def check(preference: Preference, name: str = 'preference') -> None:
  """Raises ValueError unless it is None or a vector that prefers something."""
  _loss_common.check_vector(name, preference, 0)
  if preference is None or isinstance(preference, jax.core.Tracer):
    return
  if not np.any(np.asarray(preference, dtype=float) > 0):
    raise ValueError(
      f'{name}={preference!r} must have an entry above 0: it would give no '
      'update at all.'
    )


def check_simplex(preference: Preference, name: str = 'preference') -> None:
  """Raises ValueError unless it is None or at least 0 with a sum of 1."""
  check(preference, name)
  if preference is None or isinstance(preference, jax.core.Tracer):
    return
  total = float(np.sum(np.asarray(preference, dtype=float)))
  if abs(total - 1) > 1e-4:
    raise ValueError(
      f'{name}={preference!r} must sum to 1, and sums to {total:g}: divide '
      'it by its sum.'
    )


def check_length(preference: Preference, num_tasks: int) -> None:
  """Raises ValueError unless it is None or has one entry a task."""
  _loss_common.check_length('preference', preference, num_tasks)


def as_array(preference: Preference, mask: jax.Array, dtype: Any) -> jax.Array:
  """The preference with 0 for absent tasks, ones for None, shape ``(T,)``."""
  present = mask.astype(dtype)
  if preference is None:
    return present
  return jnp.asarray(preference, dtype) * present


def as_share(preference: Preference, mask: jax.Array, dtype: Any) -> jax.Array:
  """As `as_array`, but None means equal shares of the tasks present."""
  values = as_array(preference, mask, dtype)
  if preference is None:
    values = values / jnp.maximum(jnp.sum(values), 1)
  return values
