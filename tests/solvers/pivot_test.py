import jax
import numpy as np

from mtljax.solvers._pivot import block_pivoting, factorise

solve = jax.jit(jax.vmap(block_pivoting))


def _problems(lanes, size):
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(lanes, size, size + 4))
  rows -= 0.5 * rows.mean(1, keepdims=True)
  rows /= np.linalg.norm(rows, axis=2, keepdims=True)
  linear = rng.normal(size=(lanes, size))
  linear /= -linear.min(1, keepdims=True)
  return rows @ rows.swapaxes(1, 2), linear, np.ones((lanes, size), bool)


def test_no_factor_of_an_indefinite_matrix_has_a_pivot():
  for size in (4, 16, 33, 70):
    one = np.eye(size, dtype=np.float32)
    five = np.stack([-one, 4 * one, -one, -one, -one])
    _, pivots = jax.jit(jax.vmap(factorise))(five)
    np.testing.assert_array_equal(pivots, [np.nan, 4, *[np.nan] * 3])
    assert np.isnan(jax.jit(factorise)(-one)[1])


def test_finds_the_active_set(x64):
  matrix, linear, used = _problems(16, 12)
  linear[0] = np.abs(linear[0])
  # The last one's two first rows are equal: a choice that it leaves to others.
  matrix[-1, 1], linear[-1, :2] = matrix[-1, 0], -1
  matrix[-1, :, 1] = matrix[-1, :, 0]
  used[1, 5:] = False
  x, free, solved, iterations = solve(matrix, linear, used)
  assert np.all(solved[:-1]) and not solved[-1]
  assert np.all(iterations <= 8)
  slack = np.einsum('bij,bj->bi', matrix, x) + linear
  off = np.where(used, np.minimum(x, slack), 0)[:-1]
  np.testing.assert_allclose(off, 0, atol=1e-12)
  assert np.all(x[0] == 0) and not np.any(x[1, 5:])
  np.testing.assert_array_equal(free[:-1], (x > 0)[:-1])


def test_does_not_divide_by_rounding():
  # A matrix that is indefinite by its rounding, and a NaN.
  matrix, linear, used = _problems(3, 12)
  matrix[0] = 1
  matrix[1, 0, 0] = np.nan
  linear[:2] = -1
  x, _, solved, _ = solve(
    matrix.astype(np.float32), linear.astype(np.float32), used
  )
  assert not solved[0] and not solved[1] and solved[2]
  assert np.all(np.isfinite(x[2]))
