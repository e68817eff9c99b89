"""The claims TC1, TC2 and TC3, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected
from mtljax.diagnostics import hypervolume

NAME = 'tradeoffs'
GRID = 'fixed'
#: A run a preference, by a method of the library.
RUNS = (GRID, 'cosmos', 'pbi', 'epo', 'pmtl', 'pmgda')
#: Those whose authors say that they cover more than the grid.
BETTER = ('cosmos', 'epo', 'pmtl', 'pmgda')
#: Those that look for one point of the front.
EXACT = ('epo', 'pmgda')
#: One network for the whole curve, by how it has the preference.
NETWORKS = ('input', 'interpolate', 'low_rank', 'hypernetwork')
CURVES = (*RUNS, *NETWORKS)
#: Normalised losses are 0 at the grid's best and 1 at its worst.
REFERENCE = 1.1
#: What one network for all may lose of the grid's volume.
MARGIN = 0.05
#: Rank correlation of losses with what was asked for.
FOLLOWS = 0.9

#: By curve and seed: test losses, a row a preference, shape ``(K, T)``.
Curves = Mapping[str, Mapping[int, np.ndarray]]


def ends_of(curves: Curves) -> tuple[np.ndarray, np.ndarray] | None:
  """Best and worst loss of each task over the grid, all seeds; None: no grid.

  They are the unit in which all curves are measured.
  """
  points = list(curves.get(GRID, {}).values())
  if not points:
    return None
  both = np.concatenate(points)
  low, high = both.min(0), both.max(0)
  return (low, high) if np.all(high > low) else None


def normalize(
  points: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
  """Losses in units of the grid's: 0 its best, 1 its worst."""
  low, high = ends
  return (points - low) / (high - low)


def volumes(curves: Curves) -> dict[str, dict[int, float]]:
  """The normalised hypervolume of each curve and seed; none without a grid."""
  ends = ends_of(curves)
  if ends is None:
    return {}
  return {
    curve: {
      seed: hypervolume(
        normalize(points, ends), np.full(points.shape[1], REFERENCE)
      )
      for seed, points in found.items()
    }
    for curve, found in curves.items()
  }


def follows(points: np.ndarray, rays: np.ndarray) -> float:
  """How losses rank as the preferences ask, from -1 to 1.

  Of each task, Spearman's correlation of its share of the losses with its
  entry of the ray; their mean.
  """
  shares = points / points.sum(1, keepdims=True)
  ranks = lambda x: np.argsort(np.argsort(x, axis=0, kind='stable'), axis=0)
  found = [
    np.corrcoef(a, b)[0, 1]
    for a, b in zip(ranks(shares).T, ranks(rays).T, strict=True)
  ]
  return float(np.mean(found))


def gains(
  found: Mapping[str, Mapping[int, float]], curve: str, other: str = GRID
) -> dict[int, float]:
  """Of each seed that both have, the volume more than the other's."""
  a, b = found.get(curve, {}), found.get(other, {})
  return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def claims(
  curves: Curves, rays: np.ndarray, min_seeds: int
) -> list[verdicts.Verdict]:
  """The verdicts on TC1, TC2 and TC3."""
  found = volumes(curves)
  count = len(BETTER) + len(NETWORKS) + len(EXACT)
  level = corrected(count)
  return [
    verdicts.verdict(
      'TC1',
      'Methods that are given a preference draw a better curve than a grid of '
      'fixed weights.',
      f'at equal compute the hypervolume of {", ".join(BETTER)} is above the '
      "grid's, each; it does not hold where one is below.",
      _differences(found, BETTER, 0.0, level),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'TC2',
      'One network that reads the preference draws the whole curve.',
      f'at equal compute the hypervolume of {", ".join(NETWORKS)} is less than '
      f"{MARGIN:g} below the grid's, each; it does not hold where one is "
      'farther.',
      _differences(found, NETWORKS, -MARGIN, level),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'TC3',
      'Methods that look for a point of the front find the one asked for.',
      'the rank correlation of losses with what was asked for is above '
      f'{FOLLOWS:g} for {", ".join(EXACT)}, each; it does not hold where one '
      'is below.',
      [
        number
        for curve in CURVES
        for number in verdicts.measure(
          f'rank correlation with the preference: {curve}',
          {seed: follows(x, rays) for seed, x in curves.get(curve, {}).items()},
          'above' if curve in EXACT else None,
          FOLLOWS if curve in EXACT else 0.0,
          level,
        )
      ]
      if _whole(curves, EXACT)
      else [],
      min_seeds=min_seeds,
    ),
  ]


def _whole(found: Mapping[str, Mapping[int, object]], names) -> bool:
  """Whether all are there: a claim is judged whole."""
  return all(found.get(name) for name in names)


def _differences(
  found: Mapping[str, Mapping[int, float]],
  names: Sequence[str],
  threshold: float,
  level: float,
) -> list[verdicts.Measured]:
  if not _whole(found, (GRID, *names)):
    return []
  return [
    number
    for name in names
    for number in verdicts.measure(
      f'hypervolume of {name} less that of the grid',
      gains(found, name),
      'above',
      threshold,
      level,
    )
  ]
