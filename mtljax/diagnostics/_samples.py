"""Gradients of single samples and tasks, compared with each other."""

from __future__ import annotations

from typing import Any

import jax

from mtljax import _labels, _validate
from mtljax.gradients import _pullback, value_and_sample_gramian


def sample_task_gramian(
  fun: _pullback.LossFn,
  params: Any,
  batch: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  num_samples: int = 8,
  chunk_size: int | None = None,
  layerwise: bool = False,
  has_aux: bool = False,
) -> jax.Array:
  r"""Inner products between the gradients of every sample and task.

  .. math:: G_{(s,t),(s',t')} =
     \nabla_{sh} L_t(x_s) \cdot \nabla_{sh} L_{t'}(x_{s'})

  on the shared parameters, over the first S samples of the batch. It answers
  whether tasks disagree more than samples of one task do: give `similarity`
  ``jnp.einsum('stsu->stu', G)`` for the tasks on each sample, and
  ``jnp.einsum('stut->tsu', G)`` for the samples of each task.

  The gradient of one sample is that of ``fun`` on a batch of one. A network
  with batch statistics must be in evaluation mode; the losses must be means
  over samples if their mean is to be the batch's gradient.

  Memory is S T copies of the shared parameters, or, with ``chunk_size`` C, 2 C
  T of them: the Gramian is then made block by block, and the gradients are
  computed S / C + 1 times. Call it inside ``jax.jit``.

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`, called as
      ``fun(params, one_sample, *args)``.
    params: the parameters.
    batch: a tree of arrays with the sample on axis 0 (for a sequence of losses
      one a task).
    *args: the arguments of ``fun`` after the batch.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    gramian_labels: as of `mtljax.value_and_sample_gramian`.
    num_samples: S, at most the batch.
    chunk_size: how many samples' gradients make a block, a divisor of S; None:
      all.
    layerwise: see `mtljax.value_and_sample_gramian`.
    has_aux: whether the functions return ``(loss, aux)``.

  Returns:
    Shape ``(S, T, S, T)``, float32 or wider.

  Raises:
    ValueError: there are fewer samples, ``chunk_size`` does not divide them,
      or no leaf is shared.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import sample_task_gramian
    >>> def task_losses(w, x):
    ...   return jnp.stack([jnp.mean(x @ w), -2 * jnp.mean(x @ w)])
    >>> got = sample_task_gramian(
    ...   task_losses, jnp.ones(2), jnp.eye(2), num_samples=2
    ... )
    >>> print(jnp.einsum('stsu->stu', got)[0])
    [[ 1. -2.]
     [-2.  4.]]
    >>> print(jnp.einsum('stut->tsu', got)[0])
    [[1. 0.]
     [0. 1.]]

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2024.
  """
  samples, chunk = first_samples(batch, num_samples, chunk_size)
  gramian_fn = value_and_sample_gramian(
    fun,
    labels=labels,
    gramian_labels=gramian_labels,
    chunk_size=chunk,
    layerwise=layerwise,
    has_aux=has_aux,
  )
  return gramian_fn(params, samples, *args)[1]


def first_samples(
  batch: Any, num_samples: int, chunk_size: int | None
) -> tuple[Any, int]:
  """The first samples of a batch, and how many are taken at once."""
  _validate.in_range('num_samples', num_samples, 1)
  chunk = num_samples if chunk_size is None else chunk_size
  _validate.in_range('chunk_size', chunk, 1)
  sizes = {x.shape[0] for x in jax.tree.leaves(batch)}
  if len(sizes) != 1 or num_samples > min(sizes):
    raise ValueError(
      f'num_samples={num_samples} needs as many samples on axis 0 of every '
      f'array of the batch, got {sorted(sizes)}.'
    )
  if num_samples % chunk:
    raise ValueError(
      f'chunk_size={chunk} must divide num_samples={num_samples}.'
    )
  return jax.tree.map(lambda x: x[:num_samples], batch), chunk
