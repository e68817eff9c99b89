"""A pass that may be watched, and pulled back layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _tree
from mtljax.gradients import (
  _dependence,
  _kernels,
  _layerwise,
  _program,
  _varying,
  _work,
)
from mtljax.gradients._passes import Passes, map_tasks

Tasks = jax.Array | None  # indices, or all


class Watch(NamedTuple):
  """How a pass is watched.

  Attributes:
    cheapest: for the least work, though that keep the gradients of all tasks;
      else for little memory.
  """

  cheapest: bool


def take(stacked: Any, tasks: Tasks) -> Any:
  """The parts of some tasks; None: of all, as they are."""
  if tasks is None:
    return stacked
  return jax.tree.map(lambda x: x[tasks], stacked)


class Pass(NamedTuple):
  """A function of shared and owned leaves, evaluated, and the way back.

  ``pull`` takes the gradient at the output and gives the shared leaves, the
  owned ones, the signals at the program's sites (none if not watched), and the
  products with other tasks' gradients of those parameters that loops add up.
  """

  out: Any
  pull: Callable[[Any], tuple[Any, ...]]
  aux: Any
  program: _program.Program | None = None
  inputs: Sequence[tuple[Any, ...]] = ()
  added: Mapping[int, _kernels.Layer | None] = {}
  watch: Watch | None = None


def evaluate(fun, shared, own, watch, tell, num_tasks=None) -> Pass:
  """Evaluates ``fun(shared, own) -> (out, aux)``; with ``tell``, traced.

  The output is the losses, unless ``num_tasks`` is given.
  """
  if watch is None:
    out, pull, aux = jax.vjp(fun, shared, own, has_aux=True)
    return Pass(out, ready(lambda c: (*pull(c), [], {}), out, tell), aux)
  program, shape = _program.trace(fun, shared, own, kinds=_kernels.READERS)
  num_tasks = num_tasks or shape[0].shape[0]

  def watched(shared, own, taps, totals):
    sums = {
      i: _program.Sum(totals[i], layer and _kernels.tag(layer))
      for i, layer in chosen.items()
    }
    outs, inputs = program([*shared, *own], taps, sums)
    out, aux = jax.tree.unflatten(jax.tree.structure(shape), outs)
    return out, (aux, inputs)

  taps = [
    _varying.vary_like(
      jnp.zeros(s.shape, s.dtype), program.ops[i].eqn.outvars[0]
    )
    for i, s in zip(program.sites, program.signals, strict=True)
  ]
  chosen = _layerwise.choose_sums(program, num_tasks)
  # A block of tasks (`chunk_size`) may hold some of them twice.
  totals = {
    i: jnp.zeros(2 * num_tasks, _tree.accumulator(shared[i].dtype))
    for i in chosen
  }
  out, pull, (aux, inputs) = jax.vjp(
    watched, shared, own, taps, totals, has_aux=True
  )
  pull = ready(pull, out, tell)
  return Pass(out, pull, aux, program, inputs, chosen, watch)


def ready(pull, out, tell):
  """A backward pass that takes any cotangents; with ``tell``, traced."""
  make = _dependence.Traced if tell else _varying.of_outputs
  return make(pull, out)


def make_layers(passed, shared, cotangents, num_tasks, place, also=None):
  """`Pullback.layers` of a watched pass.

  ``also`` are rows ``(T, ...)`` that come from beside the program, and which
  leaves have them.
  """
  if passed.program is None:
    return None
  more, beside = also or ([], ())
  uses = [
    None if i in beside else use for i, use in enumerate(passed.program.uses)
  ]

  def is_less(count, i, layer):
    return _kernels.is_cheaper(layer, count) and (
      place is None or place.pays(i, uses[i], layer, shared[i], count)
    )

  def layers(passes, tasks=None, pays=None, like=None, loops=False):
    count = num_tasks if tasks is None else len(tasks)
    pays = pays or functools.partial(is_less, count)
    found = _layerwise.choose_layers(uses, pays, like)
    added = [i for i in passed.added if i not in beside]
    # All tasks go through a loop together, which others may not.
    together = passes.mode in ('unroll', 'vmap') and passes.batch_size is None
    if not loops or not together or place is not None:
      added = []
    keep = (
      loops
      and tasks is None
      and _is_longer(passed, shared, found, count, passes, place)
    )
    if keep:
      added = []

    def pull(c):
      rows, _, signals, sums = passed.pull(c)
      rows = rows if place is None else place.row(rows)
      return (
        {i: x for i, x in enumerate(rows) if not (found[i] or i in added)},
        {i: signals[uses[i].site] for i, x in enumerate(found) if x},
        {i: sums[i] for i in added},
      )

    some = take(cotangents, tasks)
    rows, signals, sums = map_tasks(
      pull, some, count, Passes('vmap') if added else passes, place
    )
    rows |= {i: rows[i] + take(more[i], tasks) for i in beside}
    if place is not None:
      rows = {i: place.rows(i, x) for i, x in rows.items()}
    return _layerwise.Layers(
      params=shared,
      layers=found,
      uses=uses,
      inputs=passed.inputs,
      widest=passed.program.widest,
      rows=rows,
      signals=signals,
      sums={i: x[:, :count] for i, x in sums.items()},
      keep=keep,
      map_tasks=lambda fun, x: map_tasks(fun, x, count, passes, place),
      program=passed.program,
      beside=tuple(beside),
      place=place,
    )

  return layers


def _is_longer(passed, shared, found, num_tasks, passes, place) -> bool:
  """Whether less work than to take the Gramian alone is to keep all rows.

  On a mesh, whether less travels, which one more pass always adds to.
  """
  if not passed.watch.cheapest:
    return False
  if place is not None:
    return True
  work = _work.of_equations(op.eqn for op in passed.program.ops)
  if work is None:
    return False
  layers = dict(enumerate(found)) | passed.added
  layers = {i: layer for i, layer in layers.items() if layer is not None}
  unrolled = passes.mode == 'unroll'
  return _work.is_longer(work, shared, layers, num_tasks, unrolled)
