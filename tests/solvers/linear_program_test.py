"""Linear programs over the simplex, against scipy's HiGHS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mtljax.solvers import linear_program


def by_scipy(objective, matrix, bounds, free):
  """The best value, or None where no point satisfies the rows."""
  found = scipy.optimize.linprog(
    -objective, A_ub=-matrix, b_ub=-bounds, A_eq=(~free)[None], b_eq=[1.0]
  )
  return -found.fun if found.status == 0 else None


@pytest.mark.parametrize('size, count', [(2, 1), (3, 4), (8, 9), (40, 41)])
def test_finds_the_best_vertex(size, count, x64):
  rng = np.random.default_rng(size)
  feasible = 0
  for _ in range(12):
    objective, matrix = rng.normal(size=size), rng.normal(size=(count, size))
    bounds = matrix @ rng.dirichlet(np.ones(size)) - rng.uniform(-0.1, 0.3)
    free = np.zeros(size, bool)
    best = by_scipy(objective, matrix, bounds, free)
    x, residual = linear_program(objective, matrix, bounds)
    if best is None:
      assert np.isinf(residual)
      continue
    feasible += 1
    assert residual < 1e-12
    assert np.min(matrix @ x - bounds) > -1e-12
    assert np.min(x) >= 0
    np.testing.assert_allclose(np.sum(x), 1, atol=1e-12)
    np.testing.assert_allclose(objective @ x, best, atol=1e-10)
  assert feasible >= 4


def test_free_variables_and_float32():
  """The value of a matrix game: a free variable bounded by the rows."""
  rng = np.random.default_rng(0)
  solve = jax.jit(jax.vmap(linear_program, in_axes=(None, 0, None, None, None)))
  payoff = rng.uniform(0, 1, size=(16, 6, 5)).astype(np.float32)
  matrix = np.concatenate([payoff, -np.ones((16, 6, 1), np.float32)], axis=2)
  objective = np.eye(6, dtype=np.float32)[5]
  free = objective > 0
  x, residual = solve(objective, matrix, np.zeros(6, np.float32), None, free)
  assert np.max(residual) < 1e-5
  for found, a in zip(np.asarray(x), matrix, strict=True):
    best = by_scipy(objective, a, np.zeros(6), free)
    np.testing.assert_allclose(found[5], best, rtol=1e-4)


def test_edge_cases():
  one = jnp.ones(2)
  matrix = jnp.array([[1.0, -1.0]])
  x, residual = linear_program(one, matrix, jnp.array([2.0]))
  assert np.isinf(residual)
  assert np.all(np.isfinite(x))
  x, residual = linear_program(0 * one, 0 * matrix, jnp.zeros(1))
  assert residual == 0
  assert sorted(x.tolist()) == [0, 1]
  x, residual = linear_program(
    jnp.array([5.0, jnp.nan]),
    matrix,
    jnp.zeros(1),
    mask=jnp.array([True, False]),
  )
  assert x.tolist() == [1, 0]
  x, residual = linear_program(
    one, matrix, jnp.zeros(1), mask=jnp.zeros(2, bool)
  )
  assert x.tolist() == [0, 0] and residual == 0
  x, residual = linear_program(jnp.array([jnp.nan, 1.0]), matrix, jnp.zeros(1))
  assert np.all(np.isnan(x))
  x, _ = linear_program(jnp.array([0.0, 1.0]), matrix, jnp.array([-jnp.inf]))
  assert x.tolist() == [0, 1]
