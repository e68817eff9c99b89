"""What heads get beside their own gradients, bounded by these."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree
from mtljax._types import Alignment, Need, Weighting


def needs_of(weighting: Weighting) -> frozenset[Need]:
  """What an aggregator of the rule reads."""
  if weighting.alignment is None:
    return weighting.needs
  return weighting.needs | {'alignment'}


def _norms(
  labels: Sequence[_labels.Label], leaves: Sequence[jax.Array], num_tasks: int
) -> jax.Array:
  """The norms of what each task owns, shape ``(T,)``."""
  squares = jnp.zeros((num_tasks,), float)
  for label, leaf in zip(labels, leaves, strict=True):
    real = _tree.as_real(leaf)
    if label == _labels.STACKED:
      rows = real.reshape(num_tasks, -1)
      squares = squares + _tree.squared_norm(rows, 1)
    elif label != _labels.SHARED:
      squares = squares.at[label].add(_tree.squared_norm(real))
  return jnp.sqrt(squares)


def moved(
  alignment: Alignment,
  labels: Sequence[_labels.Label],
  leaves: Sequence[jax.Array],
  pulls: Sequence[jax.Array],
  num_tasks: int,
) -> list[jax.Array]:
  """The update whose heads also ascend the inner products at the features.

  Args:
    alignment: how far.
    labels: of the leaves.
    leaves: the update.
    pulls: the gradients of those inner products by the leaves that tasks own.
    num_tasks: T.
  """
  strength = jnp.asarray(alignment.strength, float)
  factor = jnp.broadcast_to(strength, (num_tasks,))
  if alignment.max_ratio is not None:
    bound = alignment.max_ratio * _norms(labels, leaves, num_tasks)
    length = strength * _norms(labels, pulls, num_tasks)
    over = length > bound
    shrink = jnp.where(over, bound / jnp.where(over, length, 1), 1)
    factor = factor * shrink.astype(factor.dtype)

  def one(label, leaf, pull):
    if label == _labels.SHARED:
      return leaf
    mine = factor if label == _labels.STACKED else factor[label]
    return leaf - _tree.scale_leaf(mine, pull).astype(leaf.dtype)

  return [one(*x) for x in zip(labels, leaves, pulls, strict=True)]
