"""The claims RA1, RA2 and RA3, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected
from mtljax.diagnostics import ranking_similarity

NAME = 'disentanglement'
PARAMETER, FEATURE, NONE = 'parameter', 'feature', 'none'
#: What the paper says that feature-level gradients do not hurt.
KEPT = ('mgda', 'aligned_mtl')
#: Points of delta-m by which a method that keeps its score may be worse.
MARGIN = 1.0
#: The reading of Feature Disentanglement that RA2 is decided by.
READING = 'fd/feature.cosine'
#: What it is compared with; higher is less conflict in both.
OTHERS = ('cosine', 'magnitude')


class RankedMethod(NamedTuple):
  """A method at the level where its gradients are taken; NONE: it has none."""

  method: str
  level: str

  def __str__(self) -> str:
    suffix = '' if self.level == NONE else f', {self.level}'
    return f'{self.method}{suffix}'


#: By backbone, entry and seed: delta-m on test, and means over training.
Table = Mapping[str, Mapping[RankedMethod, Mapping[int, Mapping[str, float]]]]


def claims(
  table: Table, min_seeds: int, largest: str
) -> list[verdicts.Verdict]:
  """The verdicts on RA1, RA2 and RA3.

  Args:
    table: what was measured.
    min_seeds: with fewer seeds nothing is decided.
    largest: the backbone with the most shared parameters.
  """
  count = len(both_levels(table)) + len(OTHERS) + 1
  level = corrected(count)
  return [
    _levels(table, min_seeds, level),
    _identifiers(table, min_seeds, level),
    _backbones(table, min_seeds, level, largest),
  ]


def both_levels(table: Table) -> list[str]:
  """The methods that every backbone has at both levels, in order."""
  if not table:
    return []
  known = set.intersection(*(set(entries) for entries in table.values()))
  return [
    x.method
    for x in next(iter(table.values()))
    if x.level == FEATURE and {x, RankedMethod(x.method, PARAMETER)} <= known
  ]


def costs(table: Table, method: str) -> dict[int, float]:
  """Of each seed, delta-m at features less that at parameters, a mean."""
  pair = RankedMethod(method, FEATURE), RankedMethod(method, PARAMETER)

  def of(seed):
    found = []
    for entries in table.values():
      feature, parameter = (entries[x][seed]['delta_m'] for x in pair)
      found.append(feature - parameter)
    return np.mean(found)

  return _per_seed(table, pair, of)


def similarities(
  table: Table, name: str, measure: str = 'kendall'
) -> dict[int, float]:
  """Of each seed, how a measure ranks the entries beside delta-m, a mean.

  Seeds are left out whose ranking has no order on a backbone.
  """

  def of(seed):
    found = []
    for entries in table.values():
      rows = [runs[seed] for runs in entries.values()]
      found.append(
        _similar(
          [row[name] for row in rows],
          [-row['delta_m'] for row in rows],
          measure,
        )
      )
    return np.mean(found)

  found = _per_seed(table, None, of)
  return {seed: x for seed, x in found.items() if np.isfinite(x)}


def agreement(
  table: Table, first: str, second: str, measure: str = 'kendall'
) -> dict[int, float]:
  """Of each seed, how its delta-m on one backbone ranks beside another's.

  That of the other is the mean over all other seeds, also where both are one.
  """
  both = {name: table[name] for name in (first, second)}
  seeds = _seeds(both, None)

  def of(seed):
    rest = [s for s in seeds if s != seed]
    return _similar(
      [both[first][entry][seed]['delta_m'] for entry in both[first]],
      [
        np.mean([both[second][entry][s]['delta_m'] for s in rest])
        for entry in both[first]
      ],
      measure,
    )

  if len(seeds) < 2 or set(both[first]) != set(both[second]):
    return {}
  found = {seed: of(seed) for seed in seeds}
  return {seed: x for seed, x in found.items() if np.isfinite(x)}


def _similar(
  scores: Sequence[float], others: Sequence[float], measure: str
) -> float:
  return float(
    ranking_similarity(
      np.asarray(scores, np.float32),
      np.asarray(others, np.float32),
      measure=measure,  # pyrefly: ignore[bad-argument-type]
    )
  )


def _seeds(table: Table, entries: Sequence[RankedMethod] | None) -> list[int]:
  """Seeds that all backbones have of these entries; None: of all."""
  runs = [
    set(found)
    for by_entry in table.values()
    for entry, found in by_entry.items()
    if entries is None or entry in entries
  ]
  return sorted(set.intersection(*runs)) if runs else []


def _per_seed(
  table: Table,
  entries: Sequence[RankedMethod] | None,
  of: Callable[[int], float],
) -> dict[int, float]:
  return {seed: float(of(seed)) for seed in _seeds(table, entries)}


def _levels(table: Table, min_seeds: int, level: float) -> verdicts.Verdict:
  measured = []
  # The claim is on all of them.
  there = both_levels(table)
  whole = set(KEPT) < set(there)
  for method in there:
    kept = method in KEPT
    measured += verdicts.measure(
      f'{method}: delta-m at features less that at parameters',
      costs(table, method),
      ('below' if kept else 'above') if whole else None,
      MARGIN if kept else 0.0,
      level,
    )
  return verdicts.verdict(
    'RA1',
    'Gradients at the features in place of those of the parameters keep the '
    'scores of MGDA and Aligned-MTL, and make other methods worse.',
    'the mean over backbones of the difference in delta-m (lower is better) '
    f'is below {MARGIN:g} for these two, and above 0 for each of the others; '
    'it does not hold where one is decided the other way.',
    measured,
    min_seeds=min_seeds,
  )


def _identifiers(
  table: Table, min_seeds: int, level: float
) -> verdicts.Verdict:
  measured = []
  ours = similarities(table, READING)
  for other in OTHERS:
    theirs = similarities(table, other)
    measured += verdicts.measure(
      f'ranking similarity of FD less that of the {other}',
      {s: ours[s] - theirs[s] for s in ours.keys() & theirs.keys()},
      'above',
      0.0,
      level,
    )
  for name in (READING, *OTHERS):
    measured += verdicts.measure(
      f'{name}: ranking similarity', similarities(table, name), None
    )
  return verdicts.verdict(
    'RA2',
    'Feature Disentanglement ranks methods more as their test delta-m does '
    'than the cosine and the magnitude similarity of gradients do.',
    "the difference in Kendall's tau-b, a mean over backbones, is above 0 "
    'against both; it does not hold where one is below. Higher counts as '
    'better in all three.',
    measured,
    min_seeds=min_seeds,
  )


def _backbones(
  table: Table, min_seeds: int, level: float, largest: str
) -> verdicts.Verdict:
  small = [name for name in table if name != largest]
  within = [agreement(table, name, name) for name in table]
  across = [
    agreement(table, *pair)
    for name in small
    for pair in ((name, largest), (largest, name))
    if largest in table
  ]
  gaps: dict[int, float] = {}
  if across:
    for seed in set.intersection(*(set(x) for x in (*within, *across))):
      inside, outside = (
        np.mean([x[seed] for x in found]) for found in (within, across)
      )
      gaps[seed] = float(inside - outside)
  measured = verdicts.measure(
    'similarity of the ranking of a seed with that of other seeds on the same '
    f'backbone, less that between a small backbone and {largest}',
    gaps,
    'above',
    0.0,
    level,
  )
  for name, found in zip(table, within, strict=True):
    measured += verdicts.measure(f'{name} with itself', found, None)
  for name in small if largest in table else ():
    measured += verdicts.measure(
      f'{name} with {largest}', agreement(table, name, largest), None
    )
  return verdicts.verdict(
    'RA3',
    'Small backbones rank methods differently from large ones.',
    'rankings by delta-m of a seed and of the mean of all others are less '
    f'alike between {largest} and a smaller backbone than on one backbone.',
    measured,
    min_seeds=min_seeds,
  )
