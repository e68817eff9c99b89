"""What the claims compare, from what the runs wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class ScoredRun:
  """A finished run on a suite.

  Attributes:
    scores: of each task on test, higher is better, in percent.
    validation: the mean score on validation.
    train: the loss of each task over the training data, with its factor.
    test: the same over the test data.
    probes: ``'losses'``, ``'norms'`` and ``'weights'``, each ``(N, T)``, in the
      order of the steps; None where they were not measured.
  """

  scores: np.ndarray
  validation: float
  train: np.ndarray
  test: np.ndarray
  probes: Mapping[str, np.ndarray] | None = None


#: By problem, arm and seed.
Table = Mapping[str, Mapping[str, Mapping[int, ScoredRun]]]
Values = dict[int, float]


def paired(table: Table, problem: str, arms: Sequence[str], number) -> Values:
  """``number(*rows)`` of each seed that all arms have finished."""
  found = [table[problem].get(arm, {}) for arm in arms]
  seeds = set.intersection(*(set(x) for x in found)) if found else set()
  return {seed: number(*(x[seed] for x in found)) for seed in sorted(seeds)}


def over_problems(parts: Sequence[Values]) -> Values:
  """Means over problems, of the seeds that all have."""
  parts = [x for x in parts if x]
  if not parts:
    return {}
  seeds = set.intersection(*(set(x) for x in parts))
  return {s: float(np.mean([x[s] for x in parts])) for s in sorted(seeds)}


def mean_score(row: ScoredRun) -> float:
  """Over tasks."""
  return float(row.scores.mean())


def more(table: Table, problem: str, arm: str, others: Sequence[str]) -> Values:
  """Points of score more than the mean over others."""
  return paired(
    table,
    problem,
    (arm, *others),
    lambda row, *rest: (
      mean_score(row) - float(np.mean([mean_score(x) for x in rest]))
    ),
  )


def trend(
  table: Table, problem: str, parameters: Mapping[str, float], number
) -> Values:
  """Kendall's tau of a parameter, by arm, and a number of a run."""

  def tau(*rows):
    numbers = [number(x) for x in rows]
    found = scipy.stats.kendalltau(list(parameters.values()), numbers)
    # All alike: no trend.
    return float(np.nan_to_num(found.statistic))

  return paired(table, problem, tuple(parameters), tau)


def agreement(row: ScoredRun, first: int) -> tuple[float, float]:
  """Slope and correlation of logarithms of weights on those of SLW.

  Over tasks and measurements, from the ``first`` on; those of each measurement
  are taken from their mean, as weights sum to T anyway.
  """
  assert row.probes is not None
  weights, norms = (row.probes[x][first:] for x in ('weights', 'norms'))
  good = np.all((weights > 0) & (norms > 0), axis=1)
  if not good.any():
    return 0.0, 0.0
  ours, theirs = np.log(weights[good]), -np.log(norms[good])
  ours = (ours - ours.mean(1, keepdims=True)).ravel()
  theirs = (theirs - theirs.mean(1, keepdims=True)).ravel()
  square = theirs @ theirs
  if not square or not ours @ ours:
    return 0.0, 0.0
  slope = ours @ theirs / square
  return float(slope), float(slope * np.sqrt(square / (ours @ ours)))


def spread(row: ScoredRun) -> float:
  """Variance over tasks of log relative contributions, mean over training.

  The relative contribution of a task is its loss over the norm of its weighted
  gradient.
  """
  assert row.probes is not None
  losses, norms, weights = (
    row.probes[x] for x in ('losses', 'norms', 'weights')
  )
  good = np.all((losses > 0) & (norms > 0) & (weights > 0), axis=1)
  if not good.any():
    return 0.0
  logs = np.log(losses) - np.log(np.where(good[:, None], norms * weights, 1))
  return float(np.mean(np.var(logs[good], axis=1)))


def generalization_gap(row: ScoredRun) -> float:
  """Test less training loss, by the test loss, mean over tasks."""
  return float(np.mean((row.test - row.train) / row.test))


def rank_correlation(
  table: Table, problem: str, arms: Sequence[str], a, b
) -> Values:
  """Spearman's correlation over arms of two numbers of a run."""

  def one(*rows):
    found = scipy.stats.spearmanr([a(x) for x in rows], [b(x) for x in rows])
    return float(np.nan_to_num(found.statistic))

  return paired(table, problem, arms, one)


def best(rows: Sequence[ScoredRun]) -> ScoredRun:
  """The run that is best on validation."""
  return max(rows, key=lambda row: row.validation)
