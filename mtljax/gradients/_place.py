"""Where on a mesh the gradients of the tasks lie."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtljax.gradients import _kernels, _traffic
from mtljax.gradients._program import Use

#: How many times the bytes counted are taken to travel for signals of a leaf
#: that a model axis splits too; 1.7 times was seen.
SLACK = 2


@dataclasses.dataclass(frozen=True)
class Place:
  """Holds gradients where they belong, inside jit.

  Attributes:
    mesh: of the axes ``'data'``, ``'task'`` and others.
    specs: of one task's gradients on the shared parameters, one a leaf.
  """

  mesh: Mesh
  specs: Sequence[P]

  @property
  def task_axis(self) -> str | None:
    """The mesh axis that the tasks are spread over, or None."""
    return 'task' if self.mesh.shape['task'] > 1 else None

  def row(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
    """The shared leaves of one task's gradient, of one pass."""
    # First summed over the batch, then split: a reduce-scatter, where the
    # backend has one. Asked for the second alone, the compiler would rather
    # have the whole batch everywhere.
    return [
      self._hold(self.summed(i, leaf), without(self.specs[i], 'task'))
      for i, leaf in enumerate(leaves)
    ]

  def summed(self, i: int, leaf: jax.Array) -> jax.Array:
    """A shared leaf, by its number, of a gradient summed over the batch."""
    return self._hold(leaf, without(self.specs[i], 'data', 'task'))

  def split(self, i: int, leaf: jax.Array) -> jax.Array:
    """A shared leaf of a sum of gradients that are split."""
    return self._hold(leaf, self.specs[i])

  def rows(self, i: int, leaf: jax.Array) -> jax.Array:
    """A shared leaf ``(T, ...)`` of all tasks' gradients."""
    return self._hold(leaf, P(None, *self.specs[i]))

  def pays(
    self,
    i: int,
    use: Use,
    layer: _kernels.Layer,
    param: jax.Array,
    num_tasks: int,
  ) -> bool:
    """Whether less travels for products of signals than of gradients."""
    spread = self.spread(i, param.ndim)
    size = param.nbytes
    signals = _traffic.of_signals(use, layer, size, num_tasks, spread)
    # Of what other axes split the compiler moves more than it must.
    slack = SLACK if math.prod(spread.axes) > 1 else 1
    return slack * signals <= _traffic.of_rows(size, num_tasks, spread)

  def spread(self, i: int, ndim: int) -> _traffic.Spread:
    """How the mesh spreads a shared leaf, by its number, of so many axes."""
    spec = self.specs[i]
    entries = [*without(spec, 'data', 'task'), *[None] * (ndim - len(spec))]
    axes = (
      math.prod(self.mesh.shape[name] for name in mesh_axes([entry]))
      for entry in entries
    )
    return _traffic.Spread(
      data=self.mesh.shape['data'],
      task=self.mesh.shape['task'],
      axes=tuple(axes),
      rows_by_data='data' in mesh_axes(spec),
      rows_by_task='task' in mesh_axes(spec),
    )

  def _hold(self, leaf: jax.Array, spec: P) -> jax.Array:
    sharding = NamedSharding(self.mesh, spec)
    return jax.lax.with_sharding_constraint(leaf, sharding)


def mesh_axes(spec: Iterable[Any]) -> list[str]:
  """The mesh axes that a spec names."""
  return [
    name
    for entry in spec
    if entry is not None
    for name in (entry if isinstance(entry, tuple) else (entry,))
  ]


def without(spec: P, *axes: str) -> P:
  """The spec with some mesh axes left out."""
  kept = [
    tuple(name for name in mesh_axes([entry]) if name not in axes)
    for entry in spec
  ]
  return P(*map(as_entry, kept))


def as_entry(found: tuple[str, ...]) -> Any:
  """Mesh axes as an entry of a spec."""
  return found[0] if len(found) == 1 else found or None
