"""How T backward passes run: one after the other, together, or in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._jaxprs import canonical_convolutions
from mtljax.gradients import _work

#: Multiplications of a product below which a call costs as much.
SMALL = 2**24
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
  """A mode, never ``'auto'``, and how many tasks go together.

  ``is_open``: another mode may be taken where the work of a pass says so.
  """

  mode: str
  batch_size: int | None = None
  is_open: bool = False


def make_passes(mode: str, batch_size: int | None = None) -> Passes:
  """Checks the arguments and takes the backend's mode for ``'auto'``.

  On CPU the unrolled program is about twice as fast as the batched one, whose
  weight gradients are batched products; an accelerator is filled better by the
  batched one.

  Raises:
    ValueError: the mode is unknown, or ``batch_size`` does not go with it.
  """
  _validate.one_of('mode', mode, MODES)
  is_open = False
  if mode == 'auto':
    mode = 'unroll' if jax.default_backend() == 'cpu' else 'vmap'
    is_open = mode == 'unroll' and batch_size is None
    mode = 'map' if mode == 'vmap' and batch_size is not None else mode
  if batch_size is not None:
    batch_size = _validate.integer('batch_size', batch_size, 1)
    if mode == 'vmap':
      raise ValueError(
        f"batch_size={batch_size}: mode='vmap' runs all tasks together; for "
        "so many at a time use mode='map' or 'unroll'."
      )
  return Passes(mode, batch_size, is_open)


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


def settle(fun: Callable[[Any], Any], part: Any) -> Passes:
  """The mode for a CPU, by the products and the loops of one task's pass.

  Large products fill the cores by themselves, and together they would move more
  memory. Small ones are bound by what it takes to call them, as are the
  iterations of a loop, so there all tasks go together.
  """
  found = _work.products_of(jax.make_jaxpr(fun)(part).jaxpr.eqns)
  small = found.count > 0 and found.work < SMALL * found.count
  return Passes('vmap' if small or found.looped else 'unroll')


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
  if passes.is_open and place is None and num_tasks > 1:
    passes = settle(fun, jax.tree.map(lambda x: x[0], stacked))
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
