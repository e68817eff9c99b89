"""The claims F1 to F10, each from the rows of the study to a verdict.

A number is the mean of paired differences over seeds (of averages over
methods, where several are pooled). A claim's rule is in its function; what it
decides with is `_statistics.decide`. What the paper says of the accuracy is
tested on the metric of the data set, in percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.report.statistics import decide
from experiments.report.verdicts import Measured, Verdict, measure, verdict
from experiments.studies.flat_regions.rows import Rows, paired, pooled, score

NEAR_ZERO = 0.05  # a conflict rate that counts as about 0
SMALLEST_GAIN = 0.6  # points: the least that the paper reports for F1
MOST_TIME = 2.1
TWO_LEVEL = ('mgda', 'pcgrad', 'cagrad', 'imtl_g')


def f1(rows: Rows) -> Verdict:
  """F-A beats A in test accuracy, also at equal compute."""
  measured: list[Measured] = []
  for forms, name in ((('flat', 'plain'), 'A'), (('flat', '2x'), 'A, 2x')):
    each = {
      base: paired(rows, 'main', base, forms)
      for base in rows.bases('main', *forms)
    }
    for base, values in each.items():
      measured += measure(f'F-{base} - {name}', values, 'above')
    pool = pooled(list(each.values()))
    measured += measure(f'all: F-A - {name}', pool, None)
  each = {
    base: paired(rows, 'main', base, ('2x', 'plain'))
    for base in rows.bases('main', '2x', 'plain')
  }
  longer = measure('all: A, 2x - A', pooled(list(each.values())), None)
  remark = ''
  if longer and decide(longer[0].value, min_seeds=rows.min_seeds) == 'above':
    remark = (
      f'A itself still gains {longer[0].value.mean:.2f} points from twice the '
      'epochs: training has not converged, and a method that learns more '
      'slowly is behind for that reason alone.'
    )
  measured += longer
  return verdict(
    'F1',
    'F-A has a higher test accuracy than A, for every A (+0.6 to +1.3 points '
    'in the paper).',
    'For every A, F-A is above A and above A trained for twice the epochs.',
    measured,
    min_seeds=rows.min_seeds,
    remark=remark,
  )


def f2(rows: Rows) -> Verdict:
  """Aggregating losses and flatness apart beats aggregating SAM gradients."""
  measured: list[Measured] = []
  for form, name in (('direct', 'direct'), ('direct_matched', 'same length')):
    for base in rows.bases('main', 'flat', form):
      if base in TWO_LEVEL:
        values = paired(rows, 'main', base, ('flat', form))
        measured += measure(f'{base}: separate - {name}', values, 'above')
  for base in rows.bases('main', 'matched', 'plain'):
    values = paired(rows, 'main', base, ('matched', 'plain'))
    measured += measure(f'{base}: A of length F-A - A', values, None)
  return verdict(
    'F2',
    'Aggregating loss and flat gradients apart is better than aggregating the '
    'SAM gradients (much so for MGDA).',
    'For MGDA, PCGrad, CAGrad and IMTL-G, separate is above direct, and above '
    'direct with its shared update as long as that of separate.',
    measured,
    min_seeds=rows.min_seeds,
  )


def f3(rows: Rows) -> Verdict:
  """Adding the two aggregates is as good as aggregating once more."""
  measured: list[Measured] = []
  for form in ('second', 'each'):
    for base in rows.bases('main', 'flat', form):
      flat = [
        score(row, rows.metric)
        for row in rows.seeds('main', base, 'flat').values()
      ]
      spread = float(np.std(flat, ddof=1)) if len(flat) > 1 else math.nan
      values = paired(rows, 'main', base, ('flat', form))
      name = f'{base}: separate - {form}'
      measured += measure(f'{name} < sd', values, 'below', spread)
      measured += measure(f'{name} > -sd', values, 'above', -spread)
  return verdict(
    'F3',
    'Adding both aggregates is as good as aggregating them once more '
    '(second) or task by task first (each).',
    "Every difference's interval lies within one standard deviation of F-A "
    'over seeds, on both sides.',
    measured,
    min_seeds=rows.min_seeds,
  )


def f4(rows: Rows) -> Verdict:
  """Conflict all but vanishes under F-A."""
  measured: list[Measured] = []
  name = 'train/conflict'
  each = []
  for base in rows.bases('main', 'flat', 'plain'):
    values = paired(rows, 'main', base, ('flat', 'plain'), name)
    measured += measure(f'{base}: F-A - A', values, 'below')
    each.append(
      {
        seed: score(row, name)
        for seed, row in rows.seeds('main', base, 'flat').items()
      }
    )
  measured += measure('rate under F-A', pooled(each), 'below', NEAR_ZERO)
  for form, label in (('plain', 'A'), ('sam', 'G-SAM + A')):
    rates = [
      {
        seed: score(row, name)
        for seed, row in rows.seeds('main', base, form).items()
      }
      for base in rows.bases('main', form)
    ]
    measured += measure(f'rate under {label}', pooled(rates), None)
  return verdict(
    'F4',
    'The share of mini-batches in which the tasks conflict falls to about 0 '
    'under F-A and stays near one half under A.',
    f'For every A the rate is lower under F-A, and under {NEAR_ZERO:g} on '
    'average.',
    measured,
    min_seeds=rows.min_seeds,
    remark='Measured at the selected state, on the loss gradients of fixed '
    'training batches.',
  )


def f5(rows: Rows) -> Verdict:
  """F-A ends in flatter, better calibrated solutions."""
  measured: list[Measured] = []
  for name in (
    'train/sharpness_0.05',
    'train/sharpness_0.01',
    'train/grad_norm',
    'train/flat_grad_norm',
    'test/ece',
    'test/brier',
  ):
    each = [
      paired(rows, 'main', base, ('flat', 'plain'), name)
      for base in rows.bases('main', 'flat', 'plain')
    ]
    measured += measure(f'{name}: F-A - A', pooled(each), 'below')
  return verdict(
    'F5',
    'F-A has lower sharpness, smaller gradient norms and lower calibration '
    'error (ECE, Brier).',
    'Averaged over the A, all six numbers are lower under F-A.',
    measured,
    min_seeds=rows.min_seeds,
  )


def f6(rows: Rows) -> Verdict:
  """SAM without task-wise flatness does not explain the gain."""
  measured: list[Measured] = []
  for base in rows.bases('main', 'flat', 'sam'):
    values = paired(rows, 'main', base, ('flat', 'sam'))
    measured += measure(f'F-{base} - (G-SAM + {base})', values, 'above')
  best = 'imtl_g' if rows.seeds('main', 'imtl_g', 'flat') else ''
  if best:
    flat = rows.seeds('main', best, 'flat')
    others = {
      'F-LS (F-mean)': rows.seeds('main', 'mean', 'flat'),
      'G-SAM on the mean': rows.seeds('main', 'mean', 'sam'),
      'F-STL': _single(rows, 'sam'),
      'STL': _single(rows, 'plain'),
    }
    for label, other in others.items():
      values = {
        seed: score(flat[seed], rows.metric) - score(other[seed], rows.metric)
        for seed in flat
        if seed in other
      }
      wanted = None if label == 'STL' else 'above'
      measured += measure(f'F-{best} - {label}', values, wanted)
  return verdict(
    'F6',
    'The gain is not that of SAM as such: F-IMTL beats SAM on the mean (F-LS) '
    'and on single tasks (F-STL).',
    'Every F-A is above G-SAM + A, and F-IMTL-G above F-LS, G-SAM on the mean '
    'and F-STL.',
    measured,
    min_seeds=rows.min_seeds,
  )


def _single(rows: Rows, form: str) -> dict[int, dict[str, Any]]:
  """Rows that hold both tasks, each trained alone."""
  cells = [
    cell
    for key, cell in rows.found.items()
    if key[0] == 'main' and key[1].startswith('single_') and key[2] == form
  ]
  if len(cells) < 2:
    return {}
  common = set.intersection(*(set(cell) for cell in cells))
  found: dict[int, dict[str, Any]] = {}
  for seed in sorted(common):
    found[seed] = {}
    for cell in cells:
      row = cell[seed]
      found[seed] |= {k: v for k, v in row.items() if v not in ('', None)}
  return found


def f7(rows: Rows) -> Verdict:
  """The aggregators differ less under F-."""
  bases = rows.bases('main', 'flat', 'plain')
  values: dict[int, float] = {}
  if len(bases) > 1:
    spreads = {}
    for form in ('flat', 'plain'):
      cells = [rows.seeds('main', base, form) for base in bases]
      for seed in set.intersection(*(set(cell) for cell in cells)):
        scores = [score(cell[seed], rows.metric) for cell in cells]
        spreads[form, seed] = max(scores) - min(scores)
    values = {
      seed: x - spreads['plain', seed]
      for (form, seed), x in sorted(spreads.items())
      if form == 'flat' and ('plain', seed) in spreads
    }
  return verdict(
    'F7',
    'The gaps between the aggregators shrink under F-A.',
    'The range of the accuracies over the A is smaller under F-A.',
    measure('range under F-A - range under A', values, 'below'),
    min_seeds=rows.min_seeds,
  )


def f8(rows: Rows) -> Verdict:
  """The radius hardly matters."""
  measured: list[Measured] = []
  bases = dict.fromkeys(key[1] for key in rows.found if key[0] == 'sweep')
  for base in bases:
    for ascent in ('plain', 'adaptive'):
      cells = {
        rho: rows.seeds('sweep', base, 'flat', ascent=ascent, rho=rho)
        for rho in rows.radii(base, ascent)
      }
      if len(cells) < 2:
        continue
      means = {
        rho: float(np.mean([score(r, rows.metric) for r in cell.values()]))
        for rho, cell in cells.items()
      }
      best, worst = max(means, key=means.get), min(means, key=means.get)
      values = {
        seed: score(cells[best][seed], rows.metric)
        - score(cells[worst][seed], rows.metric)
        for seed in cells[best]
        if seed in cells[worst]
      }
      label = f'{base}, {ascent}: rho={best:g} - rho={worst:g}'
      measured += measure(label, values, 'below', SMALLEST_GAIN)
  return verdict(
    'F8',
    'F-A is not sensitive to its radius.',
    f'The best and the worst radius of a sweep differ by under {SMALLEST_GAIN} '
    'points, the least gain that the paper reports for F1.',
    measured,
    min_seeds=rows.min_seeds,
    remark='Best and worst are picked by these same runs, which makes the '
    'difference a little too large.',
  )


def f9(rows: Rows) -> Verdict:
  """F-A helps where a task has few or wrong labels."""
  measured: list[Measured] = []
  for variant in [*rows.variants('low_resource'), *rows.variants('noisy')]:
    for forms, name in ((('flat', 'plain'), 'A'), (('flat', '2x'), 'A, 2x')):
      each = [
        paired(rows, variant, base, forms)
        for base in rows.bases(variant, *forms)
      ]
      measured += measure(f'{variant}: F-A - {name}', pooled(each), 'above')
  return verdict(
    'F9',
    'F-A helps where one task has few labels or wrong ones.',
    'Averaged over the A and both tasks, F-A is above A and above A for twice '
    'the epochs, for every share of labels removed or flipped.',
    measured,
    min_seeds=rows.min_seeds,
  )


def f10(rows: Rows) -> Verdict:
  """F-A takes at most 2.1 times as long a step."""
  measured: list[Measured] = []
  for base, times in rows.costs.items():
    ratios = [
      flat / plain
      for plain, flat in zip(times['plain'], times['flat'], strict=True)
    ]
    # The mean alone needs one backward pass in its plain form, not T.
    wanted = None if base == 'mean' else 'below'
    label = f'{base}: time of F-A / time of A'
    measured += measure(label, ratios, wanted, MOST_TIME)
    if 'mean' in rows.costs and base != 'mean':
      floor = [
        flat / least
        for flat, least in zip(
          times['flat'], rows.costs['mean']['flat'], strict=True
        )
      ]
      measured += measure(f'{base}: time of F-A / floor', floor, None)
  return verdict(
    'F10',
    'F-A takes 2T backward passes, and at most 2.1 times as long a step as A.',
    f'For every A that takes T backward passes itself, the ratio is under '
    f'{MOST_TIME}.',
    measured,
    min_seeds=rows.min_seeds,
    remark='Intervals are over rounds of one process, not over seeds. The '
    'floor is F-mean: 1 + T forward and 2T backward passes, and no solver.',
  )


CLAIMS: tuple[Callable[[Rows], Verdict], ...] = (
  f1,
  f2,
  f3,
  f4,
  f5,
  f6,
  f7,
  f8,
  f9,
  f10,
)


def verdicts(rows: Rows) -> list[Verdict]:
  """All claims."""
  return [claim(rows) for claim in CLAIMS]
