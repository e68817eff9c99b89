"""The Gramian layer by layer: signals are propagated per task, weights are not.

What costs most in a backward pass of a wide layer is the gradient of its
weights. For the Gramian none is needed (see `_kernels`), and for the update one
is enough, of the weighted sum of the signals. So T tasks cost T passes of
signals and one of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _tree
from mtljax.gradients import _kernels
from mtljax.gradients._program import Program, Use


@dataclasses.dataclass(frozen=True)
class Layers:
  """The signals of T tasks in a program whose layers were watched.

  Attributes:
    program: what was watched.
    params: the shared leaves.
    inputs: what went into each site of the program.
    signals: the gradients at the sites' outputs, ``(T, ...)``.
    rows: ``rows()``: the shared leaves of all tasks, by backward passes; for
      leaves whose layers are not known.
    beside: the shared leaves that something outside the program reads.
    map_tasks: ``map_tasks(fun, stacked)``: a function of one task's part of a
      list of arrays ``(T, ...)``, for all tasks, stacked.
    num_tasks: T.
  """

  program: Program
  params: Sequence[jax.Array]
  inputs: Sequence[tuple[Any, ...]]
  signals: Sequence[jax.Array]
  rows: Callable[[], list[jax.Array]]
  beside: frozenset[int]
  map_tasks: Callable[..., jax.Array]
  num_tasks: int

  def uses(self, i: int) -> tuple[Use, ...] | None:
    """Where a leaf is used, or None if that does not tell its gradient."""
    return None if i in self.beside else self.program.uses[i]

  def layer(
    self, i: int, pays: Callable[[_kernels.Layer], bool]
  ) -> _kernels.Layer | None:
    """The layer that a leaf makes, if its inner products pay without rows."""
    uses = self.uses(i)
    if uses is None or len(uses) != 1:
      return None
    layer = _kernels.as_layer(uses[0])
    return layer if layer is not None and pays(layer) else None

  def kernel(self, i: int) -> _kernels.Layer | None:
    """The same, for the Gramian of the tasks."""
    return self.layer(i, lambda x: _kernels.is_cheaper(x, self.num_tasks))

  def inputs_of(self, i: int) -> tuple[Any, ...]:
    """What went into a leaf's one use."""
    (use,) = self.uses(i) or ()
    return self.inputs[use.site]

  def at(self, i: int) -> list[jax.Array]:
    """The signals at a leaf's uses."""
    return [self.signals[use.site] for use in self.uses(i) or ()]

  def pull(self, i: int, signals: Sequence[jax.Array]) -> jax.Array:
    """A leaf's gradient, from the signals of one task at its uses."""
    grads = [
      use.pull(self.params[i], self.inputs[use.site], signal)
      for use, signal in zip(self.uses(i) or (), signals, strict=True)
    ]
    return sum(grads[1:], start=grads[0])

  def leaf_rows(self, i: int) -> jax.Array:
    """A leaf's gradients for all tasks, ``(T, *p.shape)``."""
    uses = self.uses(i)
    if uses is None:
      return self.rows()[i]
    if not uses:  # nothing reads it
      param = self.params[i]
      return jnp.zeros((self.num_tasks, *param.shape), param.dtype)
    return self.map_tasks(lambda signals: self.pull(i, signals), self.at(i))


def products(
  first: Layers, second: Layers, marked: Sequence[bool]
) -> jax.Array:
  """Inner products ``(T, T)`` of the marked leaves' gradients in two passes."""
  _check(marked)
  return sum(
    _leaf_products(first, second, i) for i, use in enumerate(marked) if use
  )


def _check(marked: Sequence[bool]) -> None:
  if not any(marked):
    raise ValueError('a Gramian needs at least one shared parameter.')


def _leaf_products(first: Layers, second: Layers, i: int) -> jax.Array:
  layer = first.kernel(i)
  if layer is None:
    return _tree.leaf_products(first.leaf_rows(i), second.leaf_rows(i))
  sides = [(one.inputs_of(i), one.at(i)[0]) for one in (first, second)]
  return _kernels.products(layer, *sides, first.map_tasks)


def gramian_and_combine(
  layers: Layers, marked: Sequence[bool]
) -> tuple[jax.Array, Callable[[jax.Array], list[jax.Array]] | None]:
  """The Gramian over the marked leaves, and what else the pass is good for.

  Returns:
    The Gramian ``(T, T)``, and a function from weights ``(T,)`` to the weighted
    sum of the shared leaves that needs no backward pass; None where it would
    keep more than T copies of the largest leaf and the widest signal, or leaves
    are not marked.
  """
  _check(marked)
  kept: dict[int, jax.Array] = {}
  total = 0.0
  for i, use in enumerate(marked):
    if use and layers.kernel(i) is None:
      kept[i] = layers.leaf_rows(i)
      total += _tree.leaf_products(kept[i], kept[i])
    elif use:
      total += _leaf_products(layers, layers, i)

  def combined(weights):
    return [
      _tree.combine_leaf(weights, kept[i])
      if i in kept
      else layers.pull(
        i, [_tree.combine_leaf(weights, s) for s in layers.at(i)]
      )
      for i in range(len(layers.params))
    ]

  if not all(marked):
    return total, None
  sites = {
    use.site
    for i in range(len(layers.params))
    if i not in kept
    for use in layers.uses(i) or ()
  }
  held = [*kept.values(), *(layers.signals[site] for site in sites)]
  most = layers.num_tasks * max(x.nbytes for x in layers.params)
  most += max((x.nbytes for x in layers.signals), default=0)
  affordable = sum(x.nbytes for x in held) <= most
  return total, combined if affordable else None
