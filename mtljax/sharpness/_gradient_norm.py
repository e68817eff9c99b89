"""Penalising each task's gradient norm, around any method."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax._types import Aggregator
from mtljax.aggregators import _checks
from mtljax.sharpness import _common, _points


class GradientNormPenaltyState(NamedTuple):
  """State of `gradient_norm_penalty`."""

  inner_state: Any


def gradient_norm_penalty(
  method: Aggregator,
  *,
  rho: ArrayLike = 0.05,
  alpha: ArrayLike,
  ascent: _points.Ascent = 'plain',
  norms: _points.Norms = 'separate',
  mode: _points.Mode = 'unroll',
) -> Aggregator:
  r"""The method on the losses plus a multiple of their gradients' norms.

  .. math:: d = A(h^1, \dots, h^T), \quad
     h^t = (1 - \alpha) \nabla L_t(\theta)
     + \alpha \nabla L_t(\theta + \epsilon^t)

  with :math:`\epsilon^t` of length :math:`\rho` along the task's own gradient,
  shared parameters and heads by a norm each. To first order in :math:`\rho`
  this is the gradient of :math:`L_t + \lambda (\lVert g^t_{sh} \rVert + \lVert
  g^t_{ns} \rVert)` with :math:`\lambda = \alpha \rho`: in the terms of
  `mtljax.flat_regions`, :math:`h^t = g^t + \alpha g^{t,flat}`. So 0 is the
  plain method and 1 is ``flat_regions(aggregation='direct')``. For a linear
  method the separate form is the same as 1; it differs for others. The paper
  is about one loss; a penalty for each task is our reading for several.

  The method sees the clean losses, and its weights are those of the mixed
  gradients. Heads get their mixed gradients, weighted as the method does. The
  mixture scales with the loss, so the invariance is the method's. ``update``
  needs ``params`` and ``task_grad_fn=``, as `mtljax.flat_regions` does. Costs
  1 + T forward and 2T backward passes.

  Args:
    method: the aggregator A.
    rho: radius, at least 0.
    alpha: share of the gradient at the perturbed point, at least 0 and at most
      1; the penalty's strength is ``alpha * rho``.
    ascent: as for `mtljax.flat_regions`.
    norms: as there.
    mode: as there.

  Returns:
    The `mtljax.Aggregator`.

  Raises:
    TypeError: the method is not an aggregator, is itself sharpness-aware or
      needs two batches; or ``task_grad_fn`` is missing.
    ValueError: an option is out of range or not one of those listed, or the
      parameters are missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 2 * w[1] ** 2])
    >>> tx = mtl.gradient_norm_penalty(mtl.sum_losses(2), rho=0.1, alpha=0.5)
    >>> w = jnp.array([1.0, 1.0])
    >>> losses, grads = mtl.value_and_task_grads(task_losses)(w)
    >>> update, _ = tx.update(grads, tx.init(w), w, losses=losses,
    ...                       task_grad_fn=mtl.task_grad_fn(task_losses))
    >>> print(update)
    [2.1 4.2]

  Edge cases:

  ============================== =====================================
  input                          result
  ============================== =====================================
  ``rho`` or ``alpha`` 0         the plain method, exactly
  a task's gradient is zero      it is not perturbed
  ============================== =====================================

  References:
    Zhao et al., `Penalizing Gradient Norm for Efficiently Improving
    Generalization in Deep Learning <https://arxiv.org/abs/2202.03599>`_, 2022
  """
  _common.check_inner('gradient_norm_penalty', method)
  _validate.refuse_narrow(rho=rho, alpha=alpha)
  _validate.in_range('rho', rho, 0)
  _validate.in_range('alpha', alpha, 0, 1)
  _validate.one_of('mode', mode, _points.MODES)
  perturb = _points.perturb_by_norms(
    'gradient_norm_penalty',
    method,
    rho_shared=rho,
    rho_task=None,
    ascent=ascent,
    norms=norms,
    perturb_heads=True,
  )
  num_tasks = method.num_tasks

  def mix(there, here):
    acc = _tree.accumulator(here.dtype)
    change = there.astype(acc) - here.astype(acc)
    return (here.astype(acc) + alpha * change).astype(here.dtype)

  def init_fn(params):
    return GradientNormPenaltyState(inner_state=method.init(params))

  def update_fn(updates, state, params=None, *, task_grad_fn, **extra_args):
    _common.require_params('gradient_norm_penalty', params)
    leaves, treedef = jax.tree.flatten(updates)
    labels = _labels.flatten_labels(method.labels, updates, num_tasks)
    _checks.check_gradients(updates, labels, num_tasks, params)
    mixed = _points.replace_gradients(
      leaves,
      labels,
      params,
      task_grad_fn,
      num_tasks,
      perturb,
      merge_shared=mix,
      merge_own=mix,
      mode=mode,
      drop=_common.drops(method),
    )
    update, inner_state = method.update(
      jax.tree.unflatten(treedef, mixed),
      state.inner_state,
      params,
      **extra_args,
    )
    return update, GradientNormPenaltyState(inner_state)

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=method.labels,
    gramian_labels=method.gramian_labels,
    inner=method,
  )
