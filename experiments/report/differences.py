"""Two folders of a comparison beside each other, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.report import verdicts
from experiments.report.results import ReportError, Results
from experiments.report.statistics import (
  MIN_SEEDS,
  Interval,
  corrected,
  decide,
  interval,
)
from experiments.report.summary import summarize_results
from experiments.report.tables import SHARE, Column, columns_of

#: Of a configuration, what is no option.
_NO_OPTION = frozenset(
  {'digest', 'history', 'identity', 'methods', 'seeds', 'out'}
)


class Difference(NamedTuple):
  """One method and one metric in both folders.

  Attributes:
    method: its name.
    metric: with its task, ``'accuracy/left'``.
    unit: of the metric.
    first: the mean in the first folder, over the seeds of both.
    second: the same in the second.
    change: second less first, seed by seed; percent points where the unit is
      ``'%'``, as are the two means.
    outcome: ``'better'`` or ``'worse'`` in the second folder, ``'undecided'``,
      ``'higher'`` or ``'lower'`` where no direction is known.
  """

  method: str
  metric: str
  unit: str
  first: float
  second: float
  change: Interval
  outcome: str


def compare(
  first: Results, second: Results, *, losses: bool = True
) -> list[Difference]:
  """What changed from one folder to the other, in every method and metric.

  Intervals are of all comparisons together, at Bonferroni's level.

  Args:
    first: a folder.
    second: another one.
    losses: whether losses are compared too.

  Raises:
    ReportError: no method of both has a metric and a seed in both.
  """
  metrics = {m['name']: m for m in summarize_results(first)['metrics']}
  others = {m['name'] for m in summarize_results(second)['metrics']}
  common = [
    metric
    for name, metric in metrics.items()
    if name in others and (losses or metric['kind'] != 'loss')
  ]
  values = [_by_seed(first), _by_seed(second)]
  pairs = []
  for method in first.methods:
    for metric in common:
      column = f'test/{metric["name"]}'
      one, two = (
        {
          seed: x[column]
          for seed, x in found.get(method, {}).items()
          if math.isfinite(x.get(column, math.nan))
        }
        for found in values
      )
      seeds = [seed for seed in one if seed in two]
      if seeds:
        pairs.append((method, metric, [(one[s], two[s]) for s in seeds]))
  if not pairs:
    raise ReportError(
      'there is nothing to compare: no method has finished with the same seed '
      'in both folders and was measured by the same metric.'
    )
  level = corrected(len(pairs))
  return [_difference(*pair, level) for pair in pairs]


def _by_seed(results: Results) -> Mapping[str, Mapping[str, Any]]:
  found: dict[str, dict[str, Any]] = {}
  for run in results.runs:
    if not run.problem:
      found.setdefault(run.method, {})[run.seed] = run.values
  return found


def _difference(method, metric, pairs, level) -> Difference:
  scale = 100 if metric['unit'] == SHARE else 1
  change = interval([scale * (b - a) for a, b in pairs], level)
  side = decide(change)
  higher = metric['higher_is_better']
  if side == 'undecided':
    outcome = side
  elif higher is None:
    outcome = {'above': 'higher', 'below': 'lower'}[side]
  else:
    outcome = 'better' if (side == 'above') == higher else 'worse'
  means = [scale * sum(x) / len(pairs) for x in zip(*pairs, strict=True)]
  return Difference(
    method, metric['name'], metric['unit'], *means, change, outcome
  )


def changed_options(first: Results, second: Results) -> list[str]:
  """The options in which the configurations differ, in sentences."""
  one, two = (dict(_flat(x.config)) for x in (first, second))
  names = dict.fromkeys([*one, *two])
  return [
    f'{name}: {one.get(name, "not there")} and {two.get(name, "not there")}'
    for name in names
    if one.get(name) != two.get(name)
  ]


def _flat(values: Mapping[str, Any], before: str = ''):
  for name, value in values.items():
    if not before and name in _NO_OPTION:
      continue
    if isinstance(value, dict):
      yield from _flat(value, f'{before}{name}.')
    else:
      yield f'{before}{name}', value


def columns(found: list[Difference]) -> list[Column]:
  """The table, a row a difference."""
  titles = ['method and metric', 'A', 'B', 'B - A', 'seeds', 'B is']
  rows = [
    [
      f'{x.method} {x.metric.replace("/", " ")} {x.unit}'.strip(),
      f'{x.first:.4g}',
      f'{x.second:.4g}',
      verdicts.span(x.change),
      str(x.change.n),
      x.outcome,
    ]
    for x in found
  ]
  return columns_of(titles, rows)


def reading(found: list[Difference]) -> str:
  """How to read the table, in words."""
  return (
    f'B - A is the mean over seeds of both folders; all {len(found)} intervals '
    f'hold together with 95 %. With fewer than {MIN_SEEDS} seeds nothing is '
    'decided.'
  )
