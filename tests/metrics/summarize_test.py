import math

import pytest

from mtljax import metrics


def test_summary_by_hand():
  got = metrics.summarize([2.0, 4.0, 6.0, 8.0])
  # squared deviations 9 + 1 + 1 + 9 = 20, over 3, root, over root of 4
  assert got.mean == 5
  assert got.standard_error == pytest.approx(math.sqrt(20 / 3) / 2)
  assert got.n == 4


def test_one_value_has_no_standard_error():
  got = metrics.summarize(x for x in [3.5])
  assert (got.mean, got.n) == (3.5, 1)
  assert math.isnan(got.standard_error)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_diverged_run_shows(bad):
  got = metrics.summarize([1.0, bad])
  assert not math.isfinite(got.mean)
  assert math.isnan(got.standard_error)


@pytest.mark.parametrize('bad', [[], [[1.0, 2.0]]])
def test_refuses_what_is_not_a_list_of_numbers(bad):
  with pytest.raises(ValueError, match='values must be one or more numbers'):
    metrics.summarize(bad)
