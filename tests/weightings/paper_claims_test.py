"""Claims of papers that are algebra, each as it is stated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import contrib, weightings
from mtljax._types import TaskStats

LOSSES = np.array([0.2, 1.0, 1.5])
SCALES = np.array([[10.0], [0.1], [3.0]])


def run(weighting, jacobian=None, losses=None):
  gramian = None if jacobian is None else jnp.asarray(jacobian @ jacobian.T)
  given = None if losses is None else jnp.asarray(losses)
  stats = TaskStats(gramian=gramian, losses=given)
  size = len(losses if jacobian is None else jacobian)
  return np.asarray(weighting.update(stats, weighting.init(size))[0])


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.fixture
def jacobian():
  """Rows that have a common descent direction."""
  rng = np.random.default_rng(3)
  return rng.normal(size=(3, 6)) + 0.4


def test_fairgrad_between_the_sum_and_the_worst_task(x64):
  """FG1: from small to large alpha the least projection rises."""
  # Orthogonal rows of unlike lengths have the closed form.
  lengths = np.array([0.5, 1.0, 4.0])
  jacobian = np.diag(lengths)
  weights_of = jax.jit(
    lambda alpha: weightings.fairgrad(alpha=alpha).update(
      TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T)),
      weightings.fairgrad(alpha=2.0).init(3),
    )[0]
  )
  least, total = [], []
  for alpha in (0.5, 1.0, 2.0, 5.0, 10.0):
    weights = np.asarray(weights_of(alpha))
    np.testing.assert_allclose(
      weights, lengths ** (-2 * alpha / (alpha + 1)), rtol=1e-6
    )
    update = weights @ jacobian
    projections = jacobian @ update / np.linalg.norm(update)
    least.append(projections.min())
    total.append(projections.sum())
  assert np.all(np.diff(least) > 0)
  assert np.all(np.diff(total) < 0)


@pytest.mark.parametrize('alpha', [1.0, 2.0, 5.0])
def test_fairgrad_solves_its_condition(alpha, jacobian, x64):
  weights = run(weightings.fairgrad(alpha=alpha), jacobian)
  projections = jacobian @ (weights @ jacobian)
  np.testing.assert_allclose(projections, weights ** (-1 / alpha), rtol=1e-6)


def test_nash_is_not_changed_by_scales(jacobian, x64):
  """N1: each task's part of the update stays the same."""
  parts = run(weightings.nash_mtl(), jacobian)[:, None] * jacobian
  scaled = jacobian * SCALES
  again = run(weightings.nash_mtl(), scaled)[:, None] * scaled
  np.testing.assert_allclose(again, parts, rtol=1e-10)


def test_nash_balances_projections(jacobian, x64):
  """N2: of each gradient the projection is one over its weight."""
  weights = run(weightings.nash_mtl(), jacobian)
  projections = jacobian @ (weights @ jacobian)
  np.testing.assert_allclose(projections, 1 / weights, rtol=1e-10)


def test_nash_of_two_tasks_is_the_sum_of_unit_gradients(jacobian, x64):
  two = (jacobian * SCALES)[:2]
  units = two / np.linalg.norm(two, axis=1, keepdims=True)
  update = run(weightings.nash_mtl(), two) @ two
  np.testing.assert_allclose(cosine(update, units.sum(0)), 1, rtol=1e-12)


def test_cagrad_between_the_mean_and_mgda(jacobian, x64):
  """C1: at 0 the mean, at 10 almost the direction of MGDA."""
  other = run(weightings.mgda(), jacobian) @ jacobian
  weights = run(weightings.cagrad(c=0.0), jacobian)
  np.testing.assert_allclose(weights, 1 / 3, rtol=1e-12)
  assert cosine(jacobian.mean(0), other) < 0.95  # or there is no way to go
  angles = [
    cosine(run(weightings.cagrad(c=c), jacobian) @ jacobian, other)
    for c in (0.0, 0.5, 2.0, 10.0)
  ]
  assert np.all(np.diff(angles) > 0) and angles[-1] > 0.99


def test_bmtl_favours_the_larger_loss_more_at_a_lower_temperature(x64):
  """B1: the odds of two weights are the exponential of the difference."""
  found = []
  for temperature in (50.0, 1.0, 0.2):
    weights = run(weightings.bmtl(temperature=temperature), losses=LOSSES)
    odds = weights[1:] / weights[:-1]
    expected = np.exp(np.diff(LOSSES) / temperature)
    np.testing.assert_allclose(odds, expected, rtol=1e-9)
    found.append(odds)
  np.testing.assert_allclose(found[0], 1, rtol=0.02)  # the sum, at 50
  assert np.all(np.diff(found, axis=0) > 0)


def test_emtl_leaves_scales_as_they_are(jacobian, x64):
  """EM2, which does not hold: weights do not see a factor on a loss."""
  weighting = contrib.weightings.emtl()
  weights = run(weighting, jacobian, LOSSES)
  scaled = jacobian * SCALES
  again = run(weighting, scaled, LOSSES * SCALES[:, 0])
  np.testing.assert_allclose(again, weights, rtol=1e-9)
  assert cosine(weights @ jacobian, again @ scaled) < 0.95
