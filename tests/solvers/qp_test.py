import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import dual_cone, nonneg_qp

solve_qp = jax.jit(nonneg_qp)
cones = jax.jit(jax.vmap(dual_cone))


def test_qp_meets_the_optimality_conditions(x64):
  rng = np.random.default_rng(0)
  for scale in (1e-6, 1.0, 1e6):
    rows = rng.normal(size=(10, 12))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    matrix, linear = rows @ rows.T, scale * rng.normal(size=10)
    x, residual = solve_qp(matrix, linear)
    assert residual < 1e-13
    slack = matrix @ x + linear
    assert np.all(x >= 0) and np.any(x > 0.1 * scale)
    np.testing.assert_allclose(np.minimum(x, slack), 0, atol=1e-12 * scale)


def test_qp_edge_cases(x64):
  matrix = jnp.eye(10)
  x, residual = solve_qp(matrix, jnp.arange(10.0))
  assert np.all(x == 0) and residual == 0
  # A slope of any size above 0 holds its variable at 0.
  linear = jnp.full(10, -1.0).at[0].set(1e200)
  x, residual = solve_qp(matrix, linear)
  np.testing.assert_allclose(x, [0] + [1] * 9, rtol=1e-12)
  x, residual = solve_qp(matrix, linear.at[3].set(jnp.nan))
  assert np.all(np.isnan(x)) and np.isnan(residual)


def _lower(rows, size=10):
  return np.pad(np.full(rows, 1 / rows), (0, size - rows))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_cone_projection_meets_the_optimality_conditions(zoo, x64, dtype):
  cases = {**zoo.jacobians(), **zoo.degenerate()}
  lower = np.zeros((32, 10), dtype)
  gramians = zoo.gramians_of(cases)
  assert len(gramians) > 32
  eps = {np.float32: 1e-6, np.float64: 1e-14}[dtype]
  for first in (0, 32):
    part = list(cases.items())[first : first + 32]
    for i, (_, jacobian) in enumerate(part):
      lower[i] = _lower(len(jacobian))
    found = zoo.in_lanes(
      lambda g, m, u=lower: cones(g, u, m),
      gramians[first : first + 32],
      dtype=dtype,
    )
    for (name, jacobian), (v, residual) in zip(part, found, strict=True):
      assert residual < 2 * eps, (name, residual)
      extra = v - 1 / len(jacobian)
      assert np.all(extra >= -eps / len(jacobian)), name
      norms = np.linalg.norm(jacobian, axis=1)
      norms[norms < 1e-20] = 0
      update = v @ jacobian
      size = np.max(norms * v)
      with np.errstate(invalid='ignore', divide='ignore'):
        gain = np.where(norms > 0, jacobian @ update / norms, 0)
      # No row is harmed, the shortest included. The ridge costs T eps.
      assert np.all(gain >= -100 * eps * size), (name, gain / size)
      slack = np.minimum(extra * norms, gain)
      assert np.all(slack <= 100 * eps * size), (name, slack)


def test_cone_projection_agrees_with_an_exact_solver(golden, zoo, x64):
  cases = {
    key[:-2]: value
    for key, value in golden.items()
    if key.endswith('/J')
    and len(value) <= 10
    and not key.startswith(('stationary', 'antiparallel', 'rank'))
  }
  names = list(cases)
  for first in range(0, len(names), 32):
    part = names[first : first + 32]
    lower = np.zeros((32, 10))
    for i, name in enumerate(part):
      lower[i] = _lower(len(cases[name]))
    found = zoo.in_lanes(
      lambda g, m, u=lower: cones(g, u, m),
      [cases[name] @ cases[name].T for name in part],
    )
    for name, (v, _) in zip(part, found, strict=True):
      exact = golden[f'{name}/DualProj.exact']
      scale = np.linalg.norm(cases[name], axis=1).max()
      # The reference has a ridge of 1e-10.
      np.testing.assert_allclose(
        v @ cases[name], exact, atol=1e-7 * scale, err_msg=name
      )
