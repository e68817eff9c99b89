"""The claims of ConFIG's paper, and the rule by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import verdicts

NAME = 'pinn'
OURS = 'conflict_free'
ADAM = 'sum_losses'
#: Before X, the sum with the boundary and initial losses times X.
WEIGHTS = 'weights_'
#: What the paper compares with: Adam on the sum, gradients, weights.
PUBLISHED = (ADAM, 'pcgrad', 'imtl_g', 'lr_annealing', 'relobralo')

#: Errors by problem, method and seed.
Errors = Mapping[str, Mapping[str, Mapping[int, float]]]


def claims(errors: Errors, min_seeds: int) -> list[verdicts.Verdict]:
  """The verdicts on P1, P2 and P3.

  None is made where a problem lacks the runs that it needs.
  """
  return [
    _order(errors, min_seeds),
    _every_problem(errors, min_seeds),
    _tuned(errors, min_seeds),
  ]


def gaps(
  errors: Errors, other: str, problems: Sequence[str]
) -> dict[int, float]:
  """Of each seed, log10 of the other's error by ConFIG's, mean over problems.

  Only seeds that both have on all of the problems; above 0 ConFIG is better.
  """
  pairs = [
    (errors[name].get(other, {}), errors[name].get(OURS, {}))
    for name in problems
  ]
  if not pairs:
    return {}
  seeds = set.intersection(*(a.keys() & b.keys() for a, b in pairs))
  return {
    seed: float(np.mean([np.log10(a[seed] / b[seed]) for a, b in pairs]))
    for seed in sorted(seeds)
  }


def tuned(runs: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
  """Of each seed, the error with the weight that is best on the others.

  So that no run chooses the weight that it is judged with. Chosen from the sum
  and all ``weights_X``; none with fewer than two seeds.
  """
  grid = {
    name: found
    for name, found in runs.items()
    if name == ADAM or name.startswith(WEIGHTS)
  }
  if len(grid) < 2:
    return {}
  seeds = set.intersection(*(set(found) for found in grid.values()))
  if len(seeds) < 2:
    return {}

  def score(name, seed):
    return np.mean([np.log(grid[name][s]) for s in seeds - {seed}])

  return {
    seed: grid[min(grid, key=lambda name: score(name, seed))][seed]  # noqa: B023
    for seed in sorted(seeds)
  }


def _order(errors: Errors, min_seeds: int) -> verdicts.Verdict:
  measured = []
  # An order is judged whole.
  whole = all({OURS, *PUBLISHED} <= runs.keys() for runs in errors.values())
  there = list(errors)
  for other in PUBLISHED if whole else ():
    measured += verdicts.measure(
      f'log10 of the error of {other} by that of ConFIG, mean over '
      f'{", ".join(there)}',
      gaps(errors, other, there),
      'above',
    )
  return verdicts.verdict(
    'P1',
    'ConFIG is consistently better than Adam on the sum, PCGrad, IMTL-G, '
    'learning-rate annealing and ReLoBRaLo.',
    'against each of them the mean over problems of the logarithm of the '
    'ratio of errors is above 0; it does not hold where one is below.',
    measured,
    min_seeds=min_seeds,
  )


def _every_problem(errors: Errors, min_seeds: int) -> verdicts.Verdict:
  measured = []
  whole = all({OURS, ADAM} <= runs.keys() for runs in errors.values())
  for name in errors if whole else ():
    measured += verdicts.measure(
      f'{name}: log10 of the error of Adam on the sum by that of ConFIG',
      gaps(errors, ADAM, [name]),
      'above',
    )
  return verdicts.verdict(
    'P2',
    'ConFIG is better than Adam on the sum, whatever the equation.',
    'the logarithm of the ratio of errors is above 0 on every problem; it does '
    'not hold where one is below.',
    measured,
    min_seeds=min_seeds,
  )


def _tuned(errors: Errors, min_seeds: int) -> verdicts.Verdict:
  measured = []
  pairs = {
    name: {'tuned': tuned(runs), OURS: runs.get(OURS, {})}
    for name, runs in errors.items()
  }
  whole = all(both[OURS] and both['tuned'] for both in pairs.values())
  for name, both in pairs.items() if whole else ():
    measured += verdicts.measure(
      f'{name}: log10 of the error with tuned weights by that of ConFIG',
      gaps({name: both}, 'tuned', [name]),
      'above',
    )
  return verdicts.verdict(
    'P3',
    'A control of ours: ConFIG is better than constant weights of the losses '
    'that are tuned.',
    'the logarithm of the ratio of errors is above 0 on every problem, where a '
    'seed gets the weight that is best on the others; it does not hold where '
    'one is below.',
    measured,
    min_seeds=min_seeds,
  )
