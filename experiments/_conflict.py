"""Conflict between tasks and between samples, measured inside training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import diagnostics

#: Kinds of pairs, as `mtljax.diagnostics.GradientConflict` names them.
KINDS = diagnostics.GradientConflict._fields
MEASURES = diagnostics.PairConflict._fields


def make_probe(loss: Any, labels: Any, *, num_samples: int = 8):
  """``probe(state, batch) -> {'tasks/cosine': (S, pairs), ...}``.

  Args:
    loss: a loss of a train step with ``has_state=True``. Its network must treat
      the samples of a batch apart from each other: a batch of one has no
      statistics.
    labels: of the parameters.
    num_samples: S, the first of each batch.

  Returns:
    The jitted function. Pairs are those above the diagonal, row by row.
  """

  @jax.jit
  def probe(state, batch):
    found = diagnostics.gradient_conflict(
      loss,
      state.params,
      batch,
      state.model_state,
      jax.random.fold_in(state.key, state.step),
      labels=labels,
      num_samples=num_samples,
      has_aux=True,
    )
    return {
      f'{kind}/{measure}': _pairs(values)
      for kind, group in zip(KINDS, found, strict=True)
      for measure, values in zip(MEASURES, group, strict=True)
    }

  return probe


def _pairs(matrix: jax.Array) -> jax.Array:
  """``(..., N, N)`` above the diagonal, ``(..., N (N - 1) / 2)``."""
  rows, columns = jnp.triu_indices(matrix.shape[-1], 1)
  return matrix[..., rows, columns]
