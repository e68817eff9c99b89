"""How T backward passes run: one after the other, together, or in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._jaxprs import canonical_convolutions
from mtljax.gradients import _work
from mtljax.gradients._place import Place

#: Of the numbers that a pass makes, those made with what was kept.
SHARED = 0.25
#: Tasks that go together at most, for the memory of their signals.
TOGETHER = 8
#: Tasks whose convolutions are written one after the other at most.
IN_LINE = 16
#: And in the body of a loop, where the cores are shared among them.
SIDE_BY_SIDE = range(4, 9)
Mode = Literal['auto', 'unroll', 'vmap', 'map']
MODES = ('auto', 'unroll', 'vmap', 'map')


class Passes(NamedTuple):
  """A mode, never ``'auto'``, and how many tasks go together.

  ``'groups'`` is a loop over so many tasks one after the other.

  Where ``is_open``, `settle` says how many, and whether in a loop, unless
  ``may_loop`` is False: a loop keeps what it gives for all tasks.
  """

  mode: str
  batch_size: int | None = None
  is_open: bool = False
  may_loop: bool = True


def make_passes(mode: str, batch_size: int | None = None) -> Passes:
  """Checks the arguments and takes the backend's mode for ``'auto'``.

  An accelerator is filled best by the batched program. On CPU its weight
  gradients are batched products, up to twice as slow; what it saves decides.

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


def settle(
  fun: Callable[[Any], Any],
  part: Any,
  num_tasks: int,
  may_loop: bool = True,
) -> Passes:
  """How the tasks go on a CPU, from the program of one task's pass.

  Together they read what the forward pass kept once, and compute once what has
  to be computed again; one after the other they write their gradients where
  those go, and convolutions stay plain ones. So they go together where much is
  made with what was kept, and through loops. Convolutions of many tasks go in a
  loop of groups: compiled for one group, as fast, and with less on its way at
  once.
  """
  program = jax.make_jaxpr(fun)(part).jaxpr
  found = _work.contents(program.eqns)
  shares = found.loops or found.shared > SHARED * found.made
  if found.convolutions and num_tasks > IN_LINE and may_loop:
    # The size that wastes the least in the last group, the largest of equals.
    size = min(SIDE_BY_SIDE, key=lambda n: (-num_tasks % n, -n))
    return Passes('groups', size)
  together = shares and not found.convolutions
  return Passes('unroll', TOGETHER if together else None)


def _in_groups(fun, stacked, num_tasks, size):
  """Equal groups in a loop; the last is filled up with the first tasks."""
  rest = -num_tasks % size

  def group(x):
    x = jnp.concatenate([x, x[:rest]]) if rest else x
    return x.reshape(-1, size, *x.shape[1:])

  one = lambda xs: map_tasks(fun, xs, size, Passes('unroll'))
  found = jax.lax.map(canonical_convolutions(one), jax.tree.map(group, stacked))
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_tasks], found)


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
    one = jax.tree.map(lambda x: x[0], stacked)
    passes = settle(fun, one, num_tasks, passes.may_loop)
  if passes.mode == 'vmap':
    axis = None if place is None else place.task_axis
    return jax.vmap(fun, spmd_axis_name=axis)(stacked)
  if passes.mode == 'map':
    fun = canonical_convolutions(fun)
    return jax.lax.map(fun, stacked, batch_size=passes.batch_size)
  size = passes.batch_size or 1
  if passes.mode == 'groups':
    return _in_groups(fun, stacked, num_tasks, size)
  part = lambda index: jax.tree.map(lambda x: x[index], stacked)
  if size == 1:
    return _stack([fun(part(t)) for t in range(num_tasks)])
  chunks = [
    jax.vmap(fun)(part(slice(start, start + size)))
    for start in range(0, num_tasks, size)
  ]
  return jax.tree.map(lambda *x: jnp.concatenate(x), *chunks)
