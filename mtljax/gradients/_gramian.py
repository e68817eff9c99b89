"""The Gramian of a pass: from rows or layer by layer, whole or in blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _labels, _tree
from mtljax._jaxprs import canonical_convolutions
from mtljax.gradients import _layerwise
from mtljax.gradients._passes import Passes, map_tasks
from mtljax.gradients._pullback import Pullback


def marked_leaves(pullback: Pullback, gramian_labels: Any) -> list[bool]:
  """Which shared leaves the Gramian is taken over: all, or those marked."""
  labels = list(pullback.split.labels)
  tree = jax.tree.unflatten(pullback.split.treedef, labels)
  marked = _labels.flatten_gramian_labels(gramian_labels, labels, tree)
  return [
    use
    for use, label in zip(marked, labels, strict=True)
    if label == _labels.SHARED
  ]


def products(
  first: Pullback, second: Pullback, passes: Passes, marked: Sequence[bool]
) -> jax.Array:
  """Inner products ``(T, T)`` between the gradients of two passes."""
  if first.layers is not None and second.layers is not None:
    layers = first.layers(passes)
    return _layerwise.products(
      layers, second.layers(passes, like=layers), marked
    )
  rows = (_pick(pull.rows(passes), marked) for pull in (first, second))
  return _tree.products_of(*rows)


def _pick(leaves: Sequence[jax.Array], marked: Sequence[bool]):
  return [x for x, use in zip(leaves, marked, strict=True) if use]


def gramian_and_combine(
  pullback: Pullback,
  passes: Passes,
  marked: Sequence[bool],
  chunk_size: int | None = None,
) -> tuple[jax.Array, Callable[[jax.Array], list[jax.Array]]]:
  """The Gramian, and the cheapest way to a weighted sum without rows kept.

  Args:
    pullback: the pass; layer by layer if it was watched.
    passes: how the backward passes run.
    marked: the shared leaves to take it over.
    chunk_size: the tasks in a block, of which two are held at a time; None:
      all.

  Returns:
    The Gramian ``(T, T)``, and ``combined(weights)`` as of the pullback.
  """
  num_tasks = pullback.losses.shape[0]
  if chunk_size is not None and chunk_size < num_tasks:
    gramian = _in_blocks(pullback, passes, marked, chunk_size)
    return gramian, pullback.combined
  gramian, combined = _of_tasks(pullback, passes, marked)
  return gramian, combined or pullback.combined


def of_mixtures(
  pullback: Pullback,
  passes: Passes,
  marked: Sequence[bool],
  mixtures: jax.Array,
) -> tuple[jax.Array, Callable[[jax.Array], list[jax.Array]]]:
  """As `gramian_and_combine`, every task with the gradient of its average.

  One backward pass an average, whose gradients are kept.

  Args:
    pullback: the pass.
    passes: how the backward passes run.
    marked: the shared leaves to take it over.
    mixtures: shares of the tasks in each average, ``(K, T)``.

  Returns:
    The Gramian ``(T, T)``, and ``combined(weights)`` for weights that are the
    same within an average.
  """
  shares = mixtures.astype(pullback.losses.dtype)
  rows = map_tasks(pullback.combined, shares, len(shares), passes)
  small = _tree.gramian_of(_pick(rows, marked))
  within = (mixtures > 0).astype(small.dtype)
  # Each entry is one of the small one, or 0 for absent tasks.
  gramian = within.T @ small @ within

  def combined(weights):
    total = within.astype(weights.dtype) @ weights
    return [_tree.combine_leaf(total, row) for row in rows]

  return gramian, combined


def _of_tasks(pullback, passes, marked, tasks=None):
  """The Gramian of some tasks (None: of all), and how they combine if kept."""
  if pullback.layers is not None:
    layers = pullback.layers(passes, tasks, loops=True)
    return _layerwise.gramian_and_combine(layers, marked)
  passes = passes._replace(may_loop=False)  # rows go leaf by leaf
  rows = _pick(pullback.rows(passes, tasks), marked)
  return _tree.gramian_of(rows), None


def _in_blocks(
  pullback: Pullback, passes: Passes, marked: Sequence[bool], chunk_size: int
) -> jax.Array:
  """Every pair of blocks of tasks on its own, one after the other.

  In a loop, so that no compiler can run them side by side. The last block
  begins early where the blocks do not fit.
  """
  num_tasks = pullback.losses.shape[0]
  starts = range(0, num_tasks, chunk_size)
  blocks = [
    np.arange(chunk_size) + min(start, num_tasks - chunk_size)
    for start in starts
  ]
  pairs = np.stack(
    [np.concatenate(pair) for pair in itertools.combinations(blocks, 2)]
  )

  block = canonical_convolutions(
    lambda tasks: _of_tasks(pullback, passes, marked, tasks)[0]
  )
  parts = jax.lax.map(block, jnp.asarray(pairs))
  total = jnp.zeros((num_tasks, num_tasks), parts.dtype)
  return total.at[pairs[:, :, None], pairs[:, None, :]].set(parts)
