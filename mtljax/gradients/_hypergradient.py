"""Derivatives of validation losses by the weights of a step before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import HYPERGRADIENTS, Hypergradient
from mtljax.gradients import _pullback
from mtljax.gradients._pullback import LossFn, Pullback

# How far the points of a finite difference are from the middle: the authors'.
_REACH = 0.01


def _weighted(pullback: Pullback, weights: jax.Array) -> Any:
  """The gradient of the weighted sum of the losses."""
  return pullback.split.merge(pullback.combined(weights), pullback.own(weights))


def _moved(params: Any, size: jax.Array, direction: Any) -> Any:
  return jax.tree.map(
    lambda p, d: p + _tree.scale_leaf(size, d).astype(p.dtype),
    params,
    direction,
  )


def _along(
  losses_fn: Callable[[Any], jax.Array],
  params: Any,
  direction: Any,
  hypergradient: Hypergradient,
) -> jax.Array:
  """The losses' derivatives along a direction, shape ``(T,)``."""
  if hypergradient == 'exact':
    return jax.jvp(losses_fn, (params,), (direction,))[1]
  norm = _tree.norm(jax.tree.leaves(direction))
  size = _REACH / jnp.where(norm > 0, norm, 1)
  above = losses_fn(_moved(params, size, direction))
  below = losses_fn(_moved(params, -size, direction))
  slope = (above - below) / (2 * _REACH)
  # Not the quotient by a size that overflows where the direction is short.
  return slope * norm.astype(slope.dtype)


def hypergradient_rows(
  losses_fn: Callable[[Any], jax.Array],
  pull: Callable[[Any], Pullback],
  val_pull: Callable[[Any], Pullback],
  params: Any,
  weights: jax.Array,
  counted: Sequence[jax.Array],
  inner_learning_rate: ArrayLike,
  hypergradient: Hypergradient,
) -> jax.Array:
  """A row for each entry of ``counted``, shape ``(R, T)``.

  Args:
    losses_fn: from parameters to the training losses ``(T,)``.
    pull: from parameters to their pullback.
    val_pull: likewise of the validation losses.
    params: the parameters.
    weights: of the losses in the step ahead, ``(T,)``.
    counted: each ``(T,)``: how the validation losses are added up.
    inner_learning_rate: of the step ahead.
    hypergradient: how, see `hypergradient`.
  """
  rate = jnp.asarray(inner_learning_rate, weights.dtype)
  step = _tree.conjugate(_weighted(pull(params), weights))
  after = val_pull(_moved(params, -rate, step))
  rows = [
    _along(
      losses_fn, params, _tree.conjugate(_weighted(after, c)), hypergradient
    )
    for c in counted
  ]
  return -rate * jnp.stack(rows).astype(rate.dtype)


def counted_losses(
  num_tasks: int,
  primary: tuple[int, ...] | None,
  separate: bool,
  mask: jax.Array | None = None,
) -> list[jax.Array]:
  """Vectors by which the validation losses of primary tasks are added up."""
  tasks = range(num_tasks) if primary is None else primary
  rows = [jax.nn.one_hot(t, num_tasks, dtype=float) for t in tasks]
  rows = rows if separate else [sum(rows[1:], start=rows[0])]
  return [_tree.present(mask, row) for row in rows]


def hypergradient(
  fun: LossFn,
  *,
  inner_learning_rate: ArrayLike,
  primary: Sequence[int] | None = None,
  separate: bool = False,
  hypergradient: Hypergradient = 'exact',
  has_aux: bool = False,
) -> Callable[..., jax.Array]:
  r"""How validation losses after a step answer to the tasks' weights in it.

  .. math:: h_t = \frac{\partial}{\partial w_t} \sum_{p \in P}
     L^{\mathrm{val}}_p\Big(\theta - \eta \sum_s w_s \nabla L_s(\theta)\Big)
     = -\eta\, \left\langle \nabla L_t(\theta), \sum_{p \in P}
     \nabla L^{\mathrm{val}}_p(\theta') \right\rangle

  What `mtljax.auto_lambda` and `mtljax.moml` read;
  `mtljax.training.make_train_step` takes it itself. The step ahead is one of
  gradient descent, so no second derivative is in it: the inner products are
  derivatives of the training losses along one direction, ``'exact'`` by
  forward-mode differentiation, ``'finite_difference'`` by two evaluations at
  :math:`\pm 0.01` along its unit vector, the authors' way, for losses that
  have a `jax.custom_vjp`. Costs beside these one backward pass at
  :math:`\theta` and one at :math:`\theta'`.

  Args:
    fun: the losses, in one of the forms of `mtljax.value_and_task_grads`.
    inner_learning_rate: :math:`\eta`, at least 0.
    primary: P, indices of tasks; None: all.
    separate: whether every primary task has a row of its own.
    hypergradient: see above.
    has_aux: whether the functions return ``(loss, aux)``.

  Returns:
    ``fn(params, weights, args, val_args)``: ``args`` is the tuple of what
    ``fun`` is called with after the parameters, ``val_args`` that of the
    validation batch. It returns :math:`h` ``(T,)``; of ``separate`` losses
    ``(P, T)``.

  Raises:
    ValueError: an argument is not valid; ``primary`` when called.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w, x):
    ...   return jnp.stack([(w - x) ** 2, (w + x) ** 2])
    >>> fn = mtl.hypergradient(
    ...   task_losses, inner_learning_rate=0.1, primary=[0])
    >>> print(fn(jnp.array(0.0), jnp.array([0.5, 0.5]), (1.0,), (2.0,)))
    [-0.8  0.8]

  References:
    Liu et al., `Auto-Lambda: Disentangling Dynamic Task Relationships
    <https://arxiv.org/abs/2202.03091>`_, 2022
  """
  _validate.in_range('inner_learning_rate', inner_learning_rate, 0)
  _validate.flag('separate', separate)
  _validate.one_of('hypergradient', hypergradient, HYPERGRADIENTS)
  tasks = _validate.tasks('primary', primary)

  def hypergradient_fn(params, weights, args, val_args):
    weights = jnp.asarray(weights, float)
    if weights.ndim != 1:
      raise ValueError(f'weights has shape {weights.shape}; pass (T,).')
    size = weights.shape[0]
    _validate.tasks('primary', tasks, size)

    def pull_of(args):
      return lambda params: _pullback.make_pullback(
        fun, params, args, labels=None, has_aux=has_aux
      )

    rows = hypergradient_rows(
      lambda p: _pullback.task_losses(fun, p, args, has_aux=has_aux),
      pull_of(args),
      pull_of(val_args),
      params,
      weights,
      counted_losses(size, tasks, separate),
      inner_learning_rate,
      hypergradient,
    )
    return rows if separate else rows[0]

  return hypergradient_fn
