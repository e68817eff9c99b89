"""Conflict between tasks and between samples, measured inside training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import mtljax as mtl
from mtljax import diagnostics

#: Tasks that are compared at most, as in the paper.
MOST_TASKS = 8
#: Kinds of pairs, as `mtljax.diagnostics.GradientConflict` names them.
KINDS = diagnostics.GradientConflict._fields
MEASURES = diagnostics.PairConflict._fields


def make_probe(
  loss: mtl.Staged,
  labels: Any,
  *,
  num_samples: int = 8,
  num_tasks: int = MOST_TASKS,
):
  """``probe(state, batch) -> {'tasks/cosine': (S, pairs), ...}``.

  Args:
    loss: a loss of a train step with ``has_state=True``. Its network must treat
      the samples of a batch apart from each other: a batch of one has no
      statistics.
    labels: of the parameters.
    num_samples: S, the first of each batch.
    num_tasks: where there are more, so many are drawn at every call, by the
      key and the step of the state, in order and without repetition;
      ``task_indices`` says which.

  Returns:
    The jitted function. Pairs are those above the diagonal, row by row.
  """
  total = len(loss.heads)

  @jax.jit
  def probe(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    drawn = None
    if total > num_tasks:
      draw_key = jax.random.fold_in(key, total)
      drawn = jax.random.choice(draw_key, total, (num_tasks,), replace=False)
      drawn = jnp.sort(drawn)
    found = diagnostics.gradient_conflict(
      loss,
      state.params,
      batch,
      state.model_state,
      key,
      labels=labels,
      tasks=drawn,
      num_samples=num_samples,
      has_aux=True,
    )
    pairs = {
      f'{kind}/{measure}': _pairs(values)
      for kind, group in zip(KINDS, found, strict=True)
      for measure, values in zip(MEASURES, group, strict=True)
    }
    return pairs if drawn is None else pairs | {'task_indices': drawn}

  return probe


def _pairs(matrix: jax.Array) -> jax.Array:
  """``(..., N, N)`` above the diagonal, ``(..., N (N - 1) / 2)``."""
  rows, columns = jnp.triu_indices(matrix.shape[-1], 1)
  return matrix[..., rows, columns]
