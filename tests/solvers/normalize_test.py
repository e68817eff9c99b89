import jax.numpy as jnp
import numpy as np

from mtljax.solvers import row_normalize


def test_is_a_factorisation():
  jacobian = np.random.default_rng(0).normal(size=(4, 9))
  gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
  unit, norms = row_normalize(gramian)
  np.testing.assert_allclose(jnp.diagonal(unit), 1)
  np.testing.assert_allclose(
    unit * norms[:, None] * norms[None, :], gramian, rtol=1e-6, atol=1e-6
  )


def test_lengths_whose_product_overflows():
  lengths = np.array([1e-18, 1e18, 1e18])
  gramian = jnp.asarray(lengths[:, None] * lengths, jnp.float32)
  unit, norms = row_normalize(gramian)
  np.testing.assert_allclose(unit, 1, rtol=1e-6)
  np.testing.assert_allclose(norms, lengths, rtol=1e-6)


def test_underflown_and_masked_rows_are_zero_rows():
  lengths = np.array([1.0, 1e-25, 2.0, 3.0])
  gramian = jnp.asarray(lengths[:, None] * lengths, jnp.float32)
  gramian = gramian.at[2].set(jnp.nan).at[:, 2].set(jnp.nan)
  mask = jnp.array([True, True, False, True])
  unit, norms = row_normalize(gramian, mask)
  np.testing.assert_allclose(norms, [1, 0, 0, 3])
  expected = np.eye(4)
  expected[0, 3] = expected[3, 0] = 1
  np.testing.assert_allclose(unit, expected)


def test_nan_stays():
  gramian = jnp.array([[1.0, jnp.nan], [jnp.nan, jnp.nan]])
  unit, norms = row_normalize(gramian)
  assert jnp.isnan(norms[1]) and jnp.isnan(unit[0, 1]) and jnp.isnan(unit[1, 1])
  assert norms[0] == 1


def test_widens_to_float32(x64):
  del x64
  for given, wanted in (
    (jnp.bfloat16, jnp.float32),
    (jnp.float32, jnp.float32),
    (jnp.float64, jnp.float64),
  ):
    unit, norms = row_normalize(jnp.eye(2, dtype=given))
    assert unit.dtype == norms.dtype == wanted
