"""The claims G1, G2 and G3, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.report import verdicts
from experiments.report.statistics import corrected

NAME = 'merging'
#: Where all networks of a seed begin; the claims are decided at the first.
PRETRAINED, RANDOM = 'pretrained', 'random'
STARTS = (PRETRAINED, RANDOM)
#: A network a task; one for all by the sum of the losses; where they begin.
ALONE, JOINT, START = 'alone', 'joint', 'start'
#: Task vectors times one over T; times a constant; times what is best on
#: validation.
MEAN, FIXED, ARITHMETIC = 'mean', 'fixed', 'arithmetic'
TIES, ADAMERGING = 'ties', 'adamerging'
ARMS = (ALONE, JOINT, START, MEAN, FIXED, ARITHMETIC, TIES, ADAMERGING)
#: Those that G1 compares with joint training.
MERGED = (ARITHMETIC, TIES, ADAMERGING)
#: Numbers that all claims compare.
COMPARED = len(MERGED) + 2

#: By start, arm and seed: delta-m on test against each task alone, in percent.
Scores = Mapping[str, Mapping[str, Mapping[int, float]]]


def claims(
  scores: Scores, merged: Sequence[str], min_seeds: int
) -> list[verdicts.Verdict]:
  """The verdicts on G1, G2 and G3.

  Args:
    scores: what was measured.
    merged: those of ``MERGED`` that fit the tasks.
    min_seeds: with fewer seeds nothing is decided.
  """
  return [
    verdicts.verdict(
      'G1',
      'Merging networks of single tasks is behind joint training at equal '
      'compute.',
      f'from the {PRETRAINED} start delta-m (lower is better) of '
      f'{", ".join(merged)}, each less that of {JOINT}, is above 0; it does '
      'not hold where one is below.',
      _numbers(scores, [(x, JOINT) for x in merged], 'above'),
      min_seeds=min_seeds,
      compared=len(merged),
    ),
    verdicts.verdict(
      'G2',
      'TIES is ahead of plain task arithmetic.',
      f'from the {PRETRAINED} start delta-m of {TIES} less that of '
      f'{ARITHMETIC}, each at the scale that is best on validation, is below '
      '0.',
      _numbers(scores, [(TIES, ARITHMETIC)], 'below'),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'G3',
      'AdaMerging, which sees no labels, is ahead of a fixed scale.',
      f'from the {PRETRAINED} start delta-m of {ADAMERGING} less that of '
      f'{FIXED} is below 0. Shown beside it: {ARITHMETIC}, whose scale has '
      'seen labels.',
      _numbers(scores, [(ADAMERGING, FIXED)], 'below')
      + _numbers(scores, [(ADAMERGING, ARITHMETIC)], None),
      min_seeds=min_seeds,
    ),
  ]


def less(scores: Scores, start: str, arm: str, other: str) -> dict[int, float]:
  """Of each seed that both have, delta-m less the other's."""
  found = scores.get(start, {})
  a, b = found.get(arm, {}), found.get(other, {})
  return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def _numbers(scores, pairs, wanted) -> list[verdicts.Measured]:
  """At the first start as claimed, at others only shown."""
  level = corrected(COMPARED)
  return [
    number
    for start in STARTS
    for arm, other in pairs
    for number in verdicts.measure(
      f'{start}: delta-m, {arm} less {other}',
      less(scores, start, arm, other),
      wanted if start == PRETRAINED else None,
      0.0,
      level,
    )
  ]
