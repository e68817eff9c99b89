"""Tasks that are not present in a step, whose own parameters stand still."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels
from mtljax._types import MaskedBatch
from mtljax.aggregators import _checks
from mtljax.training.step._plan import Plan

#: The metric that says which tasks were there.
PRESENT = 'present'
_NO_PARAMETER = 'no parameter'


def split_mask(plan: Plan, batch: Any) -> tuple[Any, jax.Array | None]:
  """The batch, and the tasks that are present in it; None: all.

  Raises:
    ValueError: the mask is not of shape ``(T,)``, or samples are the tasks.
  """
  if not isinstance(batch, MaskedBatch):
    return batch, None
  if plan.sample_fn is not None:
    raise ValueError(
      "MaskedBatch: with tasks='samples' every sample of the batch is a task, "
      'and all are present; give the step the batch itself.'
    )
  mask = _checks.checked_mask(batch.task_mask, plan.method.num_tasks)
  if plan.layout is not None:
    mask = plan.layout.keep(mask, plan.layout.whole)
  return batch.batch, mask


def without(mask: jax.Array | None, losses: jax.Array) -> jax.Array:
  """The losses, NaN for absent tasks."""
  return losses if mask is None else jnp.where(mask, losses, jnp.nan)


def stand_still(
  optimizer: optax.GradientTransformation,
  labels: Any,
  mask: jax.Array,
  new: tuple[Any, Any],
  old: tuple[Any, Any],
) -> tuple[Any, Any]:
  """What an absent task owns as it was before, the optimizer's of it too.

  Shared parameters are everybody's, and stand still where nobody is there. So
  do not the optimizer's counters, which are of all parameters.

  Args:
    optimizer: whose state it is.
    labels: which task owns which parameter; None: all are shared.
    mask: the tasks present, ``(T,)``.
    new: parameters and optimizer's state after its step.
    old: those before.

  Raises:
    ValueError: it cannot be told what the optimizer keeps of which parameter.
  """
  params, opt_state = new
  flat = _labels.flatten_labels(labels, params, mask.shape[0])
  labels = jax.tree.unflatten(jax.tree.structure(params), flat)
  params = jax.tree.map(
    lambda label, new, old: _of_present(mask, label, new, old),
    labels,
    params,
    old[0],
  )
  try:
    owners = optax.tree.map_params(
      optimizer,
      lambda _, label: label,
      opt_state,
      labels,
      transform_non_params=lambda _: _NO_PARAMETER,
    )
  except Exception as error:
    raise ValueError(
      'optimizer: it cannot be told which part of its state is of which '
      'parameter (optax.tree.map_params fails on it), so that of absent tasks '
      'would not stand still; use another, or batches in which all tasks are '
      f'present. {error}'
    ) from error
  opt_state = jax.tree.map(
    lambda owner, new, old: _of_present(mask, owner, new, old),
    owners,
    opt_state,
    old[1],
  )
  return params, opt_state


def _of_present(mask: jax.Array, owner: Any, new: Any, old: Any) -> Any:
  """The new leaf, or the old one of an owner who is absent."""
  if owner == _NO_PARAMETER:
    return new
  if owner == _labels.STACKED:
    # What has no axis of tasks, such as a factor of it, is of all of them.
    rows = new.ndim > 0 and new.shape[0] == mask.shape[0]
    here = mask.reshape(-1, *[1] * (new.ndim - 1)) if rows else jnp.any(mask)
  else:
    here = jnp.any(mask) if owner == _labels.SHARED else mask[owner]
  return jnp.where(here, new, old)
