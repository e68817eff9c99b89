"""Sharpness-aware minimization of the summed loss, around any method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _labels, _validate
from mtljax._types import Aggregator
from mtljax.aggregators import _checks
from mtljax.sharpness import _ascent, _common


class SamState(NamedTuple):
  """State of `sam`."""

  inner_state: Any


def sam(
  method: Aggregator,
  *,
  rho: ArrayLike = 0.05,
  ascent: Callable[
    [ArrayLike], optax.GradientTransformation
  ] = _ascent.normalized_ascent,
) -> Aggregator:
  r"""The method at one point that is worst for the sum of the losses (G-SAM).

  .. math:: \epsilon = \rho \, \bar g / \lVert \bar g \rVert, \quad
     \bar g = \sum_t \nabla L_t(\theta), \quad
     d = A\bigl(\nabla L_1(\theta + \epsilon), \dots,
     \nabla L_T(\theta + \epsilon)\bigr)

  One norm over all parameters, heads included. The method sees the losses at
  the perturbed point. ``update`` needs ``params`` and ``task_grad_fn=`` (see
  `mtljax.task_grad_fn`); in `mtljax.training.make_train_step` both are given,
  and any route may be used.

  Args:
    method: the aggregator A.
    rho: radius, at least 0; 0 is the plain method.
    ascent: from a radius to a stateless ascent rule, itself an optax
      transformation.

  Returns:
    The `mtljax.Aggregator`.

  Raises:
    TypeError: the method is not an aggregator, or is itself sharpness-aware.
    ValueError: rho is negative, or the method drops non-finite tasks.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 2 * w[1] ** 2])
    >>> tx = mtl.sam(mtl.mean(num_tasks=2), rho=0.1)
    >>> w = jnp.array([1.0, 0.0])
    >>> losses, grads = mtl.value_and_task_grads(task_losses)(w)
    >>> update, _ = tx.update(grads, tx.init(w), w, losses=losses,
    ...                       task_grad_fn=mtl.task_grad_fn(task_losses))
    >>> print(update)
    [1.1 0. ]

  References:
    Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
    Generalization <https://arxiv.org/abs/2010.01412>`_, 2021; with
    multi-task methods as G-SAM: Ban et al., `SAMO
    <https://arxiv.org/abs/2507.07883>`_, 2025
  """
  _common.check_inner('sam', method)
  if method.conventions and method.conventions.nonfinite == 'drop_task':
    raise ValueError(
      "sam(method built with nonfinite='drop_task'): the gradient of the sum, "
      "along which sam moves, has no tasks to drop; use nonfinite='propagate' "
      'or mtl.flat_regions.'
    )
  _validate.in_range('rho', rho, 0)
  rule = ascent(rho)
  num_tasks = method.num_tasks

  def init_fn(params):
    return SamState(inner_state=method.init(params))

  def perturb(params, summed_grads):
    epsilon = _ascent.perturbation(rule, summed_grads, params)
    return _common.add(params, epsilon)

  def update_fn(
    updates,
    state,
    params=None,
    *,
    task_grad_fn,
    losses=None,
    task_mask=None,
    **extra_args,
  ):
    del losses  # the method sees those at the perturbed point
    _common.require_params('sam', params)
    flat = _labels.flatten_labels(method.labels, updates, num_tasks)
    _checks.check_gradients(updates, flat, num_tasks, params)
    task_mask = _checks.checked_mask(task_mask, num_tasks)
    tasks = _common.present_tasks(updates, flat, task_mask)
    summed = jax.tree.unflatten(
      jax.tree.structure(updates),
      [
        jnp.sum(x, axis=0) if label == _labels.SHARED else x
        for x, label in zip(tasks, flat, strict=True)
      ],
    )
    point = perturb(params, summed)
    values, grads = zip(
      *[task_grad_fn(point, t) for t in range(num_tasks)], strict=True
    )
    update, inner_state = method.update(
      _common.stack_tasks(grads, flat),
      state.inner_state,
      params,
      losses=jnp.stack(values),
      task_mask=task_mask,
      **extra_args,
    )
    return update, SamState(inner_state)

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=method.labels,
    inner=method,
    perturb=perturb,
  )
