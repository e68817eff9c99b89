"""How T backward passes run: one after the other, together, or in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._jaxprs import canonical_convolutions

Mode = Literal['auto', 'unroll', 'vmap', 'map']
MODES = ('auto', 'unroll', 'vmap', 'map')


class Place(NamedTuple):
  """Where the gradients of the tasks lie on a mesh.

  Attributes:
    row: constrains the shared leaves of one task's gradient.
    task_axis: the mesh axis that the tasks are spread over, or None.
  """

  row: Callable[[list[jax.Array]], list[jax.Array]]
  task_axis: str | None


class Passes(NamedTuple):
  """A mode, never ``'auto'``, and how many tasks go together."""

  mode: str
  batch_size: int | None = None


def make_passes(mode: str, batch_size: int | None = None) -> Passes:
  """Checks the arguments and takes the backend's mode for ``'auto'``.

  On CPU the unrolled program is about twice as fast as the batched one, whose
  weight gradients are batched products; an accelerator is filled better by the
  batched one.

  Raises:
    ValueError: the mode is unknown, or ``batch_size`` does not go with it.
  """
  _validate.one_of('mode', mode, MODES)
  if mode == 'auto':
    mode = 'unroll' if jax.default_backend() == 'cpu' else 'vmap'
    mode = 'map' if mode == 'vmap' and batch_size is not None else mode
  if batch_size is not None:
    batch_size = _validate.integer('batch_size', batch_size, 1)
    if mode == 'vmap':
      raise ValueError(
        f"batch_size={batch_size}: mode='vmap' runs all tasks together; for "
        "so many at a time use mode='map' or 'unroll'."
      )
  return Passes(mode, batch_size)


def map_rows(
  pull: Callable[[Any], list[jax.Array]],
  cotangents: Any,
  num_tasks: int,
  passes: Passes,
  place: Place | None,
) -> list[jax.Array]:
  """The shared leaves of every task, pulled back to their place."""
  placed = lambda c: pull(c) if place is None else place.row(pull(c))
  return map_tasks(placed, cotangents, num_tasks, passes, place)


def _stack(rows: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def map_tasks(
  fun: Callable[[Any], Any],
  stacked: Any,
  num_tasks: int,
  passes: Passes,
  place: Place | None = None,
) -> Any:
  """``fun`` of every task's part of a tree of stacks ``(T, ...)``, stacked."""
  if passes.mode == 'vmap':
    axis = None if place is None else place.task_axis
    return jax.vmap(fun, spmd_axis_name=axis)(stacked)
  if passes.mode == 'map':
    fun = canonical_convolutions(fun)
    return jax.lax.map(fun, stacked, batch_size=passes.batch_size)
  part = lambda index: jax.tree.map(lambda x: x[index], stacked)
  size = passes.batch_size or 1
  if size == 1:
    return _stack([fun(part(t)) for t in range(num_tasks)])
  chunks = [
    jax.vmap(fun)(part(slice(start, start + size)))
    for start in range(0, num_tasks, size)
  ]
  return jax.tree.map(lambda *x: jnp.concatenate(x), *chunks)
