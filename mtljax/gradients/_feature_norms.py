"""Norms of the tasks' gradients at the features of chunks of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from mtljax import _tree
from mtljax.gradients._staged import HeadAux


def check_no_statistics(head_aux: Sequence[Any]) -> None:
  """Raises ValueError where a head changes the model's state."""
  for t, aux in enumerate(head_aux):
    if isinstance(aux, HeadAux):
      names = ', '.join(map(repr, aux.model_state)) or 'a state'
      raise ValueError(
        f'feature_norms: head {t} changes {names} of the model state: with '
        'batch statistics behind the features, the loss of one chunk depends '
        'on the features of all, and the norms are no eigenvalues of a kernel. '
        'Normalise in the trunk, or without batch statistics.'
      )


def squared_norms(
  leaves: Sequence[jax.Array], names: Sequence[str], chunks: int
) -> jax.Array:
  """The squared norms ``(T, chunks)`` of gradients ``(T, B, ...)``.

  Raises:
    ValueError: the chunks do not divide B, or it differs from leaf to leaf.
  """
  sizes = {}
  for name, leaf in zip(names, leaves, strict=True):
    if leaf.ndim < 2 or leaf.shape[1] % chunks or not leaf.shape[1]:
      raise ValueError(
        f'features: {name or "the array"!r} has shape {leaf.shape[1:]}; '
        f'chunks={chunks} must divide axis 0, which must be the batch.'
      )
    sizes[name] = leaf.shape[1]
  if len(set(sizes.values())) > 1:
    raise ValueError(
      f'features: their arrays have different numbers of examples on axis 0 '
      f'({sizes}), so that chunks={chunks} of the batch are not said.'
    )
  return sum(_of_leaf(leaf, chunks) for leaf in leaves)


def _of_leaf(leaf: jax.Array, chunks: int) -> jax.Array:
  rows = _tree.as_real(leaf).reshape(len(leaf), chunks, -1)
  return _tree.squared_norm(rows, -1)
