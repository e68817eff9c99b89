import math

import numpy as np
import pytest

from mtljax.metrics import robustness_delta


@pytest.mark.parametrize(('higher', 'sign'), [(True, -1), (False, 1)])
def test_is_the_mean_difference_of_ratios(higher, sign):
  ours = np.array([[0.4, 0.2], [0.3, 0.1]])
  single = np.array([[0.6, 0.5], [0.4, 0.2]])
  found = robustness_delta(ours, 0.5, single, 0.8, higher_is_better=higher)
  # Ratios .8, .4, .6, .2 (mean .5) and .75, .625, .5, .25 (mean .53125).
  assert found == pytest.approx(sign * (0.5 - 0.53125))


def test_does_not_depend_on_the_scale_of_a_model():
  ours, single = [0.4, 0.2], [0.6, 0.5]
  found = robustness_delta(ours, 0.5, single, 0.8, higher_is_better=True)
  again = robustness_delta([4, 2], 5, single, 0.8, higher_is_better=True)
  assert found == pytest.approx(again)


def test_edge_cases():
  same = robustness_delta([0.4], 0.8, [0.2], 0.4, higher_is_better=True)
  assert same == 0
  lost = robustness_delta([math.nan], 1, [1], 1, higher_is_better=True)
  assert math.isnan(lost)


@pytest.mark.parametrize(
  ('values', 'text'),
  [
    (([1.0], 1.0, [1.0, 2.0], 1.0), r'\(1,\) and \(2,\)'),
    (([], 1.0, [], 1.0), r'\(0,\)'),
    (([1.0], 0.0, [1.0], 1.0), 'clean=0.0'),
    (([1.0], 1.0, [1.0], math.inf), 'baseline_clean=inf'),
  ],
)
def test_bad_input(values, text):
  with pytest.raises(ValueError, match=text):
    robustness_delta(*values, higher_is_better=True)
