"""What the methods on losses share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax._types import TaskStats

State = TypeVar('State')

_ADAM = optax.scale_by_adam()


def losses_and_mask(stats: TaskStats, name: str) -> tuple[jax.Array, jax.Array]:
  """The losses and the mask of the tasks present.

  The losses are 1 where the task is absent, and NaN where they are not finite.
  """
  if stats.losses is None:
    raise ValueError(
      f'{name} needs stats.losses, which is None: pass '
      'TaskStats(losses=...) of shape (T,).'
    )
  losses = jnp.asarray(stats.losses).astype(float)
  losses = jnp.where(jnp.isfinite(losses), losses, jnp.nan)
  if losses.ndim != 1:
    raise ValueError(
      f'stats.losses has shape {losses.shape}; {name} needs (T,).'
    )
  if stats.mask is None:
    return losses, jnp.ones(losses.shape, bool)
  mask = jnp.asarray(stats.mask, bool)
  return jnp.where(mask, losses, 1), mask


def nan_unless(
  valid: jax.Array, weights: jax.Array, mask: jax.Array
) -> jax.Array:
  """0 for absent tasks; NaN for the others if one of them is not valid."""
  valid = jnp.all(valid | ~mask)
  return jnp.where(mask, jnp.where(valid, weights, jnp.nan), 0)


def count(mask: jax.Array) -> jax.Array:
  """How many tasks there are, at least 1, as a float."""
  return jnp.maximum(jnp.sum(mask), 1).astype(float)


def softmax(
  values: jax.Array, mask: jax.Array, temperature: ArrayLike = 1.0
) -> jax.Array:
  """Softmax of values over temperature among the tasks in the mask; else 0.

  Differences are taken first: they are exact where the quotients are large.
  """
  temperature = jnp.asarray(temperature, values.dtype)
  some = jnp.any(mask)
  top = jnp.where(some, jnp.max(jnp.where(mask, values, -jnp.inf)), 0)
  below = jnp.where(mask, values - top, 0) / temperature
  powers = jnp.where(mask, jnp.exp(below), 0)
  return powers / jnp.where(some, jnp.sum(powers), 1)


def direction(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The length of a vector and its unit vector; 0 and zeros for a zero one.

  In units of the largest entry, so that no square leaves the range.
  """
  largest = jnp.max(jnp.abs(values))
  some = largest > 0
  scaled = values / jnp.where(some, largest, 1)
  length = jnp.sqrt(jnp.sum(jnp.square(scaled)))
  unit = scaled / jnp.where(some, length, 1)
  return largest * length, unit


def keep_absent(mask: jax.Array, new: State, old: State) -> State:
  """The new state, in which absent tasks keep their entries of the old one.

  Every leaf has to have the shape ``(T,)``.
  """
  return jax.tree.map(lambda a, b: jnp.where(mask, a, b), new, old)


def adam_init(values: jax.Array) -> Any:
  """The state of one Adam a task, so that an absent task's stands still."""
  return jax.vmap(_ADAM.init)(values)


def adam_step(
  gradient: jax.Array, state: Any, mask: jax.Array
) -> tuple[jax.Array, Any]:
  """Adam's direction, zero for absent tasks, and its state."""
  direction, new = jax.vmap(lambda g, s: _ADAM.update(g, s))(gradient, state)
  return jnp.where(mask, direction, 0), keep_absent(mask, new, state)


def check_vector(
  name: str, value: Any, low: float | None = None, *, bound: str = ''
) -> None:
  """Raises ValueError unless it is a vector of finite numbers from ``low``.

  ``bound`` says so in other words.
  """
  if value is None or isinstance(value, jax.core.Tracer):
    return
  try:
    array = np.asarray(value, dtype=float)
  except (TypeError, ValueError):
    array = np.asarray(math.nan)
  good = array.ndim == 1 and np.all(np.isfinite(array))
  if not good or (low is not None and np.any(array < low)):
    if low is not None:
      bound = bound or f', each at least {low:g}'
    raise ValueError(
      f'{name}={value!r} must be a vector of finite numbers{bound}.'
    )


def one_a_task(name: str, value: ArrayLike, num_tasks: int) -> jax.Array:
  """A number, or a vector of them, as one a task in a buffer of its own."""
  if jnp.asarray(value).ndim:
    check_length(name, value, num_tasks)
  return jnp.zeros((num_tasks,), float) + jnp.asarray(value, float)


def check_length(
  name: str, value: Sequence[float] | jax.Array | None, num_tasks: int
) -> None:
  """Raises ValueError unless the vector has one entry a task."""
  if value is not None and jnp.shape(jnp.asarray(value)) != (num_tasks,):
    raise ValueError(
      f'{name}={value!r} must have one entry for each of '
      f'num_tasks={num_tasks} tasks.'
    )
