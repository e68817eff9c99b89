"""The learning rates of a run."""

import pytest

from experiments.lab.optimizers import make_schedule


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('cosine', {0: 0.4, 100: 0.2, 200: 0.0}),
    ('constant', {0: 0.4, 100: 0.4, 200: 0.4}),
    ('step', {0: 0.4, 79: 0.4, 80: 0.1, 159: 0.1, 160: 0.025}),
  ],
)
def test_schedule(name, expected):
  rate = make_schedule(name, 0.4, 200, every=80, factor=0.25)
  for step, value in expected.items():
    assert float(rate(step)) == pytest.approx(value, abs=1e-7), step
