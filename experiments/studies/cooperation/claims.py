"""The claims MC1, MC2 and MC3, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected

NAME = 'cooperation'
#: Arms: all parameters descend the sum of the losses; sub-models in turn, the
#: features of the others constant; the same at once; and without the others.
JOINT, ALTERNATING = 'joint', 'alternating'
TOGETHER, APART = 'together', 'apart'
PLAIN = (JOINT, ALTERNATING, TOGETHER, APART)
#: In turn, with a search; the arms are named ``<search>_<bound>``.
SEARCHES = ('uniform', 'ascent')
#: Noises of a step of the search.
NOISES = 4
#: What is moved when changes of losses are measured, by how much of its size.
MOVES = {'params': 0.1, 'features': 0.3}
MOVED_TIMES = 16
#: Problems on which one task tells more of the other than the reverse.
ONE_SIDED = ('one_way', 'halves')
#: Points of accuracy that count as no worse.
MARGIN = 0.5
#: Numbers that the three claims compare.
COMPARED = 8


class Found(NamedTuple):
  """What a run ended with; means over its two tasks.

  Attributes:
    accuracy: on test.
    validation: accuracy on validation.
    loss: on test.
    params_change: of the loss on test, when the parameters of the other
      sub-model are moved by noise.
    features_change: when its features are.
  """

  accuracy: float
  validation: float
  loss: float
  params_change: float
  features_change: float


#: By problem, arm and seed.
Runs = Mapping[str, Mapping[str, Mapping[int, Found]]]


def arm_of(search: str, bound: float) -> str:
  """The name of an arm with a search."""
  return f'{search}_{bound:g}'


def claims(
  runs: Runs, bounds: Sequence[float], min_seeds: int
) -> list[verdicts.Verdict]:
  """The verdicts on MC1, MC2 and MC3."""
  level = corrected(COMPARED)
  runs = {name: chosen(found, bounds) for name, found in runs.items()}
  largest = [arm_of(search, max(bounds)) for search in SEARCHES]
  best = [_best(search) for search in SEARCHES]
  relative = 'loss_change'
  return [
    verdicts.verdict(
      'MC1',
      'Where one task tells more of the other than the reverse, sub-models '
      'trained in turn are no worse than jointly trained ones.',
      f'on {" and ".join(ONE_SIDED)} the accuracy less that of joint training '
      f'is above -{MARGIN:g} points; it does not hold where it is below. '
      'Controls: both_ways, both at once, and each apart.',
      [
        number
        for problem in ONE_SIDED
        for number in _less(
          runs, [problem], ALTERNATING, JOINT, 'above', -MARGIN, level
        )
      ]
      + [
        number
        for problem in runs
        for arm in (ALTERNATING, *best, TOGETHER, APART)
        for number in _less(runs, [problem], arm, JOINT)
      ],
      min_seeds=min_seeds,
      compared=len(ONE_SIDED),
    ),
    verdicts.verdict(
      'MC2',
      'With the search, the loss of a task changes less when the sub-models '
      'of the others move.',
      'for both searches the change of the loss on test, when the parameters '
      'of the other are moved by noise, is smaller than without search; mean '
      'over problems, at the bound below the largest that is best on '
      'validation.',
      [
        number
        for arm in best
        for number in _less(
          runs, runs, arm, ALTERNATING, 'below', 0, level, 'params_change'
        )
      ]
      + [
        number
        for arm in best
        for what in (relative, 'features_change')
        for number in _less(runs, runs, arm, ALTERNATING, what=what)
      ]
      + [
        number
        for arm in largest
        for number in _less(runs, runs, arm, ALTERNATING, what='params_change')
      ],
      min_seeds=min_seeds,
      compared=len(SEARCHES),
    ),
    verdicts.verdict(
      'MC3',
      'A moderate bound is best: accuracy over the bound is an inverted U.',
      'for both searches the accuracy at the bound below the largest that is '
      'best on validation is above that without search, and above that at the '
      'largest; mean over problems.',
      [
        number
        for arm, end in zip(best, largest, strict=True)
        for other in (ALTERNATING, end)
        for number in _less(runs, runs, arm, other, 'above', 0, level)
      ]
      + [
        number
        for problem in runs
        for arm, end in zip(best, largest, strict=True)
        for other in (ALTERNATING, end)
        for number in _less(runs, [problem], arm, other)
      ],
      min_seeds=min_seeds,
      compared=2 * len(SEARCHES),
    ),
  ]


def _best(search: str) -> str:
  return f'best {search}'


def chosen(
  found: Mapping[str, Mapping[int, Found]], bounds: Sequence[float]
) -> dict[str, Mapping[int, Found]]:
  """The arms of a problem, and of each search the one of the best bound.

  It is the one below the largest whose accuracy on validation, mean over the
  seeds that all have, is highest; of equal ones the smallest.
  """
  new = dict(found)
  for search in SEARCHES:
    inner = [found.get(arm_of(search, b), {}) for b in sorted(bounds)[:-1]]
    seeds = set.intersection(*map(set, inner)) if inner else set()
    mean = lambda runs, seeds=seeds: np.mean(
      [runs[seed].validation for seed in sorted(seeds)]
    )
    new[_best(search)] = max(inner, key=mean) if seeds else {}
  return new


def values_of(found: Found, what: str) -> float:
  """A number of a run: accuracy in points, a change, or one by the loss."""
  if what == 'accuracy':
    return 100 * found.accuracy
  if what == 'loss_change':
    return found.params_change / found.loss
  return getattr(found, what)


def differences(
  runs: Runs, problems: Sequence[str], arm: str, other: str, what: str
) -> dict[int, float]:
  """Of each seed that all of them have, the mean difference over problems."""
  pairs = [
    (runs.get(p, {}).get(arm, {}), runs.get(p, {}).get(other, {}))
    for p in problems
  ]
  if not pairs:
    return {}
  seeds = set.intersection(*(a.keys() & b.keys() for a, b in pairs))
  return {
    seed: float(
      np.mean(
        [values_of(a[seed], what) - values_of(b[seed], what) for a, b in pairs]
      )
    )
    for seed in sorted(seeds)
  }


_LABELS = {
  'accuracy': 'points of accuracy',
  'params_change': 'change of the loss by parameters of the other',
  'loss_change': 'that change by the loss',
  'features_change': 'change of the loss by features of the other',
}


def _less(
  runs,
  problems,
  arm,
  other,
  wanted=None,
  threshold=0.0,
  level=0.95,
  what='accuracy',
):
  problems = list(problems)
  where = problems[0] if len(problems) == 1 else 'all problems'
  return verdicts.measure(
    f'{where}: {_LABELS[what]}, {arm} less {other}',
    differences(runs, problems, arm, other, what),
    wanted,
    threshold,
    level,
  )
