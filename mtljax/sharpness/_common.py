"""What the sharpness methods share: per-task views of labelled trees."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree
from mtljax._types import AT_FEATURES, Aggregator
from mtljax.aggregators import _checks


def check_inner(name: str, method: Any) -> None:
  """Raises TypeError unless the method can be made sharpness-aware."""
  if not isinstance(method, Aggregator):
    raise TypeError(
      f'{name}(method={type(method).__name__}): method must be an aggregator '
      'such as mtl.cagrad(num_tasks=2); put the optimizer after it in '
      'optax.chain.'
    )
  if method.info.is_optimizer:
    raise TypeError(
      f'{name}: {method.info.name} returns steps, not an update of gradients; '
      'use it without.'
    )
  if 'task_grads' in method.needs:
    raise TypeError(
      f'{name}: method is already sharpness-aware ({method.info.name}); wrap '
      'a plain aggregator once.'
    )
  if 'hypergradient' in method.needs:
    raise TypeError(
      f'{name}: {method.info.name} learns its weights by a step ahead, which '
      'would have to be taken at perturbed parameters too; use it without.'
    )
  if AT_FEATURES & method.needs:
    raise TypeError(
      f'{name}: {method.info.name} reads gradients at the features, which '
      'would have to be taken at perturbed parameters too; use it without.'
    )
  if 'cross_gramian' in method.needs:
    raise TypeError(
      f'{name}: {method.info.name} compares the gradients of two further '
      'batches, which would have to be taken at perturbed parameters too; use '
      'it without.'
    )


def drops(method: Aggregator) -> bool:
  """Whether the method looks for tasks to drop."""
  conventions = method.conventions
  return conventions is not None and conventions.nonfinite == 'drop_task'


def reads_no_gradients(method: Aggregator) -> bool:
  """Whether its weights are of the losses alone, or of nothing."""
  # What `mtljax.inject_hyperparams` makes keeps the rule inside.
  said = method if method.inner is None else method.inner
  return said.weighting is not None and said.needs <= {'losses'}


def refuse_drop_task(name: str, method: Aggregator) -> None:
  """Raises ValueError if the method looks for tasks to drop."""
  if drops(method):
    raise ValueError(
      f"{name}(method built with nonfinite='drop_task'): the gradient of the "
      f'sum, along which {name} moves, has no tasks to drop; use '
      "nonfinite='propagate' or mtl.flat_regions."
    )


def require_params(name: str, params: Any) -> None:
  """Raises ValueError if the parameters were not passed to ``update``."""
  if params is None:
    raise ValueError(
      f'{name} perturbs the parameters: pass them, update(grads, state, '
      'params, ...).'
    )


def add(params: Any, epsilon: Any) -> Any:
  """``params + epsilon``, in the parameters' dtypes."""
  return jax.tree.map(lambda p, e: p + e.astype(p.dtype), params, epsilon)


def _is_key(x: Any) -> bool:
  return isinstance(x, jax.Array) and jnp.issubdtype(
    x.dtype, jax.dtypes.prng_key
  )


def keys_of(state: Any) -> list[jax.Array]:
  """The keys in a state."""
  return [x for x in jax.tree.leaves(state) if _is_key(x)]


def rekeyed(state: Any, number: int, key: jax.Array | None = None) -> Any:
  """The state with other keys, so that copies of it draw other numbers."""
  return jax.tree.map(
    lambda x: (
      jax.random.fold_in(x if key is None else key, number) if _is_key(x) else x
    ),
    state,
  )


def choose(pred: jax.Array, new: Any, old: Any) -> Any:
  """The new state where the predicate holds, else the old one."""
  return jax.tree.map(lambda a, b: jnp.where(pred, a, b), new, old)


def any_nonzero(
  leaves: Sequence[jax.Array], mask: jax.Array | None = None
) -> jax.Array:
  """Whether any number is not 0, in the rows of the tasks present."""
  found = jnp.zeros((), bool)
  for x in leaves:
    found = found | jnp.any(_tree.present(mask, x != 0))
  return found


def own_slice(
  leaf: jax.Array, label: _labels.Label, task: int
) -> jax.Array | None:
  """The part of an unshared leaf that belongs to the task, or None."""
  if label == task:
    return leaf
  return leaf[task] if label == _labels.STACKED else None


def put_slice(
  leaf: jax.Array, label: _labels.Label, task: int, value: jax.Array
) -> jax.Array:
  """The leaf with the task's part replaced."""
  if label == _labels.STACKED:
    return leaf.at[task].set(value.astype(leaf.dtype))
  return value.astype(leaf.dtype)


def present_tasks(
  updates: Any, labels: Sequence[_labels.Label], mask: jax.Array | None
) -> list[jax.Array]:
  """The leaves of per-task gradients, absent tasks' as zeros."""
  leaves = jax.tree.leaves(updates)
  if mask is None:
    return leaves

  def present(leaf, label):
    rows = label in (_labels.SHARED, _labels.STACKED)
    return _tree.present(mask if rows else mask[label], leaf)

  return [present(x, label) for x, label in zip(leaves, labels, strict=True)]


def summed_gradients(
  method: Aggregator, updates: Any, params: Any, mask: Any | None
) -> Any:
  """The gradient of the sum of the losses of the tasks present."""
  labels = _labels.flatten_labels(method.labels, updates, method.num_tasks)
  _checks.check_gradients(updates, labels, method.num_tasks, params)
  mask = _checks.checked_mask(mask, method.num_tasks)
  return jax.tree.unflatten(
    jax.tree.structure(updates),
    [
      jnp.sum(x, axis=0) if label == _labels.SHARED else x
      for x, label in zip(
        present_tasks(updates, labels, mask), labels, strict=True
      )
    ],
  )


def stack_tasks(grads: Sequence[Any], labels: Sequence[_labels.Label]) -> Any:
  """Per-task gradient trees, each of the parameters' shapes, as one tree.

  Owned leaves hold the sum over tasks: others than the owner may read them.
  """
  per_task = [jax.tree.leaves(g) for g in grads]

  def gather(i, label):
    rows = [leaves[i] for leaves in per_task]
    if label == _labels.SHARED:
      return jnp.stack(rows)
    return functools.reduce(jnp.add, rows)

  return jax.tree.unflatten(
    jax.tree.structure(grads[0]),
    [gather(i, label) for i, label in enumerate(labels)],
  )
