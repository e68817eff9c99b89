"""Names, thresholds, and how a number is made of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report.verdicts import Measured, measure
from experiments.report.verdicts import verdict as verdict_of
from experiments.studies.claims import measures
from experiments.studies.claims.measures import ScoredRun, Table, Values

NAME = 'claims'
NOISY, RARE = 'noisy', 'rare'
COSTS, QUADRATICS = 'costs', 'quadratics'
#: In the name of a problem, before the factor on its last loss.
GAP = '@'
TRAIN_LOSS = 'train_loss'
#: Tasks, of the counts of operations.
COUNTS = (2, 4, 16)
#: Steps before the weights of SLAW count, by its authors.
FIRST_STEP = 100
CORRELATED, APART = 0.8, 0.5
SLOPES = (0.5, 1.5)
#: Points of score by which less is as good.
MARGIN = 0.5
CHEAP, DEAR = 1.05, 2.0
#: Orders of magnitude, on quadratics.
SMALL = -2.0
UNLIKE = ('sum', 'rlw', 'dwa', 'mgda', 'pcgrad', 'cagrad_0_5')

#: Numbers that a claim compares; with fewer, none holds.
COMPARED = {
  'S3': 2,
  'FG3': 3,
  'FG4': 3,
  'FG5': 5,
  'N3': 2,
  'N4': 3,
  'C3': 3,
  'C4': 2,
  'C5': 1,
  'B2': 3,
  'EM3': 2,
}

#: By arm and seed, of the quadratics; by method and T, of the costs.
Points = Mapping[str, Mapping[int, Mapping[str, float]]]
Costs = Mapping[tuple[str, int], float]


class Rules:
  """What was measured, and numbers of it at a level."""

  def __init__(self, table, points, costs, min_seeds, first, level):
    self.suites: Table = {
      k: v for k, v in table.items() if k not in (NOISY, RARE)
    }
    self.table: Table = table
    self.probed: Table = {
      problem: {
        arm: {seed: x for seed, x in rows.items() if x.probes is not None}
        for arm, rows in found.items()
      }
      for problem, found in self.suites.items()
    }
    self.points: Points = points
    self.costs: Costs = costs
    self.min_seeds: int = min_seeds
    self.first: int = first
    self.level: float = level

  def measure(self, label, values: Values, wanted, threshold=0.0):
    """At the level of all numbers."""
    return measure(label, values, wanted, threshold, self.level)

  def verdict(self, claim, statement, rule, measured, min_seeds=None):
    """With as many seeds as the study asks for."""
    seeds = self.min_seeds if min_seeds is None else min_seeds
    return verdict_of(
      claim,
      statement,
      rule,
      measured,
      min_seeds=seeds,
      compared=COMPARED.get(claim, 0),
    )

  def pooled(self, label, of_problem, wanted, threshold=0.0) -> list[Measured]:
    """A number as its mean over problems, and shown for each."""
    parts = {name: of_problem(name) for name in self.suites}
    whole = measures.over_problems(list(parts.values()))
    found = self.measure(label, whole, wanted, threshold)
    for name, values in parts.items():
      found += self.measure(f'{name}: {label}', values, None)
    return found

  def more(self, arm, others, wanted='above', threshold=0.0) -> list[Measured]:
    """Points of score more than another arm, or than the mean of some."""
    names = others if isinstance(others, str) else 'the mean of others'
    others = (others,) if isinstance(others, str) else others
    return self.pooled(
      f'points, {arm} less {names}',
      lambda name: measures.more(self.suites, name, arm, others),
      wanted,
      threshold,
    )

  def agreements(self, problem, arm) -> tuple[Values, Values]:
    """Slopes and correlations with SLW, by seed."""
    found = {
      seed: measures.agreement(row, self.first)
      for seed, row in self.table.get(problem, {}).get(arm, {}).items()
      if row.probes is not None
    }
    slopes = {seed: x[0] for seed, x in found.items()}
    return slopes, {seed: x[1] for seed, x in found.items()}

  def orders(
    self, column: str, arms: Sequence[str], shown: Sequence[str]
  ) -> list[Measured]:
    """Logarithms of a column of the quadratics."""
    measured = []
    for arm in (*arms, *shown):
      values = {
        # What is below float32's rounding counts as that.
        seed: float(np.log10(max(row[column], 1e-8)))
        for seed, row in self.points.get(arm, {}).items()
      }
      wanted = 'below' if arm in arms else None
      measured += self.measure(
        f'{arm}: log10 of the {column}', values, wanted, SMALL
      )
    return measured

  def equal(self) -> list[str]:
    """Problems whose losses have their own scale, which a temperature needs."""
    return [name for name in self.suites if GAP not in name]

  def order(self, name: str) -> np.ndarray | None:
    """The tasks from the least to the largest loss by the sum."""
    rows: Mapping[int, ScoredRun] = self.suites[name].get('sum', {})
    if not rows:
      return None
    return np.argsort(np.mean([x.train for x in rows.values()], axis=0))
