"""Paired intervals and what they decide."""

import math

import numpy as np
import pytest

from experiments.report.statistics import decide, interval


def test_both_intervals_are_inside_the_one_that_decides():
  values = [0.5, 0.7, 0.9, 1.1, 1.6]
  found = interval(values)
  assert found.mean == pytest.approx(np.mean(values))
  assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(5))
  half = 2.7764451 * found.error  # 97.5 % quantile of t with 4 degrees
  assert found.low == pytest.approx(found.mean - half)
  assert found.high == pytest.approx(found.mean + half)
  low, high = found.bootstrap
  assert found.low < low < found.mean < high < found.high


def test_same_numbers_same_interval():
  assert interval([0.1, 0.4, 0.2]) == interval([0.1, 0.4, 0.2])


def test_bootstrap_of_three_ends_at_the_extremes():
  # 1 of 27 resamples is all of one value: 3.7 % > 2.5 % on each side.
  assert interval([1.0, 2.0, 3.0]).bootstrap == (1.0, 3.0)


@pytest.mark.parametrize(
  'values, threshold, wanted',
  [
    ([1.0, 1.1, 1.2], 0.0, 'above'),
    ([-1.0, -1.1, -1.2], 0.0, 'below'),
    ([1.0, 1.1, 1.2], 2.0, 'below'),
    ([1.0, 1.1, 1.2], 1.05, 'undecided'),
    ([0.1, 1.0, 3.0], 0.0, 'undecided'),  # all positive, the t interval is not
    ([1.0, 1.1], 0.0, 'undecided'),  # too few seeds
    ([2.0], 0.0, 'undecided'),
    ([1.0, 1.0, 1.0], 0.0, 'above'),
    ([0.0, 0.0, 0.0], 0.0, 'undecided'),
    ([1.0, 1.1, 1.2], math.nan, 'undecided'),
  ],
)
def test_decisions(values, threshold, wanted):
  assert decide(interval(values), threshold) == wanted


def test_fewer_seeds_can_be_asked_for():
  found = interval([1.0, 1.0001])
  assert decide(found, min_seeds=2) == 'above'


def test_one_seed_has_no_interval():
  found = interval([2.0])
  assert found.mean == 2.0
  assert math.isnan(found.low)
  assert math.isnan(found.bootstrap[1])


@pytest.mark.parametrize('values', [[], [math.nan, 1.0], [[1.0]]])
def test_no_numbers_are_refused(values):
  with pytest.raises(ValueError, match='must be finite numbers'):
    interval(values)
