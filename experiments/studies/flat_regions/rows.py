"""The finished rows of the study, looked up by what they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import statistics

# Metrics that are shown in points, and how they are called.
PERCENT = {'test/accuracy': 'accuracy', 'test/auc': 'AUC'}


class Rows:
  """The finished rows of a study, looked up by what they are.

  Args:
    rows: the rows of ``results.csv``: strings, or numbers.
    costs: the content of ``cost.json``.
    min_seeds: with fewer seeds nothing is decided.
    metric: the one that runs are compared by, in the rows ``test/<metric>``.
  """

  def __init__(
    self,
    rows: Iterable[Mapping[str, Any]],
    costs: Mapping[str, Any] | None = None,
    min_seeds: int = statistics.MIN_SEEDS,
    metric: str = 'accuracy',
  ):
    self.metric = f'test/{metric}'
    self.metric_name = PERCENT[self.metric]
    self.costs = costs or {}
    self.min_seeds = min_seeds
    self.found: dict[tuple[str, str, str, str, float], dict[int, Any]] = {}
    for row in rows:
      if row.get('status') == 'ok':
        key = (row['variant'], row['base'], row['form'], row['ascent'])
        key = (*key, float(row['rho']))
        self.found.setdefault(key, {})[int(row['seed'])] = row

  def bases(self, variant: str, *forms: str) -> list[str]:
    """The methods that have all these forms, in order."""
    keys = dict.fromkeys(key[1] for key in self.found if key[0] == variant)
    return [
      base
      for base in keys
      if not base.startswith('single_')
      and all(self.seeds(variant, base, form) for form in forms)
    ]

  def variants(self, prefix: str) -> list[str]:
    """The variants whose names begin so."""
    keys = dict.fromkeys(key[0] for key in self.found)
    return [name for name in keys if name.startswith(prefix)]

  def radii(self, base: str, ascent: str) -> list[float]:
    """The radii that were swept."""
    return [
      key[4]
      for key in self.found
      if key[0] == 'sweep' and key[1] == base and key[3] == ascent
    ]

  def seeds(
    self, variant: str, base: str, form: str, **where: Any
  ) -> dict[int, Mapping[str, Any]]:
    """The rows of one cell by seed; of the sweep, name ascent and rho."""
    for key, rows in self.found.items():
      same = not where or (key[3] == where['ascent'] and key[4] == where['rho'])
      if key[:3] == (variant, base, form) and same:
        return rows
    return {}


def score(row: Mapping[str, Any], name: str) -> float:
  """The mean over the tasks of a metric; accuracy and AUC in points."""
  values = [
    float(value)
    for column, value in row.items()
    if (column == name or column.startswith(f'{name}/'))
    and value not in ('', None)
  ]
  if not values:
    return math.nan
  percent = name.split('/')[:2] in [key.split('/') for key in PERCENT]
  return float(np.mean(values)) * (100 if percent else 1)


def paired(
  rows: Rows,
  variant: str,
  base: str,
  forms: tuple[str, str],
  name: str | None = None,
) -> dict[int, float]:
  """By seed, a metric of the first form minus that of the second.

  Without a name it is the metric that runs are compared by.
  """
  name = name or rows.metric
  first, second = (rows.seeds(variant, base, form) for form in forms)
  found = {
    seed: score(first[seed], name) - score(second[seed], name)
    for seed in first
    if seed in second
  }
  return {seed: x for seed, x in found.items() if math.isfinite(x)}


def pooled(each: Sequence[Mapping[int, float]]) -> list[float]:
  """By seed, the mean over methods; seeds that one method lacks are left out.

  Runs of one seed share initialisation and data, so that methods are no
  repetitions of each other: the seeds are.
  """
  common = set.intersection(*(set(x) for x in each)) if each else set()
  return [float(np.mean([x[s] for x in each])) for s in sorted(common)]
