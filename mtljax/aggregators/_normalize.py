"""Per-task gradients brought to one length, before they are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _tree, _validate
from mtljax.aggregators import _checks


def _divided(rows: jax.Array, sizes: jax.Array) -> jax.Array:
  """Each row over its size, in the accumulator's dtype."""
  sizes = sizes.reshape(sizes.shape + (1,) * (rows.ndim - 1))
  return rows.astype(_tree.accumulator(rows.dtype)) / sizes


def _row_norms(rows: Sequence[jax.Array], num_tasks: int) -> jax.Array:
  """The norm of every task's row over all leaves, shape ``(T,)``.

  Taken relative to the largest entry, so that no square leaves the range.
  """
  rows = [_tree.as_real(x) for x in rows]
  axes = [tuple(range(1, x.ndim)) for x in rows]
  peak = jnp.zeros((num_tasks,), jnp.float32)
  for x, axis in zip(rows, axes, strict=True):
    largest = jnp.max(jnp.abs(x), axis=axis, initial=0)
    peak = jnp.maximum(peak, largest.astype(_tree.accumulator(x.dtype)))
  unit = jnp.where(peak > 0, peak, 1)

  total = sum(
    jnp.sum(jnp.square(_divided(x, unit)), axis=axis)
    for x, axis in zip(rows, axes, strict=True)
  )
  return unit * jnp.sqrt(total)


def normalize_tasks(
  num_tasks: int,
  *,
  normalize: Literal['l2', 'loss', 'loss+'] = 'l2',
  labels: _labels.Labels | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Divides each task's shared gradient by its length, its loss, or both.

  .. math:: \hat g_t = \frac{g_t}{\|g_t\|}, \quad \frac{g_t}{L_t} \quad
     \text{or} \quad \frac{g_t}{L_t \|g_t\|}

  One norm over all shared parameters of a task; its heads' gradients are left
  alone. It stands before an aggregator in `optax.chain`, and the method then
  sees, and combines, the changed gradients. (``mgda(normalize=)`` uses the same
  rules only to find the weights, which then apply to the gradients as they
  are.) It is not for `mtljax.training.make_train_step`, which takes a method
  alone.

  ============================== =====================================
  input                          result
  ============================== =====================================
  a zero gradient                zero, whatever the loss
  a loss of zero or below        NaN, by ``'loss'`` and ``'loss+'``
  NaN or infinity in a gradient  NaN for that task
  an absent task                 what it holds is changed too: the
                                 aggregator leaves it out
  ============================== =====================================

  Args:
    num_tasks: T, a Python int.
    normalize: by ``'l2'``, ``'loss'`` or ``'loss+'``: the three above. The last
      two read the losses: ``update(..., losses=losses)``.
    labels: see `mtljax.label_params`; None: all leaves are shared.

  Returns:
    An `optax.GradientTransformationExtraArgs` on per-task gradients, without
    state.

  Raises:
    ValueError: ``normalize`` is not known; or, when traced, a gradient's shape
      does not fit its label.
    TypeError: when traced, the losses are needed and missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> tx = optax.chain(mtl.normalize_tasks(2), mtl.mean(2), optax.sgd(1.0))
    >>> grads = jnp.array([[3.0, 4.0], [0.0, 0.2]])
    >>> updates, _ = tx.update(grads, tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-0.3 -0.9]

  References:
    Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
    <https://arxiv.org/abs/1810.04650>`_, 2018: the names of the rules, in its
    code
  """
  num_tasks = _validate.num_tasks(num_tasks)
  _validate.one_of('normalize', normalize, ('l2', 'loss', 'loss+'))
  by_loss = normalize in ('loss', 'loss+')

  def init_fn(params):
    del params
    return optax.EmptyState()

  def update_fn(updates, state, params=None, *, losses=None, **extra_args):
    del extra_args
    leaves, treedef = jax.tree.flatten(updates)
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    _checks.check_gradients(updates, flat, num_tasks, params)
    losses = _checks.checked_losses(
      'normalize_tasks', by_loss, losses, num_tasks
    )
    shared = [
      x
      for x, label in zip(leaves, flat, strict=True)
      if label == _labels.SHARED
    ]
    if not shared:
      return updates, state
    norms = _row_norms(shared, num_tasks)
    size = jnp.ones_like(norms) if normalize == 'loss' else norms
    if by_loss:
      size = size * jnp.where(losses > 0, losses, jnp.nan).astype(norms.dtype)
    size = jnp.where(norms == 0, 1, size)

    leaves = [
      _divided(x, size).astype(x.dtype) if label == _labels.SHARED else x
      for x, label in zip(leaves, flat, strict=True)
    ]
    return jax.tree.unflatten(treedef, leaves), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
