"""TIES: trim, elect signs, and average what agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax.merging import _arithmetic


def trim_vectors(
  vectors: Any, density: float, *, labels: _labels.Labels | None = None
) -> Any:
  """Sets all but the largest entries of each task's vector to zero.

  Args:
    vectors: of `mtljax.merging.task_vectors`.
    density: the share of a task's shared parameters that is kept, over all
      leaves together, in (0, 1]. Entries that tie with the smallest one kept
      are kept too.
    labels: see `mtljax.merging.task_vectors`; what a task owns is not trimmed.

  Returns:
    The same tree, trimmed.

  Raises:
    ValueError: the density is not in (0, 1].
    TypeError: a shared leaf is complex, or no array of floating numbers.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax import merging
    >>> print(merging.trim_vectors(jnp.array([[3.0, -4.0, 1.0, 0.0]]), 0.5))
    [[ 3. -4.  0.  0.]]
  """
  _validate.in_range('density', density, 0, 1, open_low=True)
  shared, put = _shared_rows(vectors, labels)
  if not shared:
    return vectors
  sizes = jnp.concatenate(
    [jnp.abs(x).reshape(len(x), -1).astype(float) for x in shared], axis=1
  )
  count = max(1, round(density * sizes.shape[1]))
  least = jax.lax.top_k(sizes, count)[0][:, -1]
  small = lambda x: jnp.abs(x) < least.reshape(-1, *[1] * (x.ndim - 1))
  return put([jnp.where(small(x), 0, x) for x in shared])  # NaN stays


def ties(
  base: Any,
  models: Sequence[Any],
  *,
  density: float = 0.2,
  scale: ArrayLike = 1.0,
  labels: _labels.Labels | None = None,
) -> Any:
  r"""Merges networks by the entries on whose sign the tasks agree (TIES).

  Each task's vector is trimmed to its largest entries. Of every parameter the
  sign is elected that has more of the sum of the entries, and those that have
  it are averaged, over the tasks that kept one:

  .. math::
    \theta = \theta_0 + \lambda\, \frac{\sum_{t \in A} \tau_t}{|A|},
    \quad A = \{t : \mathrm{sign}\, \tau_t = \mathrm{sign} \sum_s \tau_s\}

  =============================  ==========================================
  input                          result
  =============================  ==========================================
  one task                       its vector, trimmed
  entries that add up to zero    the sign that most parameters have; where
                                 no sign leads, the base
  all models equal to the base   the base
  NaN or infinity                NaN or infinity somewhere in the result
  =============================  ==========================================

  Args:
    base: the parameters that all began at, a tree of real arrays.
    models: a tree like it for each of T tasks, trained on that task alone.
    density: of `trim_vectors`; the authors keep a fifth.
    scale: :math:`\lambda`, chosen on validation data.
    labels: see `task_vectors`; what a task owns comes from its own model.

  Returns:
    Parameters like ``base``, in its dtypes.

  Raises:
    ValueError: as `task_vectors`, or the density is not in (0, 1].
    TypeError: as `trim_vectors`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax import merging
    >>> models = [jnp.array([4.0, 1.0, 0.0]), jnp.array([2.0, -3.0, 0.0])]
    >>> print(merging.ties(jnp.zeros(3), models, density=1.0))
    [ 3. -3.  0.]

  References:
    Yadav et al., `TIES-Merging: Resolving Interference When Merging Models
    <https://arxiv.org/abs/2306.01708>`_, 2023
  """
  vectors = _arithmetic.task_vectors(base, models, labels=labels)
  vectors = trim_vectors(vectors, density, labels=labels)
  shared, put = _shared_rows(vectors, labels)
  signs = [jnp.sign(jnp.sum(x.astype(_wide(x)), axis=0)) for x in shared]
  majority = jnp.sign(sum(jnp.sum(x) for x in signs)) if signs else 0.0
  scale = jnp.asarray(scale, float)

  def mean(rows, sign):
    rows = rows.astype(_wide(rows))
    elected = jnp.where(sign == 0, majority, sign)
    agrees = (jnp.sign(rows) == elected[None]) & (rows != 0)
    total = jnp.sum(jnp.where(agrees | jnp.isnan(rows), rows, 0), axis=0)
    return scale * total / jnp.maximum(jnp.sum(agrees, axis=0), 1)

  found = [mean(*x).astype(x[0].dtype) for x in zip(shared, signs, strict=True)]
  return jax.tree.map(jnp.add, base, put(found))


def _wide(leaf: jax.Array) -> Any:
  return _tree.accumulator(leaf.dtype)


def _shared_rows(vectors: Any, labels: _labels.Labels | None):
  """The shared leaves, and the tree with others in their place."""
  leaves, treedef = jax.tree.flatten(vectors)
  flat = _labels.flatten_labels(labels, vectors, None)
  names = _labels.path_names(vectors)
  for name, label, leaf in zip(names, flat, leaves, strict=True):
    if label == _labels.SHARED and _tree.is_complex(leaf):
      raise TypeError(
        f'{name!r} is complex, and complex numbers have no sign to agree on; '
        'use task_arithmetic.'
      )

  def put(new):
    new = iter(new)
    return jax.tree.unflatten(
      treedef,
      [
        next(new) if label == _labels.SHARED else x
        for x, label in zip(leaves, flat, strict=True)
      ],
    )

  of = zip(leaves, flat, strict=True)
  return [x for x, label in of if label == _labels.SHARED], put
