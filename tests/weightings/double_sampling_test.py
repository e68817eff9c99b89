"""MoDo and SDMGrad: golden values, the simplex, edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.weightings import _double_sampling

# TorchJD's name: the same rule here, and how closely they agree.
GOLDEN = {
  'MoDoWeighting': weightings.modo(),
  'MoDoWeighting(gamma=0.01,rho=0)': weightings.modo(
    learning_rate=0.01, regularization=0.0
  ),
  'SDMGradWeighting': weightings.sdmgrad(normalize=True, learning_rate=10.0),
  'SDMGradWeighting(lr=1,lambda_=1,n_iter=5)': weightings.sdmgrad(
    normalize=True, learning_rate=1.0, lambda_=1.0, num_steps=5
  ),
}


def simplex(values):
  """By bisection on the threshold, in numpy."""
  low, high = values.min() - 1, values.max()
  for _ in range(200):
    middle = (low + high) / 2
    if np.maximum(values - middle, 0).sum() > 1:
      low = middle
    else:
      high = middle
  return np.maximum(values - high, 0)


@pytest.mark.parametrize('name', GOLDEN)
def test_torchjd(name, golden, x64):
  weighting = GOLDEN[name]
  cases = {key.split('/')[0] for key in golden if key.startswith('cross_')}
  assert len(cases) >= 2
  for case in cases:
    update = jax.jit(weighting.update)
    state = weighting.init(len(golden[f'{case}/J1_0']))
    for k in range(3):
      first, second = golden[f'{case}/J1_{k}'], golden[f'{case}/J2_{k}']
      stats = TaskStats(cross_gramian=jnp.asarray(first @ second.T))
      weights, state = update(stats, state)
      np.testing.assert_allclose(
        weights, golden[f'{case}/{name}@{k}:w'], rtol=1e-7, atol=1e-9
      )


def test_projection_is_the_nearest_point_whatever_the_scale():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(40, 5)) * np.logspace(-3, 4, 40)[:, None]
  values[1] = 1e8 + rng.normal(size=5)
  values[2] = -3e7
  values = np.asarray(values, np.float32)
  masks = rng.uniform(size=values.shape) < 0.7
  masks[:5] = True
  masks[5] = False
  poisoned = np.where(masks, values, np.nan)
  found = jax.jit(jax.vmap(_double_sampling.project_simplex))(poisoned, masks)
  assert not np.any(found[5])
  for v, mask, w in zip(values, masks, np.asarray(found), strict=True):
    assert not w[~mask].any()
    if mask.any():
      expected = simplex(v[mask].astype(np.float64))
      np.testing.assert_allclose(w[mask], expected, atol=2e-3)
      np.testing.assert_allclose(w.sum(), 1, rtol=1e-5)


def run(weighting, cross, steps=1, mask=None, state=None):
  cross = jnp.asarray(cross)
  stats = TaskStats(cross_gramian=cross, mask=mask)
  state = weighting.init(len(cross)) if state is None else state
  for _ in range(steps):
    weights, state = weighting.update(stats, state)
  return np.asarray(weights), state


CROSS = np.array([[3.0, -1.0, 0.5], [0.2, 1.0, 0.1], [0.0, 0.4, -0.3]])


def test_modo_is_one_step_of_projected_descent(x64):
  weights, state = run(
    weightings.modo(learning_rate=0.3, regularization=0.2), CROSS
  )
  start = np.full(3, 1 / 3)
  expected = simplex(start - 0.3 * (CROSS @ start + 0.2 * start))
  np.testing.assert_allclose(weights, expected, rtol=1e-12)
  np.testing.assert_array_equal(state.iterate, weights)


def test_sdmgrad_is_projected_descent_with_momentum(x64):
  preference = np.array([0.5, 0.3, 0.2])
  weighting = weightings.sdmgrad(
    lambda_=0.6, learning_rate=0.05, num_steps=4, preference=preference
  )
  weights, state = run(weighting, CROSS)
  w, velocity = np.full(3, 1 / 3), np.zeros(3)
  for _ in range(4):
    velocity = 0.5 * velocity + CROSS @ (w + 0.6 * preference)
    before, w = w, simplex(w - 0.05 * velocity)
  np.testing.assert_allclose(weights, (w + 0.6 * preference) / 1.6, rtol=1e-10)
  np.testing.assert_allclose(state.iterate, w, rtol=1e-10)
  np.testing.assert_allclose(
    state.residual, np.abs(w - before).max(), rtol=1e-5
  )
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)


def test_sdmgrad_solves_its_problem_where_the_batches_agree(x64):
  """With J1 = J2: the minimum over the simplex of |J'w + lambda g0|."""
  jacobian = np.random.default_rng(3).normal(size=(3, 8))
  gramian = jacobian @ jacobian.T
  weighting = weightings.sdmgrad(learning_rate=0.03, num_steps=400)
  weights, state = run(weighting, gramian)
  assert state.residual < 1e-6
  w = np.asarray(state.iterate)
  slope = gramian @ (w + 0.1)
  # Optimality: used tasks have the least slope.
  np.testing.assert_allclose(slope[w > 1e-6], slope.min(), rtol=1e-4)
  np.testing.assert_allclose(weights, (w + 0.1) / 1.3, rtol=1e-10)


def test_normalize_makes_the_weights_free_of_the_common_scale():
  weighting = weightings.sdmgrad(normalize=True, learning_rate=1.0)
  plain = run(weighting, np.float32(CROSS))[0]
  for scale in (1e-25, 1e-6, 1e25):
    scaled = run(weighting, np.float32(CROSS) * np.float32(scale))[0]
    np.testing.assert_allclose(scaled, plain, rtol=1e-3, atol=1e-5)
  # No length at all: the matrix stays as it is.
  zero = run(weighting, np.zeros((3, 3), np.float32))[0]
  np.testing.assert_allclose(zero, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
  'weighting, left',
  [(weightings.modo(), 0), (weightings.sdmgrad(), 0.3 * 0.5 / 1.3)],
)
def test_a_long_row_loses_its_weight(weighting, left):
  over = jnp.diag(jnp.array([2.1 / 0.1, 1e-6]))
  np.testing.assert_allclose(run(weighting, over)[0][0], left, atol=1e-6)
  under = jnp.diag(jnp.array([1.5 / 0.1, 1e-6]))
  first, _ = run(weightings.modo(), under)
  assert first[0] > 0.01


@pytest.mark.parametrize('name', ['modo', 'sdmgrad'])
def test_absent_task_keeps_its_share(name):
  weighting = getattr(weightings, name)()
  _, before = run(weighting, np.float32(CROSS), steps=3)
  share = before.iterate[1]
  poisoned = np.float32(CROSS)
  poisoned[1], poisoned[:, 1] = np.nan, np.inf
  mask = jnp.array([True, False, True])
  weights, state = run(weighting, poisoned, 2, mask, before)
  assert weights[1] == 0
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
  assert state.iterate[1] == share
  np.testing.assert_allclose(state.iterate.sum(), 1, rtol=1e-6)
  # Those present hold nothing: they begin with equal shares.
  alone = before._replace(iterate=jnp.array([0.0, 1.0, 0.0]))
  weights, state = run(weighting, poisoned, 1, mask, alone)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
  np.testing.assert_array_equal(state.iterate, alone.iterate)


@pytest.mark.parametrize('name', ['modo', 'sdmgrad'])
def test_weights_after_nan_go_on_from_those_before(name):
  weighting = getattr(weightings, name)()
  _, before = run(weighting, np.float32(CROSS))
  bad = np.float32(CROSS)
  bad[0, 2] = np.nan
  weights, state = run(weighting, bad, state=before)
  assert np.all(np.isnan(weights))
  np.testing.assert_array_equal(state.iterate, before.iterate)


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: weightings.modo(learning_rate=-1.0), 'learning_rate=-1.0'),
    (lambda: weightings.modo(regularization=-0.1), 'regularization=-0.1'),
    (lambda: weightings.sdmgrad(lambda_=-0.3), 'lambda_=-0.3'),
    (lambda: weightings.sdmgrad(momentum=-0.5), 'momentum=-0.5'),
    (lambda: weightings.sdmgrad(num_steps=0), 'num_steps=0'),
    (lambda: weightings.sdmgrad(num_steps=2.0), 'num_steps=2.0'),
    (lambda: weightings.sdmgrad(preference=[-1.0, 1.0]), 'preference'),
    (lambda: weightings.sdmgrad(preference=[1.0]).init(2), 'num_tasks=2'),
    (lambda: run(weightings.modo(), np.ones(3)), 'stats.cross_gramian'),
    (
      lambda: weightings.modo().update(
        TaskStats(gramian=jnp.eye(2)), weightings.modo().init(2)
      ),
      'stats.cross_gramian, which is None',
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
