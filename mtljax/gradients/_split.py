"""How the parameters divide into shared leaves and those that tasks own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels
from mtljax.gradients import _owners, _patterns


@dataclasses.dataclass(frozen=True)
class Split:
  """Parameters as two lists: shared leaves, and leaves that tasks own."""

  treedef: Any
  labels: tuple[_labels.Label, ...]

  def split(self, leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Shared leaves and owned leaves, each in flattening order."""
    pairs = list(zip(leaves, self.labels, strict=True))
    return (
      [x for x, label in pairs if label == _labels.SHARED],
      [x for x, label in pairs if label != _labels.SHARED],
    )

  @property
  def owners(self) -> list[_labels.Label]:
    """The labels of the owned leaves."""
    return self.split(self.labels)[1]

  def separate(
    self,
    own: _owners.Own,
    leaves: Sequence[Any],
    losses: jax.Array,
    patterns: Callable[[], Sequence[_patterns.Pattern]],
    prove: Callable[[], Sequence[_patterns.Pattern]],
  ) -> _owners.Own:
    """``own`` of the owned ``leaves``, no task of which weighs another's."""
    owners, ones = self.owners, jnp.ones_like(losses)
    tangled = [False] * len(owners)
    names = _labels.path_names(jax.tree.unflatten(self.treedef, self.labels))
    _, names = self.split(names)
    _owners.check_tasks(owners, names, leaves, len(losses))
    if owners and len(losses) > 1:
      tangled = _owners.find_tangled(owners, names, patterns(), prove)
    return _owners.separate(own, owners, tangled, ones)

  def merge(self, shared: Sequence[Any], own: Sequence[Any]) -> Any:
    """The tree again."""
    shared, own = iter(shared), iter(own)
    return jax.tree.unflatten(
      self.treedef,
      [
        next(shared) if label == _labels.SHARED else next(own)
        for label in self.labels
      ],
    )
