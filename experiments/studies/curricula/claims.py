"""The claims DC1, DC2 and DC3, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected

NAME = 'curricula'
#: Arms: annealed order and easy to hard; each alone; neither; the reverse of
#: both; and shuffled batches of all tasks.
BOTH, ORDER, INSTANCES = 'both', 'order', 'instances'
RANDOM, REVERSED, MIXED = 'random', 'reversed', 'mixed'
ARMS = (BOTH, ORDER, INSTANCES, RANDOM, REVERSED, MIXED)
#: Standard deviations below the mean of random orders.
FAR = -2.0
#: Of the way from the optimum to the mean of random orders.
NEAR = 0.05

#: By problem, arm and seed: mean score over tasks on test.
Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
#: By problem and seed: ``z`` and ``gap`` of the annealed order.
Orders = Mapping[str, Mapping[int, Mapping[str, float]]]


def claims(
  scores: Scores, orders: Orders, min_seeds: int, score: str = 'accuracy'
) -> list[verdicts.Verdict]:
  """The verdicts on DC1, DC2 and DC3."""
  level = corrected(2 * len(orders) + 4)
  return [
    _annealed(orders, min_seeds, level),
    verdicts.verdict(
      'DC2',
      'An annealed order of tasks with instances from easy to difficult is '
      'better than random orders, and these than the reverse.',
      f'both differences in mean {score}, means over problems, are above 0; it '
      'does not hold where one is below.',
      _differences(scores, ((BOTH, RANDOM), (RANDOM, REVERSED)), level, score)
      + _shown(scores, ((BOTH, MIXED),)),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'DC3',
      'Each of the two levels helps alone.',
      f'both differences in mean {score} from random orders, means over '
      'problems, are above 0; it does not hold where one is below.',
      _differences(
        scores, ((ORDER, RANDOM), (INSTANCES, RANDOM)), level, score
      ),
      min_seeds=min_seeds,
    ),
  ]


def gains(scores: Scores, arm: str, other: str) -> dict[int, float]:
  """Of each seed, points of score more than another arm, over problems."""
  pairs = [(x.get(arm, {}), x.get(other, {})) for x in scores.values()]
  if not pairs:
    return {}
  seeds = set.intersection(*(a.keys() & b.keys() for a, b in pairs))
  return {
    seed: 100 * float(np.mean([a[seed] - b[seed] for a, b in pairs]))
    for seed in sorted(seeds)
  }


def _annealed(orders: Orders, min_seeds: int, level: float) -> verdicts.Verdict:
  measured = []
  for problem, found in orders.items():
    measured += verdicts.measure(
      f'{problem}: cost, in deviations of random orders from their mean',
      {seed: x['z'] for seed, x in found.items()},
      'below',
      FAR,
      level,
    )
    measured += verdicts.measure(
      f'{problem}: cost above the optimum, by that of random orders',
      {seed: x['gap'] for seed, x in found.items()},
      'below',
      NEAR,
      level,
    )
  return verdicts.verdict(
    'DC1',
    'An annealed order costs less than random ones, and almost as little as '
    'the best.',
    f'on every problem the cost is more than {-FAR:g} deviations below the '
    f'mean of random orders, and less than {NEAR:g} of the way from the '
    'optimum to it.',
    measured,
    min_seeds=min_seeds,
  )


def _differences(scores, pairs, level, score) -> list[verdicts.Measured]:
  measured = []
  for arm, other in pairs:
    measured += verdicts.measure(
      f'points of {score}, {arm} less {other}',
      gains(scores, arm, other),
      'above',
      0.0,
      level,
    )
  return measured + _shown(scores, pairs)


def _shown(scores, pairs) -> list[verdicts.Measured]:
  return [
    number
    for problem in scores
    for arm, other in pairs
    for number in verdicts.measure(
      f'{problem}: {arm} less {other}',
      gains({problem: scores[problem]}, arm, other),
      None,
    )
  ]
