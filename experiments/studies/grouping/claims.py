"""The claims GR1 to GR4, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected

NAME = 'grouping'
LOOKAHEAD, PROXIMAL, COSINE = 'lookahead', 'proximal', 'cosine'
#: What is measured in one joint run.
SCORES = (LOOKAHEAD, PROXIMAL, COSINE)
#: Rank correlation with gains below which a score says little of them.
LITTLE = 0.5
#: Of the way from a random grouping to the best.
SHARE = 0.5
#: Worths of groupings: of the best on validation, the mean of all, all tasks
#: in one group, and what pair gains on validation choose.
BEST, ANY, TOGETHER, PAIRS = 'best', 'random', 'together', 'pairs'
#: Numbers that all claims compare.
COMPARED = 2 * len(SCORES) + 2

#: By problem, name and seed: ``correlation/<score>``, ``worth/<grouping>`` and
#: ``ceiling``.
Numbers = Mapping[str, Mapping[str, Mapping[int, float]]]


def over_problems(numbers: Numbers, *names: str) -> dict[int, tuple]:
  """Of each seed that all have, of each name the mean over problems."""
  found = [by_name.get(x, {}) for by_name in numbers.values() for x in names]
  if not found:
    return {}
  seeds = set.intersection(*(set(x) for x in found))
  return {
    seed: tuple(
      float(np.mean([by_name[x][seed] for by_name in numbers.values()]))
      for x in names
    )
    for seed in sorted(seeds)
  }


def claims(numbers: Numbers, min_seeds: int) -> list[verdicts.Verdict]:
  """The verdicts on GR1, GR2, GR3 and GR4."""
  level = corrected(COMPARED)
  return [
    verdicts.verdict(
      'GR1',
      'Affinities measured in one joint run say which tasks help which.',
      'the rank correlation, over ordered pairs of tasks, of each of '
      f'{", ".join(SCORES)} with what training the pair together gains is '
      'above 0, a mean over problems; it does not hold where one is below.',
      _correlations(numbers, 'above', 0.0, level) + _shown(numbers),
      min_seeds=min_seeds,
      compared=len(SCORES),
    ),
    verdicts.verdict(
      'GR2',
      'Such scores say little of real gains.',
      f'the same correlations are below {LITTLE:g}, each.',
      _correlations(numbers, 'below', LITTLE, level),
      min_seeds=min_seeds,
      compared=len(SCORES),
    ),
    verdicts.verdict(
      'GR3',
      'The grouping that affinities choose is better than a random one.',
      f'what tasks gain in the grouping of most {LOOKAHEAD} affinity, by exact '
      'search, less the mean over all groupings, is above 0, a mean over '
      'problems.',
      _worths(
        numbers,
        f'gain by the grouping of {LOOKAHEAD} less that of a random one',
        (LOOKAHEAD, ANY),
        lambda chosen, any_: chosen - any_,
        level,
      )
      + [
        number
        for score in (PROXIMAL, COSINE, TOGETHER, PAIRS)
        for number in _worths(
          numbers,
          f'{score} less a random one',
          (score, ANY),
          lambda chosen, any_: chosen - any_,
          None,
        )
      ],
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'GR4',
      'It is nearly as good as the best.',
      f'it is more than {SHARE:g} of the way from a random grouping to the one '
      'that is best on validation: its gain less that place, a mean over '
      'problems, is above 0.',
      _worths(
        numbers,
        f'gain by the grouping of {LOOKAHEAD} less {SHARE:g} of the way',
        (LOOKAHEAD, ANY, BEST),
        lambda chosen, any_, best: chosen - any_ - SHARE * (best - any_),
        level,
      )
      + _worths(
        numbers,
        'regret: gain by the best grouping less it',
        (LOOKAHEAD, BEST),
        lambda chosen, best: best - chosen,
        None,
      ),
      min_seeds=min_seeds,
    ),
  ]


def _correlations(numbers, wanted, threshold, level):
  return [
    number
    for score in SCORES
    for number in verdicts.measure(
      f'rank correlation with gains: {score}',
      {
        k: x
        for k, (x,) in over_problems(numbers, f'correlation/{score}').items()
      },
      wanted,
      threshold,
      level,
    )
  ]


def _shown(numbers) -> list[verdicts.Measured]:
  """Each problem, and how far gains of other seeds rank those of one."""
  names = {
    **{f'correlation/{x}': x for x in SCORES},
    'ceiling': 'gains of other seeds',
  }
  return [
    number
    for problem, by_name in numbers.items()
    for name, label in names.items()
    for number in verdicts.measure(
      f'{problem}: {label}', by_name.get(name, {}), None
    )
  ]


def _worths(numbers, label, names, of, level):
  found = over_problems(numbers, *(f'worth/{x}' for x in names))
  values = {seed: of(*x) for seed, x in found.items()}
  if level is None:
    return verdicts.measure(label, values, None)
  return verdicts.measure(label, values, 'above', 0.0, level)
