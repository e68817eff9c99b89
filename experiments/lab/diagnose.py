"""Conflict between tasks and between samples, measured inside training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

import mtljax as mtl
from experiments.lab.problem import Problem
from experiments.lab.suite import Network
from experiments.report.conflict import KINDS, MEASURES
from mtljax import _validate, diagnostics

#: Tasks that are compared at most, as in the paper.
MOST_TASKS = 8
#: From a state and a batch to what is measured.
Probe = Callable[[Any, Any], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class DiagnoseOptions:
  """What is measured inside training."""

  diagnose: tuple[Literal['conflict'], ...] = ()
  """Measured inside training, in runs/<method>/seed_<k>/probe.jsonl. conflict:
  cosine, magnitude similarity, scalar product and share of opposite signs of
  gradients of tasks on a sample and of samples in a task."""
  diagnose_every: int = 5
  """Steps between these measurements."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""


def check(config: DiagnoseOptions, batch_size: int) -> None:
  """Raises ValueError for what cannot be measured inside training."""
  _validate.in_range('--diagnose-every', config.diagnose_every, 1)
  if config.diagnose:
    _validate.in_range(
      '--diagnose-samples', config.diagnose_samples, 1, batch_size
    )


def check_network(config: DiagnoseOptions, name: str, network: Network) -> None:
  """Raises ValueError for a network that it cannot be measured in."""
  if config.diagnose and network.batch_statistics:
    raise ValueError(
      f'--diagnose conflict and --model {name}: the gradient of one sample is '
      'not defined under batch statistics; use multi_lenet or multi_mlp.'
    )


def make_probes(
  config: DiagnoseOptions, problems: Mapping[tuple[str, ...], Problem]
) -> dict[tuple[str, ...], Probe]:
  """What ``--diagnose`` measures, by tasks, compiled once; may be nothing."""
  if not config.diagnose:
    return {}
  return {
    tasks: make_probe(
      problem.loss,
      problem.labels,
      problem.sharings.gramian_labels,
      num_samples=config.diagnose_samples,
    )
    for tasks, problem in problems.items()
  }


def make_probe(
  loss: mtl.Staged,
  labels: Any,
  gramian_labels: Any = None,
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
    gramian_labels: those whose gradients are compared; None: all shared ones.
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
      gramian_labels=gramian_labels,
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
