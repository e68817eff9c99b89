"""Every sample a task: instance-wise risk minimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mtljax import _labels, _validate
from mtljax._types import AT_FEATURES, Aggregator
from mtljax.gradients import _outputs, _pullback, _samples
from mtljax.gradients._pullback import LossFn

Tasks = Literal['losses', 'samples']
TASKS = ('losses', 'samples')


def check(method: Aggregator, route: str, **options: Any) -> None:
  """Raises ValueError where samples cannot be the tasks.

  Args:
    method: the aggregator.
    route: as asked for.
    **options: others, none of which may be given.
  """
  for name, value in options.items():
    if value:
      raise ValueError(
        f"tasks='samples' with {name}={value!r}: a sample's loss is a function "
        f'of the parameters and the batch alone, on one device; leave {name} '
        'out.'
      )
  name = method.info.name
  if route == 'features':
    raise ValueError(
      "route='features': with tasks='samples' gradients at the features are "
      "those of different samples; use 'layerwise', 'gramian' or 'jacobian'."
    )
  for need in ('cross_gramian', 'hypergradient', 'task_grads'):
    if need in method.needs:
      raise ValueError(
        f"tasks='samples': {name} reads {need}, of several batches or at "
        'several points, where a sample is no longer one task.'
      )
  if AT_FEATURES & method.needs:
    raise ValueError(
      f"tasks='samples': {name} reads gradients at the features of all "
      'samples, where a sample is no longer one task.'
    )
  owned = [x for x in jax.tree.leaves(method.labels) if x != _labels.SHARED]
  if owned:
    raise ValueError(
      f"tasks='samples': labels give parameters to {owned[0]!r}, and no sample "
      'owns any; build the method without labels, and narrow the Gramian by '
      'gramian_labels.'
    )


def split(
  fun: LossFn, tasks: Tasks
) -> tuple[LossFn, Callable[..., jax.Array] | None]:
  """The losses of the tasks; and where these are samples, that of one.

  Raises:
    ValueError: ``tasks`` is not known, or the losses have no one pass.
  """
  _validate.one_of('tasks', tasks, TASKS)
  if tasks == 'losses':
    return fun, None
  sample_fn = as_sample_fn(fun)
  return as_loss_fn(sample_fn), sample_fn


def as_sample_fn(fun: LossFn) -> Callable[..., jax.Array]:
  """The loss ``(1,)`` of a batch: a scalar's, or the sum of the tasks'."""
  _pullback.check_one_pass(fun, "tasks='samples'")

  def sample_fn(params, batch):
    if callable(fun):
      losses = jnp.asarray(fun(params, batch))
      losses = losses[None] if losses.ndim == 0 else losses
      return jnp.sum(_outputs.vector(losses))[None]
    return jnp.sum(_pullback.task_losses(fun, params, (batch,), has_aux=False))[
      None
    ]

  return sample_fn


def as_loss_fn(sample_fn: Callable[..., jax.Array]) -> LossFn:
  """The losses ``(S,)`` of a batch."""
  return lambda params, batch: _samples.losses_of_samples(
    sample_fn, params, batch
  )
