"""Paired comparisons over seeds: differences, intervals, what they decide."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

RESAMPLES = 9999
LEVEL = 0.95
MIN_SEEDS = 3

Decision = Literal['above', 'below', 'undecided']


class Interval(NamedTuple):
  """The mean of paired differences, and how well it is known.

  Attributes:
    mean: the mean.
    error: its standard error; NaN for fewer than two seeds.
    low: lower end of the wider of the two intervals; NaN likewise.
    high: upper end of it.
    bootstrap: both ends of the percentile bootstrap interval.
    n: the number of seeds.
  """

  mean: float
  error: float
  low: float
  high: float
  bootstrap: tuple[float, float]
  n: int


def interval(
  differences: Sequence[float] | np.ndarray, level: float = LEVEL
) -> Interval:
  """The mean of differences over seeds with intervals, of 95 % by default.

  Two intervals are taken: the percentile bootstrap (9,999 resamples, seeded)
  and Student's t. A bootstrap of three numbers only knows ten means, and is
  far too narrow: so ``low`` and ``high`` are the outer ends of both.

  Args:
    differences: one number a seed, from runs with the same initialisation and
      the same order of the data.
    level: of both intervals; see `corrected`.

  Returns:
    The `Interval`.

  Raises:
    ValueError: there are no differences, or one is not finite.
  """
  values = np.asarray(differences, np.float64)
  if values.ndim != 1 or not values.size or not np.isfinite(values).all():
    raise ValueError(f'differences={differences!r} must be finite numbers.')
  n, mean = values.size, float(values.mean())
  if n < 2:
    nan = math.nan
    return Interval(mean, nan, nan, nan, (nan, nan), n)
  error = float(values.std(ddof=1) / math.sqrt(n))
  if np.ptp(values) == 0:  # neither interval has a width, scipy warns of it
    return Interval(mean, 0.0, mean, mean, (mean, mean), n)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', scipy.stats.DegenerateDataWarning)
    found = scipy.stats.bootstrap(
      (values,),
      np.mean,
      confidence_level=level,
      n_resamples=RESAMPLES,
      method='percentile',
      rng=np.random.default_rng(0),
    ).confidence_interval
  bootstrap = float(found.low), float(found.high)
  half = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1)) * error
  low, high = min(bootstrap[0], mean - half), max(bootstrap[1], mean + half)
  return Interval(mean, error, low, high, bootstrap, n)


def corrected(count: int) -> float:
  """Bonferroni's level: all of ``count`` intervals hold with 95 % together."""
  return 1 - (1 - LEVEL) / max(count, 1)


def decide(
  found: Interval, threshold: float = 0.0, *, min_seeds: int = MIN_SEEDS
) -> Decision:
  """On which side of a threshold a mean is, if that is known.

  Args:
    found: what `interval` returned.
    threshold: the number compared with.
    min_seeds: with fewer seeds nothing is decided.

  Returns:
    ``'above'`` or ``'below'`` where both intervals lie on that side of the
    threshold, else ``'undecided'``.
  """
  if found.n < min_seeds:
    return 'undecided'
  if found.low > threshold:
    return 'above'
  return 'below' if found.high < threshold else 'undecided'
