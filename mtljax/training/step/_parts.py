"""One batch as several independent ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels
from mtljax.gradients import _pullback
from mtljax.gradients._pullback import LossFn


def split_batch(batch: Any, fun: LossFn, parts: int) -> list[Any]:
  """Cuts every leaf along axis 0, as `jax.numpy.array_split` does.

  Raises:
    ValueError: a leaf has no axis 0, or one shorter than ``parts``, or not the
      same as the others of its batch (of its task's, for a sequence).
  """
  leaves, treedef = jax.tree.flatten(batch)
  names = _labels.path_names(batch)
  for name, leaf in zip(names, leaves, strict=True):
    shape = jnp.shape(leaf)
    if not shape or shape[0] < parts:
      raise ValueError(
        f'batch: its array {name!r} has shape {shape}; the method compares '
        f'independent parts of the batch, so axis 0 must hold at least {parts} '
        'examples.'
      )
  whole = [batch] if _pullback.has_one_pass(fun) else batch
  for one in whole:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(one)}
    if len(sizes) > 1:
      raise ValueError(
        f'batch: its arrays have {sorted(sizes)} examples on axis 0; the '
        'method compares independent parts of the batch, so all must have the '
        'same.'
      )
  pieces = [jnp.array_split(leaf, parts) for leaf in leaves]
  return [
    jax.tree.unflatten(treedef, [piece[i] for piece in pieces])
    for i in range(parts)
  ]
