"""What holds for one method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.weightings import _cagrad


def run(weighting, jacobian, losses=None):
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T), losses=losses)
  update = jax.jit(weighting.update)
  return np.asarray(update(stats, weighting.init(len(jacobian)))[0])


@pytest.fixture
def jacobian():
  return np.random.default_rng(0).normal(size=(3, 6)) * [[1.0], [10.0], [0.2]]


@pytest.mark.parametrize('normalize', ['l2', 'loss', 'loss+'])
def test_mgda_normalises_only_to_find_the_weights(jacobian, x64, normalize):
  losses = jnp.array([2.0, 0.5, 7.0])
  lengths = np.ones((3, 1))
  if normalize != 'l2':
    lengths = lengths * losses[:, None]
  if normalize != 'loss':
    lengths = lengths * np.linalg.norm(jacobian, axis=1)[:, None]
  weighting = weightings.mgda(normalize=normalize)
  assert ('losses' in weighting.needs) == (normalize != 'l2')
  weights = run(weighting, jacobian, losses)
  plain = run(weightings.mgda(), jacobian / lengths)
  np.testing.assert_allclose(weights, plain, rtol=1e-9, atol=1e-12)


def test_mgda_by_loss_edge_cases(jacobian):
  weighting = weightings.mgda(normalize='loss')
  with pytest.raises(ValueError, match='losses'):
    run(weighting, jacobian)
  weights = run(weighting, jacobian, jnp.array([1.0, 0.0, 1.0]))
  assert weights[1] == 0
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
  weights = run(weighting, jacobian, jnp.array([1.0, -1.0, 1.0]))
  assert np.all(np.isnan(weights))


def test_cagrad_without_a_radius_is_the_mean(jacobian):
  weights = run(weightings.cagrad(c=0.0), jacobian.astype(np.float32))
  np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)


def test_cagrad_rescales(jacobian, x64, monkeypatch):
  # Not under one jit each, so that the solver compiles once.
  solver = jax.jit(_cagrad.ball_max_min)
  monkeypatch.setattr(_cagrad, 'ball_max_min', solver)
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))

  def weights_of(**kwargs):
    weighting = weightings.cagrad(c=0.5, **kwargs)
    return weighting.update(stats, weighting.init(3))[0]

  plain = weights_of()
  for rescale, by in (('c_squared', 1.25), ('c', 1.5)):
    other = weights_of(rescale=rescale)
    np.testing.assert_allclose(other * by, plain, rtol=1e-12)


def test_cagrad_helps_the_worst_task_more_with_a_larger_radius(x64):
  rng = np.random.default_rng(1)
  jacobian = rng.normal(size=(3, 6)) - 0.4
  gramian = jnp.asarray(jacobian @ jacobian.T)

  @jax.jit
  def weights_of(c):
    weighting = weightings.cagrad(c=c)
    return weighting.update(TaskStats(gramian=gramian), weighting.init(3))[0]

  worst = [
    np.min(np.asarray(gramian @ weights_of(c))) for c in (0.0, 0.2, 0.5, 0.9)
  ]
  assert np.all(np.diff(worst) > 0)


def test_imtl_g_has_equal_projections_and_weights_of_sum_1(jacobian, x64):
  weights = run(weightings.imtl_g(), jacobian)
  projections = jacobian @ (weights @ jacobian)
  projections = projections / np.linalg.norm(jacobian, axis=1)
  np.testing.assert_allclose(projections, projections[0], rtol=1e-9)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-9)


def test_imtl_g_reports_projections_that_cannot_be_equal(x64):
  rng = np.random.default_rng(2)
  # Three unit rows in a plane, not in a half circle.
  angles = np.array([0.0, 2.0, 4.0])
  plane = np.stack([np.cos(angles), np.sin(angles)], 1)
  jacobian = plane @ rng.normal(size=(2, 5))
  weighting = weightings.imtl_g()
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
  weights, state = weighting.update(stats, weighting.init(3))
  assert np.all(np.isfinite(weights)) and state.residual > 0.1


@pytest.mark.parametrize('rows', [2, 5])
def test_imtl_g_of_directions_that_add_up_to_zero(rows):
  angles = 2 * np.pi * np.arange(rows) / rows
  lengths = np.arange(1.0, rows + 1)
  jacobian = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
  weights = run(weightings.imtl_g(), jacobian.astype(np.float32))
  np.testing.assert_allclose(weights, 1 / lengths / np.sum(1 / lengths), 1e-6)
  np.testing.assert_allclose(weights @ jacobian, 0, atol=1e-6)


def test_imtl_g_guard(x64):
  three = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.7], [0.9, 0.7, 1.0]])
  y = np.linalg.solve(three, np.ones(3))
  assert y[0] < 0 < y[1]
  # ||g_1|| such that sum(y / ||g||) = 0.
  norms = np.array([-y[0] / (y[1] + y[2]), 1.0, 1.0])
  weighting = weightings.imtl_g()
  stats = TaskStats(gramian=jnp.asarray(three * np.outer(norms, norms)))
  weights, _ = weighting.update(stats, weighting.init(3))
  np.testing.assert_allclose(np.abs(weights).sum(), 1, rtol=1e-9)
  projections = three @ (weights * norms)
  np.testing.assert_allclose(projections, projections[0], rtol=1e-9)
  assert projections[0] > 0


def test_nash_mtl_update_has_norm_sqrt_t(jacobian, x64):
  weights = run(weightings.nash_mtl(), jacobian)
  np.testing.assert_allclose(
    np.linalg.norm(weights @ jacobian), np.sqrt(3), rtol=1e-10
  )
  np.testing.assert_allclose(
    weights, run(weightings.fairgrad(alpha=1.0), jacobian), rtol=1e-12
  )


def test_fairgrad_is_invariant_for_alpha_1_only():
  assert weightings.fairgrad(alpha=1.0).info.invariance == 'full'
  assert weightings.fairgrad(alpha=2.0).info.invariance == 'none'
  traced = weightings.fairgrad(alpha=jnp.array(1.0))
  assert traced.info.invariance == 'none'


def test_pcgrad_of_two_tasks_projects_each_on_the_other(x64):
  jacobian = np.array([[1.0, 0.0, 0.0], [-3.0, 2.0, 1.0]])
  inner = jacobian[0] @ jacobian[1]
  expected = [1 - inner / 1, 1 - inner / 14]
  for reduction, by in (('sum', 1), ('mean', 2)):
    weights = run(weightings.pcgrad(reduction=reduction), jacobian)
    np.testing.assert_allclose(weights * by, expected, rtol=1e-12)
  np.testing.assert_allclose(
    run(weightings.pcgrad(), np.abs(jacobian)), 1, rtol=1e-12
  )


def test_pcgrad_keys():
  weighting = weightings.pcgrad()
  key = jax.random.key(3)
  state = weighting.init(5, key=key)
  rng = np.random.default_rng(0)
  jacobian = rng.normal(size=(5, 6))
  jacobian = jacobian - jacobian.mean(0) * 0.95
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T, jnp.float32))
  update = jax.jit(weighting.update, donate_argnums=1)
  first, state = update(stats, state)
  second, _ = update(stats, state)
  assert np.any(first != second)
  # Donating the state has left the caller's key alone.
  again, _ = update(stats, weighting.init(5, key=key))
  np.testing.assert_array_equal(first, again)
  other, _ = update(stats, weighting.init(5))
  assert np.any(other != first)
