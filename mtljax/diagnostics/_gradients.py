"""Conflict between tasks beside conflict between samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree
from mtljax.diagnostics._conflict import similarity
from mtljax.diagnostics._samples import first_samples
from mtljax.gradients import _gramian, _passes, _pullback


class PairConflict(NamedTuple):
  """Four measures of every pair of N gradients, each ``(..., N, N)``.

  Attributes:
    cosine: in [-1, 1]; below zero the gradients conflict.
    magnitude: in [0, 1]; 1 for gradients of one length.
    product: the scalar products.
    sign_ratio: in [0, 1]; the share of coordinates of opposite sign.
  """

  cosine: jax.Array
  magnitude: jax.Array
  product: jax.Array
  sign_ratio: jax.Array


class GradientConflict(NamedTuple):
  """What `gradient_conflict` returns, of the T tasks that it compares.

  Attributes:
    tasks: between tasks on one sample, ``(S, T, T)``.
    samples: between samples of one task, ``(T, S, S)``.
    mean_tasks: between the tasks' gradients on the whole batch, ``(T, T)``.
    mean_samples: between samples, of the mean over tasks, ``(S, S)``.
  """

  tasks: PairConflict
  samples: PairConflict
  mean_tasks: PairConflict
  mean_samples: PairConflict


def gradient_conflict(
  fun: _pullback.LossFn,
  params: Any,
  batch: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  tasks: ArrayLike | None = None,
  num_samples: int = 8,
  chunk_size: int | None = None,
  has_aux: bool = False,
) -> GradientConflict:
  r"""How tasks conflict on one sample, and samples within one task.

  .. math::
     S_{cos} = \frac{g \cdot g'}{\lVert g \rVert \lVert g' \rVert}, \quad
     S_{mag} = \frac{2 \lVert g \rVert \lVert g' \rVert}
     {\lVert g \rVert^2 + \lVert g' \rVert^2}, \quad
     C = \frac{1}{P} \left| \{ p : g_p g'_p < 0 \} \right|

  and :math:`g \cdot g'`, of gradients on the shared parameters: of two tasks
  on one sample, and of two samples in one task, over the first S samples of the
  batch (which is shuffled); then of two tasks on the whole batch, and of two
  samples after a mean over the tasks. If samples of one task differ as much as
  tasks do, the conflict is not one of multi-task learning.

  Memory is S (T + 1) copies of the shared parameters, T being the number of
  ``tasks`` compared, or, with ``chunk_size`` C, 2 C (T + 1) of them: pairs of
  samples are then compared block by block, and the gradients are computed
  S / C + 1 times. The trunk is pulled back for these tasks only. Coordinates
  are counted leaf by leaf. For what a sample's gradient is, see
  `sample_task_gramian`. Call it inside ``jax.jit``.

  ======================= ==================================================
  input                   result
  ======================= ==================================================
  a zero gradient         cosine, magnitude, product and ratio 0 beside it
  a NaN in a gradient     NaN in the pairs that it is part of
  T = 1                   tasks: only the diagonal; the rest as it is
  ======================= ==================================================

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`, called as
      ``fun(params, batch, *args)`` on batches of one and on the whole.
    params: the parameters.
    batch: a tree of arrays with the sample on axis 0 (for a sequence of losses
      one a task).
    *args: the arguments of ``fun`` after the batch.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    gramian_labels: tree of bools, see `mtljax.match_params`: the shared
      parameters whose gradients are compared; None: all of them.
    tasks: indices of the tasks that are compared, and that a mean over tasks is
      taken of, shape ``(T,)``; they may be drawn anew by a key at every call.
      None: all.
    num_samples: S, at most the batch.
    chunk_size: how many samples' gradients make a block, a divisor of S; None:
      all.
    has_aux: whether the functions return ``(loss, aux)``.

  Returns:
    The `GradientConflict`, float32 or wider.

  Raises:
    ValueError: there are fewer samples, ``chunk_size`` does not divide them,
      no leaf is shared, or ``tasks`` are no indices of tasks (traced ones are
      not checked: beyond the last they are the last).

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import gradient_conflict
    >>> def task_losses(w, x):
    ...   return jnp.stack([jnp.mean(x @ w), -2 * jnp.mean(x @ w)])
    >>> got = gradient_conflict(
    ...   task_losses, jnp.ones(2), jnp.eye(2), num_samples=2)
    >>> print(got.tasks.cosine[0, 0, 1], got.tasks.sign_ratio[0, 0, 1])
    -1.0 0.5
    >>> print(got.samples.cosine[0, 0, 1], got.mean_tasks.product[0, 1])
    0.0 -1.0

    Some of many tasks, others with every key:

    >>> import jax
    >>> many = lambda w, x: jnp.mean(x @ w) * jnp.arange(1.0, 21.0)
    >>> some = jax.random.choice(jax.random.key(0), 20, (8,), replace=False)
    >>> got = gradient_conflict(
    ...   many, jnp.ones(2), jnp.eye(2), tasks=some, num_samples=2)
    >>> got.tasks.cosine.shape, got.samples.cosine.shape
    ((2, 8, 8), (8, 2, 2))

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2024, figures 4 and A5 to A7. The
    paper does not say what the ratio is of: here of all shared coordinates.
  """
  samples, chunk = first_samples(batch, num_samples, chunk_size)
  passes = _passes.make_passes('auto')

  def task_rows(part):
    """Leaves ``(T, ...)``, the gradients of the tasks on some samples."""
    pullback = _pullback.make_pullback(
      fun, params, (part, *args), labels=labels, has_aux=has_aux
    )
    some = _check_tasks(tasks, pullback.losses.shape[0])
    marked = _gramian.marked_leaves(pullback, gramian_labels)
    pairs = zip(pullback.rows(passes, some), marked, strict=True)
    rows = [row for row, use in pairs if use]
    if not rows:
      raise ValueError('labels: at least one shared parameter is needed.')
    return rows

  def rows_of(part):
    """Leaves ``(C, T + 1, ...)``: of every sample the tasks and their mean."""
    ones = jax.tree.map(lambda x: x[:, None], part)
    mean = lambda x: jnp.mean(x, axis=1, keepdims=True).astype(x.dtype)
    return [
      jnp.concatenate([x, mean(x)], axis=1) for x in jax.vmap(task_rows)(ones)
    ]

  chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), samples)
  across = jax.vmap(_pairs, in_axes=1)  # over tasks and their mean

  def block_row(part):
    own = rows_of(part)
    within = jax.vmap(_pairs)(
      *([x[:, :-1] for x in own] for _ in range(2))
    )  # over samples
    if chunk == num_samples:
      return within, jax.tree.map(lambda x: x[None], across(own, own))
    return within, jax.lax.map(
      lambda other: across(own, rows_of(other)), chunks
    )

  if chunk == num_samples:
    of_tasks, blocks = jax.tree.map(lambda x: x[None], block_row(samples))
  else:
    of_tasks, blocks = jax.lax.map(block_row, chunks)
  # (chunk, its other, task, sample, sample)
  join = lambda x: jnp.moveaxis(x, (2, 0, 3, 1, 4), (0, 1, 2, 3, 4)).reshape(
    -1, num_samples, num_samples
  )
  batch_rows = task_rows(batch)
  size = sum(_tree.as_real(x)[0].size for x in batch_rows)
  of_samples = _conflict(_Pairs(*map(join, blocks)), size)
  return GradientConflict(
    _conflict(_Pairs(*(x.reshape(-1, *x.shape[2:]) for x in of_tasks)), size),
    jax.tree.map(lambda x: x[:-1], of_samples),
    _conflict(_pairs(batch_rows, batch_rows), size),
    jax.tree.map(lambda x: x[-1], of_samples),
  )


def _check_tasks(tasks: ArrayLike | None, num_tasks: int) -> jax.Array | None:
  """The indices, known to be some where that can be known."""
  if tasks is None:
    return None
  found = jnp.asarray(tasks)
  wrong = found.ndim != 1 or not found.size
  wrong = wrong or not jnp.issubdtype(found.dtype, jnp.integer)
  if not wrong and not isinstance(tasks, jax.Array):
    wrong = min(tasks) < 0 or max(tasks) >= num_tasks
  if wrong:
    raise ValueError(
      f'tasks={tasks} must be some of the indices 0 to {num_tasks - 1}, in one '
      'dimension.'
    )
  return found


class _Pairs(NamedTuple):
  """Of gradients ``(N, ...)`` and ``(M, ...)``, both ``(N, M)``."""

  products: jax.Array
  opposed: jax.Array


def _pairs(rows: list[jax.Array], columns: list[jax.Array]) -> _Pairs:
  """Scalar products, and numbers of coordinates of opposite sign."""
  signs = [
    [jnp.sign(_tree.as_real(x)) for x in leaves] for leaves in (rows, columns)
  ]
  both = [[jnp.abs(x) for x in leaves] for leaves in signs]
  opposed = (_tree.products_of(*both) - _tree.products_of(*signs)) / 2
  return _Pairs(_tree.products_of(rows, columns), opposed)


def _conflict(pairs: _Pairs, size: int) -> PairConflict:
  return PairConflict(*similarity(pairs.products), pairs.opposed / size)
