"""Checks of what `update` is given, at trace time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree
from mtljax._types import Alignment, Lookahead


def check_gradients(
  updates: Any,
  labels: list[_labels.Label],
  num_tasks: int,
  params: Any | None,
) -> None:
  """Raises ValueError where a leaf's shape does not fit its label.

  And TypeError for one that holds no gradient, such as integers.
  """
  _tree.check_numbers(updates, 'updates')
  leaves = jax.tree.leaves(updates)
  names = _labels.path_names(updates)
  shapes: list[Any] = [None] * len(leaves)
  if params is not None:
    if jax.tree.structure(params) != jax.tree.structure(updates):
      raise ValueError(
        'params and the per-task gradients have different tree structures: '
        f'{jax.tree.structure(params)} and {jax.tree.structure(updates)}.'
      )
    shapes = [p.shape for p in jax.tree.leaves(params)]
  for name, leaf, label, shape in zip(
    names, leaves, labels, shapes, strict=True
  ):
    has_axis = leaf.ndim > 0 and leaf.shape[0] == num_tasks
    if label == _labels.SHARED:
      want = f'(num_tasks={num_tasks}, *{shape or "parameter shape"})'
      ok = has_axis and shape in (None, leaf.shape[1:])
      hint = 'per-task gradients on axis 0, as mtl.value_and_task_grads returns'
    elif label == _labels.STACKED:
      want = f'the parameter shape, with num_tasks={num_tasks} on axis 0'
      ok = has_axis and shape in (None, leaf.shape)
      hint = 'its own axis 0 is the task'
    else:
      want, ok = f'{shape}', shape in (None, leaf.shape)
      hint = f'task {label} owns it, so it has no task axis'
    if not ok and shape and shape == (num_tasks, *leaf.shape):
      hint = 'are these swapped? The order is update(grads, state, params)'
    if not ok:
      raise ValueError(
        f'updates: the gradient of {name!r} (label {label!r}) has shape '
        f'{leaf.shape}; expected {want}: {hint}.'
      )


def checked_mask(mask: Any | None, num_tasks: int) -> jax.Array | None:
  """The mask as an array of bools, or None; ValueError for another shape."""
  if mask is None:
    return None
  mask = jnp.asarray(mask, bool)
  check_task_vector('task_mask', mask, num_tasks)
  return mask


def check_task_vector(name: str, value: jax.Array, num_tasks: int) -> None:
  """Raises ValueError unless ``value`` has shape ``(num_tasks,)``."""
  if value.shape != (num_tasks,):
    raise ValueError(
      f'{name} has shape {value.shape}; expected (num_tasks,) = ({num_tasks},).'
    )


def _real(name: str, value: Any) -> jax.Array:
  """An array of real numbers; TypeError for anything else."""
  try:
    array = jnp.asarray(value)
  except (TypeError, ValueError) as error:
    raise TypeError(f'{name}={value!r} must be an array of numbers.') from error
  if jnp.issubdtype(array.dtype, jnp.floating):
    return array
  if jnp.issubdtype(array.dtype, jnp.integer):
    return array.astype(float)
  raise TypeError(
    f'{name} is an array of {array.dtype.name}; expected real numbers.'
  )


def checked_losses(
  name: str, required: bool, losses: Any, num_tasks: int
) -> jax.Array | None:
  """The losses as an array; TypeError if they are required and missing."""
  if losses is None:
    if required:
      raise TypeError(
        f'{name} reads the task losses: pass update(..., losses=losses).'
      )
    return None
  losses = _real('losses', losses)
  check_task_vector('losses', losses, num_tasks)
  return losses


def checked_cross_gramian(
  name: str, required: bool, cross_gramian: Any, num_tasks: int
) -> jax.Array | None:
  """The cross-Gramian as an array, or None if the method does not read it."""
  if not required:
    return None
  if cross_gramian is None:
    raise TypeError(
      f'{name} compares the gradients of two further batches: pass '
      'update(..., cross_gramian=mtl.cross_gramian(grads_1, grads_2)).'
    )
  cross_gramian = _real('cross_gramian', cross_gramian)
  if cross_gramian.shape != (num_tasks, num_tasks):
    raise ValueError(
      f'cross_gramian has shape {cross_gramian.shape}; expected (num_tasks, '
      f'num_tasks) = ({num_tasks}, {num_tasks}), as mtl.cross_gramian returns.'
    )
  return cross_gramian


def checked_hypergradient(
  name: str, lookahead: Lookahead | None, value: Any, num_tasks: int
) -> jax.Array | None:
  """The hypergradient as an array, or None if the method reads none."""
  if lookahead is None:
    return None
  if value is None:
    raise TypeError(
      f'{name} reads the derivatives of validation losses by the weights: pass '
      'update(..., hypergradient=mtl.hypergradient(...)(...)).'
    )
  value = _real('hypergradient', value)
  tasks = num_tasks if lookahead.primary is None else len(lookahead.primary)
  wanted = (tasks, num_tasks) if lookahead.separate else (num_tasks,)
  if value.shape != wanted:
    raise ValueError(
      f'hypergradient has shape {value.shape}; {name} reads {wanted}: build it '
      f'by mtl.hypergradient(separate={lookahead.separate}, primary='
      f'{lookahead.primary}).'
    )
  return value


def checked_feature_norms(
  name: str, chunks: int | None, value: Any, num_tasks: int
) -> jax.Array | None:
  """The norms at the features as an array, or None if there is no need."""
  if chunks is None:
    return None
  fix = f'mtl.value_and_feature_norms(loss, chunks={chunks})'
  if value is None:
    raise TypeError(
      f'{name} reads the norms of the gradients at the features: pass '
      f'update(..., feature_norms=norms), from {fix}.'
    )
  value = _real('feature_norms', value)
  if value.shape != (num_tasks, chunks):
    raise ValueError(
      f'feature_norms has shape {value.shape}; {name} reads (num_tasks, chunks)'
      f' = ({num_tasks}, {chunks}), from {fix}.'
    )
  return value


def check_alignment_fn(
  name: str, alignment: Alignment | None, value: Any
) -> None:
  """Raises TypeError where the heads' part is read and missing."""
  if alignment is not None and not callable(value):
    raise TypeError(
      f'{name} moves heads by how their gradients at the features agree: pass '
      'update(..., alignment_fn=mtl.alignment_fn(loss, params, batch)).'
    )
