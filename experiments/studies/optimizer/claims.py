"""The claims on the optimizer, E2, E3 and E4, and the numbers they rest on.

All numbers are of the runs at the selected learning rates, and there is one a
seed. The rules, which were set before any study was run:

- E2 holds if in every ratio the share of Adam's runs (AdaTask's included) that
  no run of SGD (MTL-IO's included) of the same seed dominates is larger than
  that of SGD's runs that none of Adam's dominates, and if the same is so for
  every method in the mean over ratios. A run dominates another that is no
  better in any measure and worse in one. It is not judged with fewer than ten
  learning rates, or with fewer than a preset says.
- E3 holds if at the largest ratio the gap (mean over methods of SGD's delta-m
  less Adam's) exceeds the spread (standard deviation of delta-m over methods,
  mean of both optimizers), and if the gap is larger there than at the smallest
  ratio. With one ratio the first alone decides, and only where the losses are
  apart: before the first step, or where Adam on their sum ends, the largest
  (the last multiplied by the ratio) is at least ten times the smallest.
- E4 holds if signSGD has a lower delta-m than SGD in more than half of the
  pairs of a method and a ratio, and if AdaTask's delta-m is lower than that of
  Adam on the sum of the losses in the mean over ratios.

SGD and signSGD have momentum. A number counts as larger or lower where its
whole interval is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report import verdicts
from experiments.studies.optimizer.runs import Selected
from mtljax.diagnostics import hypervolume, non_dominated

#: Each optimizer with the one that takes the tasks' gradients apart.
SIDES = {'adam': ('adam', 'adatask'), 'momentum': ('momentum', 'mtl_io')}
MIN_RATES = 10
MIN_SCALES = 10.0
SUM = 'sum_losses'


class Grid:
  """The selected runs, by what they are.

  Args:
    selected: one a method, optimizer and ratio.
    higher_is_better: one a measure; none: it is of all.

  Attributes:
    selected: likewise.
    ratios: in ascending order.
    signs: 1 for each measure of which more is better, -1 for the others.
  """

  def __init__(
    self,
    selected: Sequence[Selected],
    higher_is_better: Sequence[bool] = (),
  ):
    self.selected = list(selected)
    self.signs = np.where(higher_is_better or (True,), 1.0, -1.0)
    self.ratios = sorted({x.ratio for x in selected})
    self._by_key = {(x.optimizer, x.method, x.ratio): x for x in selected}

  def has(self, optimizer: str, method: str) -> bool:
    """Whether there are runs of it at every ratio."""
    return all((optimizer, method, r) in self._by_key for r in self.ratios)

  def methods(self, *optimizers: str) -> list[str]:
    """The methods that have runs with all these optimizers at every ratio."""
    names = dict.fromkeys(x.method for x in self.selected if x.method)
    return [m for m in names if all(self.has(o, m) for o in optimizers)]

  def seeds(self) -> list[int]:
    """The seeds that everything has been run with."""
    if not self.selected:
      return []
    found = set.intersection(*(set(x.runs) for x in self.selected))
    return sorted(found)

  def of_side(self, side: str, ratio: float) -> list[Selected]:
    """What counts as Adam's, or as SGD's, at a ratio."""
    return [
      x
      for x in self.selected
      if x.ratio == ratio and x.optimizer in SIDES[side]
    ]

  def loss_scales(self, ratio: float) -> tuple[float, float]:
    """How many times the smallest of the losses the largest is.

    Before the first step, and at the best epoch of Adam on their sum;
    geometric means over seeds, NaN where it is not known.
    """
    first = [x for x in self.selected if x.ratio == ratio][:1]
    cell = self._by_key.get(('adam', SUM, ratio))
    starts = [run.start for x in first for run in x.runs.values()]
    ends = [run.end for run in cell.runs.values()] if cell else []
    start, end = (
      float(np.exp(np.mean(np.log(x)))) if x else math.nan
      for x in (starts, ends)
    )
    return start, end

  def drop(self, optimizer: str, method: str, ratio: float, seed: int) -> float:
    """Test delta-m of a run."""
    return self._by_key[optimizer, method, ratio].runs[seed].test

  def drops(
    self, ratio: float, seed: int, optimizers: Sequence[str]
  ) -> np.ndarray:
    """Test delta-m of a row a method and a column an optimizer."""
    return np.array(
      [
        [self.drop(o, m, ratio, seed) for o in optimizers]
        for m in self.methods(*optimizers)
      ]
    ).reshape(-1, len(optimizers))


class Front(NamedTuple):
  """How many runs of a side are worth having, as in the paper's Table 2.

  Attributes:
    ratio: of the losses.
    side: ``'adam'`` or ``'momentum'``.
    runs: how many there are, of all seeds.
    optimal: those that no run of either side dominates.
    unbeaten: those that no run of the other side dominates.
    hypervolume: of the test scores that they dominate, from 0; None where
      less is better of one.
  """

  ratio: float
  side: str
  runs: int
  optimal: int
  unbeaten: int
  hypervolume: float | None


def points(
  grid: Grid, cells: Iterable[Selected], seeds: Sequence[int]
) -> np.ndarray:
  """Test scores, a row a run, turned so that lower is better of all."""
  scores = [cell.runs[seed].scores for cell in cells for seed in seeds]
  return -grid.signs * np.array(scores, np.float64)


def fronts(grid: Grid) -> list[Front]:
  """Pareto-optimal runs of both sides over all seeds, at every ratio."""
  found = []
  seeds = grid.seeds()
  more = bool(np.all(grid.signs > 0))
  for ratio in grid.ratios:
    by_side = {side: grid.of_side(side, ratio) for side in SIDES}
    if not seeds or not all(by_side.values()):
      continue
    own = {side: points(grid, cells, seeds) for side, cells in by_side.items()}
    everyone = np.concatenate(list(own.values()))
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
      found.append(
        Front(
          ratio,
          side,
          len(own[side]),
          int(non_dominated(own[side], everyone).sum()),
          int(non_dominated(own[side], own[other]).sum()),
          hypervolume(own[side], np.zeros(everyone.shape[1])) if more else None,
        )
      )
  return found


def unbeaten(
  grid: Grid, side: str, ratio: float, seed: int
) -> dict[tuple[str, str], bool]:
  """Which runs of a side none of the other, of the same seed, dominates."""
  other = next(name for name in SIDES if name != side)
  cells, against = grid.of_side(side, ratio), grid.of_side(other, ratio)
  if not cells or not against:
    return {}
  kept = non_dominated(
    points(grid, cells, [seed]), points(grid, against, [seed])
  )
  return {
    (x.optimizer, x.method): bool(k) for x, k in zip(cells, kept, strict=True)
  }


def gap(grid: Grid, ratio: float, seed: int) -> float:
  """SGD's delta-m less Adam's, mean over methods."""
  adam, momentum = grid.drops(ratio, seed, tuple(SIDES)).T
  return float(np.mean(momentum - adam))


def spread(grid: Grid, ratio: float, seed: int) -> float:
  """Standard deviation of delta-m over methods, mean of Adam and SGD."""
  return float(grid.drops(ratio, seed, tuple(SIDES)).std(0, ddof=1).mean())


def variance_shares(values: np.ndarray) -> dict[str, float]:
  r"""Shares of the sum of squares in a balanced two-way layout.

  With :math:`x_{smo}` the delta-m of seed s, method m and optimizer o, and a
  dot for a mean,

  .. math::
     \sum (x_{smo} - x_{...})^2 =
       SM \sum_o (x_{..o} - x_{...})^2
       + SO \sum_m (x_{.m.} - x_{...})^2
       + S \sum_{mo} (x_{.mo} - x_{.m.} - x_{..o} + x_{...})^2
       + \sum (x_{smo} - x_{.mo})^2

  are the parts of the optimizer, the method, both together and the seed. With
  two optimizers and many methods, the optimizer has fewer degrees of freedom.

  Args:
    values: shape ``(S, M, O)``.

  Returns:
    The share of each part in the total, in [0, 1]; NaN where nothing varies.

  Example:
    >>> import numpy as np
    >>> shares = variance_shares(np.array([[[1.0, 3.0], [2.0, 4.0]]]))
    >>> print(shares['optimizer'], shares['method'], shares['seed'])
    0.8 0.2 0.0
  """
  seeds, methods, optimizers = values.shape
  mean = values.mean()
  cell = values.mean(0)
  method, optimizer = cell.mean(1), cell.mean(0)
  both = cell - method[:, None] - optimizer + mean
  total = float(((values - mean) ** 2).sum())
  parts = {
    'optimizer': seeds * methods * ((optimizer - mean) ** 2).sum(),
    'method': seeds * optimizers * ((method - mean) ** 2).sum(),
    'both together': seeds * (both**2).sum(),
    'seed': ((values - cell) ** 2).sum(),
  }
  return {
    name: float(part) / total if total else float('nan')
    for name, part in parts.items()
  }


def shares(
  grid: Grid, ratio: float, optimizers: Sequence[str]
) -> dict[str, float]:
  """`variance_shares` of the delta-m at a ratio, {} where they are too few."""
  seeds = grid.seeds()
  if not seeds or len(grid.methods(*optimizers)) < 2:
    return {}
  return variance_shares(
    np.stack([grid.drops(ratio, seed, optimizers) for seed in seeds])
  )


def claims(
  grid: Grid, *, num_rates: int, min_seeds: int, min_rates: int = MIN_RATES
) -> list[verdicts.Verdict]:
  """The verdicts on E2, E3 and E4."""
  return [
    _pareto(grid, num_rates, min_rates, min_seeds),
    _variance(grid, min_seeds),
    _signs(grid, min_seeds),
  ]


def _pareto(
  grid: Grid, num_rates: int, min_rates: int, min_seeds: int
) -> verdicts.Verdict:
  enough = num_rates >= min_rates
  wanted = 'above' if enough else None
  kept = {
    (side, ratio, seed): unbeaten(grid, side, ratio, seed)
    for side in SIDES
    for ratio in grid.ratios
    for seed in grid.seeds()
  }
  measured = []
  for ratio in grid.ratios:
    values = {
      seed: float(
        np.mean(list(kept['adam', ratio, seed].values()))
        - np.mean(list(kept['momentum', ratio, seed].values()))
      )
      for seed in grid.seeds()
      if kept['adam', ratio, seed]
    }
    measured += verdicts.measure(
      f'ratio {ratio:g}: share of runs that no run of the other optimizer '
      'dominates, Adam less SGD',
      values,
      wanted,
    )
  for method in grid.methods(*SIDES):
    values = {
      seed: float(
        np.mean(
          [
            kept['adam', r, seed]['adam', method]
            - kept['momentum', r, seed]['momentum', method]
            for r in grid.ratios
          ]
        )
      )
      for seed in grid.seeds()
    }
    measured += verdicts.measure(
      f'{method}: the same of its runs, mean over ratios', values, wanted
    )
  for ratio in grid.ratios:
    for method in grid.methods(*SIDES):
      values = {
        seed: grid.drop('adam', method, ratio, seed)
        - grid.drop('momentum', method, ratio, seed)
        for seed in grid.seeds()
      }
      measured += verdicts.measure(
        f'ratio {ratio:g}, {method}: delta-m, Adam less SGD', values, None
      )
  return verdicts.verdict(
    'E2',
    'Where the learning rate of each is tuned, runs with Adam make up the '
    'Pareto set against those with SGD and momentum, with every method.',
    'of the runs at their selected learning rates, Adam (with AdaTask) has a '
    'larger share that no run of SGD (with MTL-IO) of the same seed dominates '
    'than SGD has the other way round: at every ratio, and for every method in '
    f'the mean over ratios. Needs {min_rates} learning rates.',
    measured,
    min_seeds=min_seeds,
    remark='' if enough else f'{num_rates} learning rates are too few.',
  )


def _number(value: float) -> str:
  return 'an unknown number of' if math.isnan(value) else f'{value:.3g}'


def _variance(grid: Grid, min_seeds: int) -> verdicts.Verdict:
  measured, remark = [], ''
  if len(grid.methods(*SIDES)) > 1:
    low, high = grid.ratios[0], grid.ratios[-1]
    several = low < high
    start, end = grid.loss_scales(high)
    apart = several or np.fmax(start, end) >= MIN_SCALES
    if not several:
      remark = (
        f'At the one ratio the largest loss is {_number(start)} times the '
        f'smallest before the first step and {_number(end)} times where Adam '
        'on the sum ends.'
      )
      if not apart:
        remark += f' With less than {MIN_SCALES:g} times it is not judged.'
    gaps = {
      ratio: {seed: gap(grid, ratio, seed) for seed in grid.seeds()}
      for ratio in grid.ratios
    }
    for ratio, by_seed in gaps.items():
      measured += verdicts.measure(
        f'ratio {ratio:g}: gap between SGD and Adam less the spread of methods',
        {s: x - spread(grid, ratio, s) for s, x in by_seed.items()},
        'above' if ratio == high and apart else None,
      )
    if several:
      measured += verdicts.measure(
        f'gap at ratio {high:g} less that at {low:g}',
        {seed: gaps[high][seed] - gaps[low][seed] for seed in grid.seeds()},
        'above',
      )
    for ratio, by_seed in gaps.items():
      measured += verdicts.measure(
        f'ratio {ratio:g}: gap between SGD and Adam', by_seed, None
      )
    for ratio in grid.ratios:
      values = {}
      for seed in grid.seeds():
        own = variance_shares(grid.drops(ratio, seed, tuple(SIDES))[None])
        values[seed] = own['optimizer'] - own['method']
      measured += verdicts.measure(
        f'ratio {ratio:g}: share of variance, optimizer less method',
        {s: x for s, x in values.items() if np.isfinite(x)},
        None,
      )
  return verdicts.verdict(
    'E3',
    'The gap between Adam and SGD is larger than the spread between methods '
    'where the scales of the losses differ much, and shrinks otherwise.',
    'at the largest ratio, the mean over methods of the delta-m of SGD less '
    "that of Adam exceeds the methods' standard deviation (mean of both "
    'optimizers), and exceeds that mean at the smallest ratio. With one ratio, '
    f'the first alone, where the largest loss is {MIN_SCALES:g} times the '
    'smallest.',
    measured,
    min_seeds=min_seeds,
    remark=remark,
  )


def _signs(grid: Grid, min_seeds: int) -> verdicts.Verdict:
  pair = ('signsgd', 'momentum')
  measured = []
  if grid.methods(*pair):
    values = {
      seed: float(
        np.mean(
          np.concatenate(
            [
              sign < momentum
              for sign, momentum in (
                grid.drops(r, seed, pair).T for r in grid.ratios
              )
            ]
          )
        )
      )
      for seed in grid.seeds()
    }
    measured += verdicts.measure(
      'share of pairs of method and ratio in which signSGD has a lower '
      'delta-m than SGD',
      values,
      'above',
      0.5,
    )
  both = grid.has('adatask', '') and grid.has('adam', SUM)
  if both:
    values = {
      seed: float(
        np.mean(
          [
            grid.drop('adatask', '', r, seed) - grid.drop('adam', SUM, r, seed)
            for r in grid.ratios
          ]
        )
      )
      for seed in grid.seeds()
    }
    measured += verdicts.measure(
      'delta-m of AdaTask less that of Adam on the sum, mean over ratios',
      values,
      'below',
    )
  complete = len(measured) == 2
  for ratio in grid.ratios:
    for method in grid.methods(*pair):
      values = {
        seed: grid.drop('signsgd', method, ratio, seed)
        - grid.drop('momentum', method, ratio, seed)
        for seed in grid.seeds()
      }
      measured += verdicts.measure(
        f'ratio {ratio:g}, {method}: delta-m, signSGD less SGD', values, None
      )
    if both:
      values = {
        seed: grid.drop('adatask', '', ratio, seed)
        - grid.drop('adam', SUM, ratio, seed)
        for seed in grid.seeds()
      }
      measured += verdicts.measure(
        f'ratio {ratio:g}: delta-m, AdaTask less Adam on the sum', values, None
      )
  if not complete:
    measured = [m._replace(wanted=None) for m in measured]
  return verdicts.verdict(
    'E4',
    'SignSGD with momentum is better than SGD with momentum in most setups, '
    'and AdaTask is at least as good as Adam on the sum of the losses.',
    'signSGD has the lower delta-m in more than half of the pairs of a method '
    'and a ratio, and AdaTask has a lower one than Adam on the sum in the mean '
    'over ratios; equal means are undecided.',
    measured,
    min_seeds=min_seeds,
  )
