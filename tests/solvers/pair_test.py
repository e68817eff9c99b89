"""CAGrad's problem for two rows against the search for any number of them."""

import accuracy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import ball_max_min

RADII = [0.0, 1e-3, 0.4, 0.9, 1.0, 1.5, 10.0, 1e6]
LANES = 200
# One shape for everything: compiling takes longer than solving.
balls = jax.jit(jax.vmap(jax.vmap(ball_max_min, (0, None, 0)), (None, 0, None)))


def random_pairs():
  """Rows of every angle, alike or up to 1e20 apart."""
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(LANES, 2, 3))
  rows /= np.linalg.norm(rows, axis=2, keepdims=True)
  spread = np.resize([1, 2, 10, 1e3, 1e10], (LANES, 1, 1))
  return rows * spread ** rng.uniform(-1, 1, (LANES, 2, 1))


def closed(gramians, dtype=np.float64, mask=(True, True)):
  """``v`` and the residual for every radius and Gramian."""
  size = len(mask)
  given = np.resize(np.asarray(gramians, dtype), (LANES, size, size))
  v, residual = balls(
    given, np.asarray(RADII, dtype), np.tile(mask, (LANES, 1))
  )
  count = len(gramians)
  return np.asarray(v, float)[:, :count], np.asarray(residual)[:, :count]


def searched(gramians, mask=(True, True)):
  """The same in float64 by the search: of three rows, the last masked."""
  bigger = np.pad(gramians, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
  v, residual = closed(bigger, mask=(*mask, False))
  return v[..., :2], residual


def gap(found, wanted, norms):
  """The largest difference of a term ``v_i g_i``, relative to the longest."""
  longest = np.max(wanted * norms, axis=-1)
  off = np.max(np.abs(found - wanted) * norms, axis=-1)
  return off / np.where(longest > 0, longest, 1)


def test_agrees_with_the_search(x64):
  rows = random_pairs()
  gramians = rows @ rows.swapaxes(1, 2)
  v, residual = closed(gramians)
  wanted, _ = searched(gramians)
  assert np.max(gap(v, wanted, np.linalg.norm(rows, axis=2))) < 1e-10
  assert np.min(v) >= 0
  assert np.max(residual) < 1e-12
  # The inside of the segment is met, and its ends.
  assert set((v[RADII.index(0.4)] > 0).sum(1)) == {1, 2}


def test_float32_is_as_near_as_its_condition_lets_it(x64):
  rows = random_pairs()
  gramians = (rows @ rows.swapaxes(1, 2)).astype(np.float32)
  v, residual = closed(gramians, np.float32)
  exact, _ = searched(gramians.astype(float))
  lengths = np.sqrt(np.diagonal(gramians.astype(float), axis1=1, axis2=2))
  cosine = np.abs(gramians[:, 0, 1] / lengths[:, 0] / lengths[:, 1])
  bounds = np.array([accuracy.bound(x) for x in (1 + cosine) / (1 - cosine)])
  # Of the update, of which these terms are only a part.
  part = np.asarray(RADII)[:, None] / (1 + np.asarray(RADII)[:, None])
  assert np.all(part * gap(v, exact, lengths) < bounds)
  assert np.max(residual) < 1e-4


ROW = np.array([0.3, -1.0, 2.0])
DEGENERATE = {
  'a zero row': (ROW, 0 * ROW),
  'zero rows': (0 * ROW, 0 * ROW),
  'equal': (ROW, ROW),
  'parallel': (ROW, 2 * ROW),
  'parallel, far apart': (1e-10 * ROW, 1e10 * ROW),
  'antiparallel': (ROW, -3 * ROW),
  'antiparallel, far apart': (1e10 * ROW, -1e-10 * ROW),
  'one that underflows': (ROW, 1e-25 * ROW),
}


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_degenerate_rows_are_those_of_the_search(x64, dtype):
  tol = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
  rows = np.stack([np.stack(pair) for pair in DEGENERATE.values()])
  gramians = (rows @ rows.swapaxes(1, 2)).astype(dtype)
  v, residual = closed(gramians, dtype)
  wanted, _ = searched(gramians.astype(float))
  assert np.all(np.isfinite(v))
  # What underflows depends on the dtype.
  off = gap(v, wanted, np.linalg.norm(rows, axis=2))[:, :-1]
  far = np.asarray(RADII) >= 1
  assert np.max(off[~far]) < tol
  assert np.max(residual[~far]) < tol
  # The ridge shows where 0 is in the hull and the ball reaches 0.
  assert np.max(residual[far]) < 30 * np.finfo(dtype).eps ** 0.5


def test_equal_rows_share_equally_and_a_shorter_one_takes_all():
  equal, parallel = (
    ball_max_min(jnp.outer(x, x), 0.4)[0]
    for x in (jnp.array([1.0, 1.0]), jnp.array([1.0, 2.0]))
  )
  np.testing.assert_allclose(equal, [0.2, 0.2], rtol=1e-6)
  np.testing.assert_allclose(parallel, [0.6, 0.0], rtol=1e-6)


@pytest.mark.parametrize('mask', [(True, False), (False, True), (False, False)])
def test_masked_rows_are_not_read(x64, mask):
  gramian = np.where(np.outer(mask, mask), 4.0, np.nan)
  v, _ = closed([gramian], mask=mask)
  np.testing.assert_allclose(v[:, 0], np.outer(RADII, mask), rtol=1e-12)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_nan_and_infinity_give_nan(bad):
  for place in ((0, 0), (0, 1)):
    gramian = jnp.eye(2).at[place].set(bad).at[place[::-1]].set(bad)
    v, residual = ball_max_min(gramian, 0.4)
    assert np.all(np.isnan([*v, residual]))
