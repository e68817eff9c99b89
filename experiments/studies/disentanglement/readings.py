"""The readings of Feature Disentanglement, measured inside training."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from experiments.lab.problem import Problem
from experiments.report import files
from mtljax import diagnostics

#: Options of `diagnostics.feature_disentanglement` by name.
READINGS: dict[str, dict[str, Any]] = {
  f'fd/{per}.{measure}{".balanced" if balanced else ""}': {
    'per': per,
    'measure': measure,
    'balanced': balanced,
  }
  for per, measure, balanced in (
    ('feature', 'cosine', False),
    ('feature', 'jensen_shannon', False),
    ('feature', 'jaccard', False),
    ('feature', 'entropy', False),
    ('feature', 'cosine', True),
    ('feature', 'entropy', True),
    ('task', 'cosine', False),
    ('task', 'jensen_shannon', False),
    ('task', 'jaccard', False),
  )
}
MEASURES = (*READINGS, 'cosine', 'magnitude')


def make_probe(
  problem: Problem,
) -> Callable[[Any, Any], Mapping[str, jax.Array]]:
  """``probe(state, batch) -> {'fd/feature.cosine': (), ...}``, jitted.

  All on the batch that is trained on next: disentanglement at the features of
  the trunk, mean cosine and mean magnitude similarity over pairs of tasks of
  gradients on the shared parameters.
  """
  sharings = problem.sharings
  gramian_fn = mtl.value_and_gramian(
    problem.loss,
    labels=sharings.labels,
    gramian_labels=sharings.gramian_labels,
    has_aux=True,
  )

  @jax.jit
  def probe(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    saliency = diagnostics.feature_saliency(
      problem.loss,
      state.params,
      batch,
      state.model_state,
      key,
      labels=sharings.labels,
      has_aux=True,
    )
    gramian = gramian_fn(state.params, batch, state.model_state, key)[1]
    pairs = diagnostics.similarity(gramian)
    rows, columns = jnp.triu_indices(len(problem.tasks), 1)
    return {
      name: diagnostics.feature_disentanglement(saliency, **options)
      for name, options in READINGS.items()
    } | {
      name: jnp.mean(getattr(pairs, name)[rows, columns])
      for name in ('cosine', 'magnitude')
    }

  return probe


def read_means(path: pathlib.Path) -> dict[str, float]:
  """The mean of each measure over a training, of what is finite.

  Raises:
    ValueError: a line is not what a run wrote, or a measure is never finite.
    OSError: it cannot be read.
  """
  values = files.read_probe(path, MEASURES).reshape(-1, len(MEASURES))
  finite = np.isfinite(values)
  if not finite.any(axis=0).all():
    raise ValueError('a measure is nowhere finite')
  means = np.where(finite, values, 0).sum(axis=0) / finite.sum(axis=0)
  return dict(zip(MEASURES, means.tolist(), strict=True))
