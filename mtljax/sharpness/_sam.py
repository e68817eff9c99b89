"""Sharpness-aware minimization of the summed loss, around any method."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
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
  ascent: _ascent.Ascent = 'plain',
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
    ascent: ``'plain'``, ``'adaptive'`` or a function of the radius, as for
      `mtljax.flat_regions`.

  Returns:
    The `mtljax.Aggregator`.

  Raises:
    TypeError: the method is not an aggregator, or is itself sharpness-aware.
    ValueError: rho is negative, the ascent is not known, or the method drops
      non-finite tasks.

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
  _common.refuse_drop_task('sam', method)
  _validate.refuse_narrow(rho=rho)
  _validate.in_range('rho', rho, 0)
  rule = _ascent.make_rule(ascent, rho)
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
    task_mask = _checks.checked_mask(task_mask, num_tasks)
    summed = _common.summed_gradients(method, updates, params, task_mask)
    labels = _labels.flatten_labels(method.labels, updates, num_tasks)
    point = perturb(params, summed)
    values, grads = zip(
      *[task_grad_fn(point, t) for t in range(num_tasks)], strict=True
    )
    update, inner_state = method.update(
      _common.stack_tasks(grads, labels),
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
    gramian_labels=method.gramian_labels,
    inner=method,
    perturb=perturb,
  )
