"""Task-based flat regions (F-MTL), first form."""

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


class FlatRegionsState(NamedTuple):
  """State of `flat_regions`."""

  loss_state: Any  # of the method on the loss gradients
  flat_state: Any  # of the method on the flat gradients; None if called once


def _rekeyed(state: Any) -> Any:
  """The state with other keys, so that two copies draw different numbers."""

  def rekey(x):
    is_key = isinstance(x, jax.Array) and jnp.issubdtype(
      x.dtype, jax.dtypes.prng_key
    )
    return jax.random.fold_in(x, 1) if is_key else x

  return jax.tree.map(rekey, state)


def flat_regions(
  method: Aggregator,
  *,
  rho_shared: ArrayLike = 0.05,
  rho_task: ArrayLike | None = None,
  ascent: Callable[
    [ArrayLike], optax.GradientTransformation
  ] = _ascent.normalized_ascent,
) -> Aggregator:
  r"""Task-based flat regions: loss and flatness are aggregated apart (F-MTL).

  Each task is perturbed to its own worst point nearby, by two norms: one over
  the shared parameters, one over its own.

  .. math::
     \epsilon^t_{sh} = \rho_{sh} \frac{g^t_{sh}}{\lVert g^t_{sh} \rVert}, \quad
     \epsilon^t_{ns} = \rho_{ns} \frac{g^t_{ns}}{\lVert g^t_{ns} \rVert}, \quad
     g^{t,SAM} = \nabla L_t(\theta_{sh} + \epsilon^t_{sh},
     \theta^t_{ns} + \epsilon^t_{ns})

  .. math::
     d_{sh} = A(g^1_{sh}, \dots, g^T_{sh})
     + A(g^{1,flat}_{sh}, \dots, g^{T,flat}_{sh}), \quad
     g^{t,flat} = g^{t,SAM} - g^t, \quad d^t_{ns} = g^{t,SAM}_{ns}

  The two calls of A keep states of their own and both see the clean losses. A
  method that reads only losses or nothing is called once and its weights serve
  both, so a linear method gives exactly its update on the SAM gradients.
  Heads take their SAM gradients, weighted (if the method weights heads) by
  the call on the loss gradients. Costs 1 + T forward and 2T backward passes
  and T copies of the shared parameters.

  ``update`` needs ``params`` and ``task_grad_fn=`` (see `mtljax.task_grad_fn`,
  on the same batch); `mtljax.training.make_train_step` gives both.

  Args:
    method: the aggregator A.
    rho_shared: radius for the shared parameters, at least 0.
    rho_task: radius for each task's own parameters; None: ``rho_shared``.
    ascent: from a radius to a stateless ascent rule, itself an optax
      transformation.

  Returns:
    The `mtljax.Aggregator`. `mtljax.get_weights` reads the weights of the loss
    gradients.

  Raises:
    TypeError: the method is not an aggregator, or is itself sharpness-aware;
      or ``task_grad_fn`` is missing.
    ValueError: a radius is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 2 * w[1] ** 2])
    >>> tx = mtl.flat_regions(mtl.sum_losses(num_tasks=2), rho_shared=0.1)
    >>> w = jnp.array([1.0, 1.0])
    >>> losses, grads = mtl.value_and_task_grads(task_losses)(w)
    >>> update, _ = tx.update(grads, tx.init(w), w, losses=losses,
    ...                       task_grad_fn=mtl.task_grad_fn(task_losses))
    >>> print(update)
    [2.2 4.4]

  Edge cases:

  ============================== =====================================
  input                          result
  ============================== =====================================
  a task's gradient is zero      it is not perturbed
  parameters in bfloat16         a perturbation shorter than their spacing is
                                 rounded away: keep them in float32
  both radii 0                   flat gradients are zero: the method on
                                 them gives zero or, as IMTL-G, its own
                                 degenerate answer on zero rows
  ============================== =====================================

  References:
    Phan et al., `Improving Multi-task Learning via Seeking Task-based Flat
    Regions <https://arxiv.org/abs/2211.13723>`_, 2022 (ICCV 2025). The
    authors' code uses one radius and, on Multi-MNIST, adaptive perturbations.
  """
  _common.check_inner('flat_regions', method)
  _validate.in_range('rho_shared', rho_shared, 0)
  _validate.in_range('rho_task', rho_task, 0)
  rule_shared = ascent(rho_shared)
  rule_task = ascent(rho_shared if rho_task is None else rho_task)
  num_tasks = method.num_tasks
  once = method.needs <= {'losses'}

  def init_fn(params):
    return FlatRegionsState(
      loss_state=method.init(params),
      flat_state=None if once else _rekeyed(method.init(params)),
    )

  def sam_gradients(leaves, labels, params, treedef, task_grad_fn, task):
    """The gradient leaves of one task at its own worst point nearby."""
    values = jax.tree.leaves(params)
    pairs = list(zip(leaves, values, labels, strict=True))
    shared = [(g[task], p) for g, p, label in pairs if label == _labels.SHARED]
    own = [
      (_common.own_slice(g, label, task), _common.own_slice(p, label, task))
      for g, p, label in pairs
      if label in (task, _labels.STACKED)
    ]

    def moved(rule, pairs):
      grads, params = [g for g, _ in pairs], [p for _, p in pairs]
      return iter(
        _common.add(params, _ascent.perturbation(rule, grads, params))
      )

    moved_shared, moved_own = moved(rule_shared, shared), moved(rule_task, own)
    point = []
    for p, label in zip(values, labels, strict=True):
      if label == _labels.SHARED:
        p = next(moved_shared)
      elif label in (task, _labels.STACKED):
        p = _common.put_slice(p, label, task, next(moved_own))
      point.append(p)
    return task_grad_fn(jax.tree.unflatten(treedef, point), task)[1]

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
    _common.require_params('flat_regions', params)
    leaves, treedef = jax.tree.flatten(updates)
    labels = _labels.flatten_labels(method.labels, updates, num_tasks)
    _checks.check_gradients(updates, labels, num_tasks, params)
    at_sam = _common.stack_tasks(
      [
        sam_gradients(leaves, labels, params, treedef, task_grad_fn, t)
        for t in range(num_tasks)
      ],
      labels,
    )
    extra_args = {**extra_args, 'losses': losses, 'task_mask': task_mask}
    if once:
      update, loss_state = method.update(
        at_sam, state.loss_state, params, **extra_args
      )
      return update, FlatRegionsState(loss_state, None)

    def on_shared(shared_fn, own_fn):
      return jax.tree.unflatten(
        treedef,
        [
          (shared_fn if label == _labels.SHARED else own_fn)(g, s)
          for g, s, label in zip(
            leaves, jax.tree.leaves(at_sam), labels, strict=True
          )
        ],
      )

    loss_update, loss_state = method.update(
      on_shared(lambda g, s: g, lambda g, s: s),
      state.loss_state,
      params,
      **extra_args,
    )
    flat_update, flat_state = method.update(
      on_shared(lambda g, s: s - g, lambda g, s: jnp.zeros_like(s)),
      state.flat_state,
      params,
      **extra_args,
    )
    update = jax.tree.map(jnp.add, loss_update, flat_update)
    return update, FlatRegionsState(loss_state, flat_state)

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=method.labels,
    inner=method,
  )
