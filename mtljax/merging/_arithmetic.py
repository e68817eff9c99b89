"""Task vectors, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _params, _tree, _validate


def task_vectors(
  base: Any, models: Sequence[Any], *, labels: _labels.Labels | None = None
) -> Any:
  """What each task's training has added to the parameters.

  They have the form of per-task gradients, so `mtljax.gramian` and
  `mtljax.cosines` compare them, and any method makes one update of them.

  Args:
    base: the parameters that all began at, a tree of arrays.
    models: a tree like it for each of T tasks, trained on that task alone.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.

  Returns:
    A tree like ``base``: shared leaves ``(T, *p.shape)``, the others as their
    owners have them, of stacked leaves row t from task t. In the dtype of
    ``base``.

  Raises:
    ValueError: there is no model, or one has another structure or shape.
    TypeError: a leaf is no array of floating or complex numbers.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> from mtljax import merging
    >>> base = {'w': jnp.array([1.0, 1.0])}
    >>> models = [{'w': jnp.array([2.0, 1.0])}, {'w': jnp.array([1.0, 0.0])}]
    >>> vectors = merging.task_vectors(base, models)
    >>> print(vectors['w'])
    [[ 1.  0.]
     [ 0. -1.]]
    >>> print(mtl.gramian(vectors))
    [[1. 0.]
     [0. 1.]]

  References:
    Ilharco et al., `Editing Models with Task Arithmetic
    <https://arxiv.org/abs/2212.04089>`_, 2023
  """
  check_models(base, models)
  flat = _labels.flatten_labels(labels, base, len(models))
  leaves, treedef = jax.tree.flatten(base)
  trained = list(zip(*map(jax.tree.leaves, models), strict=True))

  def vector(label, leaf, of_tasks):
    stacked = jnp.stack([jnp.asarray(x).astype(leaf.dtype) for x in of_tasks])
    if label == _labels.SHARED:
      return stacked - leaf[None]
    if label == _labels.STACKED:
      rows = jnp.arange(len(models))
      return stacked[rows, rows] - leaf
    return stacked[label] - leaf

  found = [vector(*x) for x in zip(flat, leaves, trained, strict=True)]
  return jax.tree.unflatten(treedef, found)


def check_models(base: Any, models: Sequence[Any]) -> None:
  """Raises ValueError or TypeError for models that are not like the base."""
  _params.check_params(base)
  if not isinstance(models, Sequence) or not models:
    raise ValueError(
      f'models={models!r} must be a list of trees like base, one a task.'
    )
  names = _labels.path_names(base)
  for t, model in enumerate(models):
    _params.check_params(model)
    if jax.tree.structure(model) != jax.tree.structure(base):
      raise ValueError(
        f'models[{t}] has the structure {jax.tree.structure(model)} and base '
        f'{jax.tree.structure(base)}; all must be trained from the base.'
      )
    leaves = jax.tree.leaves(base), jax.tree.leaves(model)
    for name, there, here in zip(names, *leaves, strict=True):
      if jnp.shape(there) != jnp.shape(here):
        raise ValueError(
          f'models[{t}]: {name!r} has shape {jnp.shape(here)}, and '
          f'{jnp.shape(there)} in base; all must be trained from the base.'
        )


def add_vectors(
  base: Any, vectors: Any, weights: Any, labels: _labels.Labels | None
) -> Any:
  """The base and weighted vectors; what a task owns is as it has it.

  Args:
    base: the parameters that all began at.
    vectors: of `task_vectors`, shared leaves ``(T, ...)``.
    weights: ``(T,)``, or one for each leaf in flattening order.
    labels: see `task_vectors`.
  """
  leaves, treedef = jax.tree.flatten(vectors)
  of_leaves = weights if isinstance(weights, list) else [weights] * len(leaves)
  flat = _labels.flatten_labels(labels, base, of_leaves[0].shape[0])

  found = [
    _tree.combine_leaf(weight, row) if label == _labels.SHARED else row
    for label, weight, row in zip(flat, of_leaves, leaves, strict=True)
  ]
  return jax.tree.map(jnp.add, base, jax.tree.unflatten(treedef, found))


def task_arithmetic(
  base: Any,
  models: Sequence[Any],
  *,
  scale: ArrayLike = 0.3,
  labels: _labels.Labels | None = None,
) -> Any:
  r"""Adds up what each task's training has added.

  .. math:: \theta = \theta_0 + \lambda \sum_t (\theta_t - \theta_0)

  With :math:`\lambda = 1 / T` it is the mean of the networks. The scale is
  chosen on validation data.

  Args:
    base: the parameters that all began at, a tree of arrays.
    models: a tree like it for each of T tasks, trained on that task alone.
    scale: :math:`\lambda`, a number or one a task, ``(T,)``.
    labels: see `task_vectors`; what a task owns comes from its own model.

  Returns:
    Parameters like ``base``, in its dtypes.

  Raises:
    ValueError: as `task_vectors`, or the scale has another shape.
    TypeError: as `task_vectors`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax import merging
    >>> models = [jnp.array([2.0, 1.0]), jnp.array([1.0, 0.0])]
    >>> print(merging.task_arithmetic(jnp.ones(2), models, scale=0.5))
    [1.5 0.5]

  References:
    Ilharco et al., `Editing Models with Task Arithmetic
    <https://arxiv.org/abs/2212.04089>`_, 2023; 0.3 is their choice for eight
    tasks.
  """
  vectors = task_vectors(base, models, labels=labels)
  weights = per_task('scale', scale, len(models))
  return add_vectors(base, vectors, weights, labels)


def per_task(name: str, value: ArrayLike, num_tasks: int) -> jax.Array:
  """A number, or one a task, as ``(T,)``."""
  _validate.refuse_narrow(**{name: value})
  array = jnp.asarray(value, float)
  if array.shape not in ((), (num_tasks,)):
    raise ValueError(
      f'{name} has shape {array.shape}; expected a number, or ({num_tasks},), '
      'one a task.'
    )
  return jnp.broadcast_to(array, (num_tasks,))
