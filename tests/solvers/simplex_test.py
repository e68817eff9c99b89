import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from mtljax.solvers import ball_max_min, min_norm_simplex

EPS = {np.float32: 1e-6, np.float64: 1e-14}

# One shape for nearly everything: compiling takes longer than solving.
min_norms = jax.jit(jax.vmap(min_norm_simplex))
balls = jax.jit(jax.vmap(ball_max_min, in_axes=(0, None, 0)))


def _off_min_norm(jacobian, weights):
  """Violation of MGDA's optimality conditions, in units of unit rows."""
  norms = np.linalg.norm(jacobian, axis=1)
  y = weights * norms / np.sum(weights * norms)
  rows = jacobian / norms[:, None]
  direction = y @ rows
  level = direction @ direction / np.sum(y / norms)
  return np.max(np.abs(np.minimum(y, rows @ direction - level / norms)))


def _check_ball(name, jacobian, v, c, tol):
  """In the ball, and no row below the bound that the dual point gives."""
  mean = jacobian.mean(0)
  length = np.linalg.norm(mean)
  step = v @ jacobian
  assert np.linalg.norm(step) <= (c + tol * (1 + c)) * length, name
  point = v / v.sum() @ jacobian
  bound = point @ mean + c * length * np.linalg.norm(point)
  norms = np.linalg.norm(jacobian, axis=1)
  short = bound - jacobian @ (mean + step)
  assert np.all(short <= tol * (1 + c) * norms * length), name


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_min_norm_meets_the_optimality_conditions(zoo, x64, dtype):
  cases = zoo.jacobians()
  found = zoo.in_lanes(min_norms, zoo.gramians_of(cases), dtype=dtype)
  for (name, jacobian), (w, residual) in zip(cases.items(), found, strict=True):
    assert np.all(w >= 0), name
    np.testing.assert_allclose(w.sum(), 1, rtol=10 * EPS[dtype], err_msg=name)
    assert residual < EPS[dtype], (name, residual)
    assert _off_min_norm(jacobian, w) < 3 * EPS[dtype], name


def test_min_norm_agrees_with_an_exact_solver(golden, zoo, x64):
  cases = {
    key[:-2]: value
    for key, value in golden.items()
    if key.endswith('/J') and len(value) <= 10
  }
  found = zoo.in_lanes(min_norms, zoo.gramians_of(cases))
  for (name, jacobian), (w, _) in zip(cases.items(), found, strict=True):
    point = w @ jacobian
    scale = np.linalg.norm(jacobian, axis=1).max()
    if name.startswith(('stationary', 'rank1', 'rank3', 'antiparallel')):
      # 0 is in the hull; the reference's own ridge stops it at 1e-7.
      assert np.linalg.norm(point) < 1e-7 * scale, name
    else:
      np.testing.assert_allclose(
        point,
        golden[f'{name}/MGDA.exact'],
        rtol=1e-6,
        atol=1e-8 * scale,
        err_msg=name,
      )


def test_min_norm_edge_cases(zoo):
  row = np.random.default_rng(0).normal(size=7)
  # The long row cancels what it can of the short one, and has to stay.
  far = np.array([[1e-10, 0.0], [-0.6e10, 0.8e10]])
  rows_and_weights = [
    (far, [1, 0.6e-20]),
    (np.stack([row, 0 * row, 2 * row]), [0, 1, 0]),
    (np.stack([0 * row, row, 0 * row]), [0.5, 0, 0.5]),
    (np.stack([row, row]), [0.5, 0.5]),
    (np.stack([row, -3 * row]), [0.75, 0.25]),
    (np.stack([row, 3 * row]), [1, 0]),
    (row[None], [1]),
  ]
  found = zoo.in_lanes(
    min_norms,
    [jacobian @ jacobian.T for jacobian, _ in rows_and_weights],
    dtype=np.float32,
  )
  for (_, expected), (w, residual) in zip(rows_and_weights, found, strict=True):
    assert residual < 1e-6
    np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-25)


@pytest.mark.parametrize('c', [1e-3, 0.4, 1.0, 10.0])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_ball_meets_the_optimality_conditions(zoo, x64, dtype, c):
  cases = zoo.jacobians()
  found = zoo.in_lanes(balls, zoo.gramians_of(cases), dtype(c), dtype=dtype)
  tol = 30 * EPS[dtype]
  for (name, jacobian), (v, residual) in zip(cases.items(), found, strict=True):
    assert np.all(v >= 0), name
    assert residual < tol, (name, residual)
    _check_ball(name, jacobian, v, c, tol)


def test_ball_is_the_mean_for_radius_0_and_min_norm_for_a_large_one(zoo, x64):
  cases = zoo.jacobians()
  gramians = zoo.gramians_of(cases)
  for v, residual in zoo.in_lanes(balls, gramians, 0.0):
    assert np.all(v == 0) and residual == 0
  for (name, jacobian), (v, _), (w, _) in zip(
    cases.items(),
    zoo.in_lanes(balls, gramians, 1e6),
    zoo.in_lanes(min_norms, gramians),
    strict=True,
  ):
    a, b = v @ jacobian, w @ jacobian
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine > 1 - 1e-6, (name, cosine)


def test_ball_ignores_zero_rows_but_counts_them_in_the_mean(zoo, x64):
  rng = np.random.default_rng(3)
  jacobian = rng.normal(size=(3, 8)) - 0.5
  with_zero = np.vstack([jacobian, np.zeros(8)])
  (v, residual), (alone, _) = zoo.in_lanes(
    balls, [with_zero @ with_zero.T, jacobian @ jacobian.T], 0.4
  )
  assert residual < 1e-14 and v[3] == 0 and alone.max() > 0
  # The mean over four is 3/4 of the mean over three, and so is all else.
  np.testing.assert_allclose(v[:3], 0.75 * alone, rtol=1e-7)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_degenerate_input_is_finite_and_accounted_for(zoo, x64, dtype):
  gramians = zoo.gramians_of(zoo.degenerate())
  for w, residual in zoo.in_lanes(min_norms, gramians, dtype=dtype):
    np.testing.assert_allclose(w.sum(), 1, rtol=10 * EPS[dtype])
    assert residual < EPS[dtype]
  for c in (0.4, 1.0, 10.0):
    # The ridge shows where 0 is in the hull and the ball reaches 0.
    tol = 30 * (EPS[dtype] if c < 1 else EPS[dtype] ** 0.5)
    for v, residual in zoo.in_lanes(balls, gramians, dtype(c), dtype=dtype):
      assert np.all(v >= 0) and np.all(np.isfinite(v))
      assert residual < tol


def test_ball_harms_no_row_where_only_0_improves_all(zoo, x64):
  # 0 is in the interior of the hull and in the ball.
  jacobian = zoo.degenerate()['stationary_3']
  ((v, _),) = zoo.in_lanes(balls, [jacobian @ jacobian.T], 2.0)
  direction = jacobian.mean(0) + v @ jacobian
  assert np.linalg.norm(direction) < 1e-6 * np.linalg.norm(jacobian)


@pytest.mark.parametrize('size', [1, 64])
def test_sizes(size):
  jacobian = np.random.default_rng(size).normal(size=(size, size + 10))
  gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
  weights, residual = jax.jit(min_norm_simplex)(gramian)
  assert residual < 1e-6
  assert _off_min_norm(jacobian, np.asarray(weights, np.float64)) < 3e-6
  v, residual = jax.jit(ball_max_min)(gramian, 0.5)
  assert residual < 1e-5
  _check_ball(size, jacobian, np.asarray(v, np.float64), 0.5, 1e-5)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_nan_and_infinity_give_nan_unless_masked(zoo, bad):
  diagonal, off = np.eye(3), np.eye(3)
  diagonal[1, 1] = off[0, 1] = off[1, 0] = bad
  present = np.ones(3, bool), np.array([True, False, True])
  for fun, args in ((min_norms, ()), (balls, (0.4,))):
    (a, ra), (b, rb), (c, rc), (d, rd) = zoo.in_lanes(
      fun,
      [diagonal, off] * 2,
      *args,
      masks=[present[0], present[0], present[1], present[1]],
      dtype=np.float32,
    )
    assert np.all(np.isnan([*a, ra, *b, rb]))
    assert np.all(np.isfinite([*c, rc, *d, rd]))


def test_mask_gives_the_smaller_problem(zoo):
  jacobian = np.random.default_rng(5).normal(size=(6, 9))
  gramian = jacobian @ jacobian.T
  keep = np.array([0, 2, 3, 5])
  mask = np.isin(np.arange(6), keep)
  for fun, args in ((min_norms, ()), (balls, (0.4,))):
    (big, _), (small, _), (none, residual) = zoo.in_lanes(
      fun,
      [gramian, gramian[np.ix_(keep, keep)], gramian],
      *args,
      masks=[mask, np.ones(4, bool), np.zeros(6, bool)],
      dtype=np.float32,
    )
    np.testing.assert_allclose(big[keep], small, rtol=1e-5, atol=1e-6)
    assert np.all(big[~mask] == 0)
    assert np.all(none == 0) and residual == 0


def test_vmap_is_a_loop(zoo):
  jacobians = np.random.default_rng(6).normal(size=(4, 10, 12))
  gramians = jacobians @ jacobians.swapaxes(1, 2)
  single = jax.jit(ball_max_min)
  batched = zoo.in_lanes(balls, gramians, 0.4, dtype=np.float32)
  for gramian, (v, _) in zip(gramians, batched, strict=True):
    alone, _ = single(jnp.asarray(gramian, jnp.float32), 0.4)
    np.testing.assert_allclose(v, alone, rtol=1e-4, atol=1e-6)


def test_rounding_of_the_gramian_does_no_harm():
  # 0 in the hull, long rows: the float32 Gramian may be indefinite.
  rng = np.random.default_rng(7)
  jacobian = rng.normal(size=(10, 100_000)).astype(np.float32)
  jacobian[-1] = -jacobian[:-1].sum(0)
  gramian = jnp.asarray(jacobian @ jacobian.T)
  weights, residual = jax.jit(min_norm_simplex)(gramian)
  assert residual < 1e-5
  np.testing.assert_allclose(weights, 0.1, rtol=1e-3)


def _count(jaxpr, name):
  """The equations of that name, those inside of others too."""
  within = lambda eqn: core.jaxprs_in_params(eqn.params)
  return sum(
    (eqn.primitive.name == name) + sum(_count(j, name) for j in within(eqn))
    for eqn in jaxpr.eqns
  )


def test_ball_holds_its_quadratic_program_once():
  """Most of what a step of CAGrad compiles beside a plain one is this."""
  found = jax.make_jaxpr(ball_max_min)(jnp.eye(5), 0.4).jaxpr
  # The search, and block pivoting and the interior point within it.
  assert _count(found, 'while') == 3
  # One each for the latter two, and one for the ridge.
  assert _count(found, 'cholesky') == 3


MANY_LANES = """
import accuracy, jax
with jax.enable_x64(True):
  given = accuracy.cases()
  for _ in range(2):
    accuracy.measure(accuracy.METHODS['cagrad'], given)
"""


def test_many_lanes_do_not_block_the_threads():
  """Two independent batches of factorisations did, every other time.

  In a process of its own, as it could not be stopped from within.
  """
  env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
  command = [sys.executable, '-c', MANY_LANES]
  subprocess.run(command, env=env, timeout=60, check=True)
