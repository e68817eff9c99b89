"""The Gramian layer by layer: signals are propagated per task, weights are not.

What costs most in a backward pass of a wide layer is the gradient of its
weights. For the Gramian none is needed (see `_kernels`), and for the update one
is enough, of the weighted sum of the signals. So T tasks cost T passes of
signals and one of weights. Leaves for which that is not cheaper are pulled back
in the same passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mtljax import _tree
from mtljax.gradients import _kernels
from mtljax.gradients._place import Place
from mtljax.gradients._program import Program, Use


@dataclasses.dataclass(frozen=True)
class Layers:
  """The gradients of T tasks, as rows or as signals, leaf by leaf.

  Attributes:
    params: the shared leaves.
    layers: for each the layer that it makes, if that pays; else None.
    uses: where those that make a layer are used.
    inputs: what went into each site of the program.
    widest: bytes of the largest value in the program.
    rows: by the leaf's number, gradients ``(T, *p.shape)`` of the others.
    signals: by the leaf's number, gradients ``(T, ...)`` at the layer's output.
    sums: by the leaf's number, inner products ``(T, T)`` of those that a loop
      reads slice by slice, of which no gradients are kept.
    keep: whether all are kept for a weighted sum, however many.
    map_tasks: ``map_tasks(fun, stacked)``: a function of one task's part of
      an array ``(T, ...)``, for all tasks, stacked.
    program: what was watched.
    beside: the numbers of the leaves that are read beside it too.
    place: where on a mesh gradients lie; None: there is none.
  """

  params: Sequence[jax.Array]
  layers: Sequence[_kernels.Layer | None]
  uses: Sequence[Use | None]
  inputs: Sequence[tuple[Any, ...]]
  widest: int
  rows: Mapping[int, jax.Array]
  signals: Mapping[int, jax.Array]
  sums: Mapping[int, jax.Array]
  keep: bool
  map_tasks: Callable[..., jax.Array]
  program: Program
  beside: Sequence[int] = ()
  place: Place | None = None

  def use(self, i: int) -> Use:
    """Where a leaf that makes a layer is used."""
    use = self.uses[i]
    assert use is not None
    return use

  def side(self, i: int) -> tuple[tuple[Any, ...], jax.Array]:
    """What went into a leaf's layer, and the signals behind it."""
    return self.inputs[self.use(i).site], self.signals[i]

  def form(self, i: int) -> tuple[str, str]:
    """How a leaf's products are taken, and what keeps it from signals.

    The first is ``'signals'``, ``'slices'`` (added up inside of a loop) or
    ``'rows'`` (the gradients of all tasks), the second empty for signals.
    """
    met = ', '.join(self.program.met[i])
    if self.layers[i] is not None:
      return 'signals', ''
    inside = self.program.inside[i]
    if i in self.sums:
      by_signals = inside is not None and inside.use is not None
      return 'slices', '' if by_signals else f'inside {met}'
    if i in self.beside:
      return 'rows', 'is read by the heads too'
    use = self.uses[i]
    if use is not None and _kernels.as_layer(use) is not None:
      return 'rows', f'gradients are less work than signals of its {met}'
    if not met:
      return 'rows', 'is not read'
    if len(self.program.met[i]) > 1:
      return 'rows', f'is used more than once: {met}'
    return 'rows', f'enters {met}'

  def weighted(self, i: int, weights: jax.Array) -> jax.Array:
    """A leaf of the weighted sum of the tasks' gradients."""
    if i in self.rows:
      total = _tree.combine_leaf(weights, self.rows[i])
      return total if self.place is None else self.place.split(i, total)
    inputs, signals = self.side(i)
    mixed = _tree.combine_leaf(weights, signals)
    total = self.use(i).pull(self.params[i], inputs, mixed)
    return total if self.place is None else self.place.summed(i, total)


def choose_layers(
  uses: Sequence[Use | None],
  pays: Callable[[int, _kernels.Layer], bool],
  like: Layers | None = None,
) -> list[_kernels.Layer | None]:
  """The layers of those leaves whose inner products pay without rows.

  ``pays`` takes a leaf's number and its layer. With ``like``, of those that are
  layers there, whether they pay or not.
  """
  found = [None if use is None else _kernels.as_layer(use) for use in uses]
  if like is not None:
    pairs = zip(found, like.layers, strict=True)
    return [None if other is None else x for x, other in pairs]
  return [
    x if x is not None and pays(i, x) else None for i, x in enumerate(found)
  ]


def choose_sums(
  program: Program, num_tasks: int
) -> dict[int, _kernels.Layer | None]:
  """Parameters inside loops whose products are added up, by their numbers.

  For each the layer from whose signals that is cheaper; None: from slices.
  Others, that no loop reads slice by slice, are pulled back.
  """
  found: dict[int, _kernels.Layer | None] = {}
  for i, inside in enumerate(program.inside):
    if inside is None:
      continue
    layer = None if inside.use is None else _kernels.as_layer(inside.use)
    if layer is not None and _kernels.is_cheaper(layer, num_tasks):
      found[i] = layer
    elif inside.sliced:
      found[i] = None
  return found


def products(
  first: Layers, second: Layers, marked: Sequence[bool]
) -> jax.Array:
  """Inner products ``(T, T)`` of the marked leaves' gradients in two passes.

  Both make layers of the same leaves, maybe of other numbers of examples.
  """
  if not any(marked):
    raise ValueError('a Gramian needs at least one shared parameter.')
  total = 0.0
  for i, use in enumerate(marked):
    layer, other = first.layers[i], second.layers[i]
    if use and i in first.sums:
      assert first is second  # between two passes there are rows
      total += first.sums[i]
    elif use and layer is None:
      total += _tree.leaf_products(first.rows[i], second.rows[i])
    elif use:
      pairs = (layer, first.side(i)), (other, second.side(i))
      total += _kernels.products(*pairs, first.map_tasks)
  return total


def gramian_and_combine(
  layers: Layers, marked: Sequence[bool]
) -> tuple[jax.Array, Callable[[jax.Array], list[jax.Array]] | None]:
  """The Gramian over the marked leaves, and what else the pass is good for.

  Returns:
    The Gramian ``(T, T)``, and a function from weights ``(T,)`` to the weighted
    sum of the shared leaves that needs no backward pass; None where it would
    keep more than T copies of the largest leaf and of the largest value in the
    program (unless all are kept), leaves are not marked, or loops have added
    up their products.
  """
  gramian = products(layers, layers, marked)
  held = [*layers.rows.values(), *layers.signals.values()]
  largest = max(x.nbytes for x in layers.params) + layers.widest
  fits = sum(x.nbytes for x in held) <= len(gramian) * largest
  if layers.sums or not all(marked) or not (fits or layers.keep):
    return gramian, None
  return gramian, _tree.in_range_of(
    layers.signals.values(),
    lambda weights: [
      layers.weighted(i, weights) for i in range(len(layers.params))
    ],
  )
