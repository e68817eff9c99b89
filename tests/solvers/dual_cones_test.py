"""Many projections at once against each alone, in float64 and float32."""

import accuracy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import solvers, weightings
from mtljax.solvers import _dual_cones

SIZE = 64


def _rows(kind: str) -> np.ndarray:
  rng = np.random.default_rng(0)
  normal = rng.standard_normal
  if kind == 'wide':
    rows = normal((SIZE, 5000))
    return rows - 0.9 * rows.mean(0)
  if kind == 'square':
    rows = normal((SIZE, SIZE + 4))
    return rows - 0.9 * rows.mean(0)
  if kind == 'clusters':
    of_cluster = normal((8, 300))[rng.integers(0, 8, SIZE)]
    return of_cluster + 0.3 * normal((SIZE, 300))
  if kind == 'spread':
    return normal((SIZE, 300)) * np.logspace(-3, 3, SIZE)[:, None]
  if kind == 'parallel':
    return np.abs(normal((SIZE, 300)))
  if kind == 'singular':
    return normal((SIZE, SIZE // 2))
  left = np.linalg.qr(normal((SIZE, SIZE)))[0]
  right = np.linalg.qr(normal((SIZE, SIZE)))[0]
  return left * np.logspace(0, -3, SIZE) @ right


KINDS = (
  'wide',
  'square',
  'clusters',
  'spread',
  'parallel',
  'singular',
  'condition 1e6',
)


def _each_alone(gramian, lower, mask=None):
  """By `dual_cone`, in float64."""
  with jax.enable_x64(True):
    gramian = jnp.asarray(gramian, jnp.float64)
    lower = jnp.diag(jnp.asarray(lower, jnp.float64))
    solve = jax.jit(jax.vmap(solvers.dual_cone, in_axes=(None, 0, None)))
    weights, residual = solve(gramian, lower, mask)
    assert jnp.max(residual) < 1e-9
    return np.asarray(jnp.sum(weights, 0))


def _off(rows, weights, wanted) -> float:
  """Error of the update, relative to the longest projected gradient."""
  scale = np.linalg.norm(rows, axis=1).max() / SIZE
  return float(np.linalg.norm((weights - wanted) @ rows) / scale)


@pytest.mark.parametrize('kind', KINDS)
def test_float64_is_each_projection_alone(kind):
  rows = _rows(kind)
  gramian, lower = rows @ rows.T, np.full(SIZE, 1 / SIZE)
  wanted = _each_alone(gramian, lower)
  with jax.enable_x64(True):
    found, residual = solvers.dual_cones(jnp.asarray(gramian), lower)
    assert residual < 1e-9
  assert _off(rows, np.asarray(found), wanted) < 1e-8


@pytest.mark.parametrize('kind', KINDS[:5])
def test_float32_is_within_the_bound_of_all_methods(kind):
  rows = np.float32(_rows(kind)).astype(float)
  gramian, lower = rows @ rows.T, np.full(SIZE, 1 / SIZE)
  found, _ = weightings.upgrad().update(
    mtl.TaskStats(gramian=jnp.asarray(gramian, jnp.float32)),
    weightings.upgrad().init(SIZE),
  )
  wanted = _each_alone(gramian, lower)
  norms = np.linalg.norm(rows, axis=1)
  condition = np.linalg.cond(gramian / norms[:, None] / norms)
  allowed = accuracy.bound(condition)
  assert _off(rows, np.asarray(found, float), wanted) < allowed


def test_masked_and_zero_rows_and_no_rows():
  rows = _rows('wide')
  rows[3] = 0
  mask = np.arange(SIZE) % 5 != 1
  lower = np.linspace(0, 0.1, SIZE)
  gramian = rows @ rows.T
  gramian[1] = np.nan  # of a row that is not used
  few = np.flatnonzero(mask)
  wanted = _each_alone(rows[few] @ rows[few].T, lower[few])
  with jax.enable_x64(True):
    found, _ = solvers.dual_cones(
      jnp.asarray(gramian), jnp.asarray(lower), jnp.asarray(mask)
    )
    none, residual = solvers.dual_cones(
      jnp.asarray(gramian), jnp.asarray(lower), jnp.zeros(SIZE, bool)
    )
  np.testing.assert_allclose(found[few], wanted, atol=1e-9)
  np.testing.assert_array_equal(np.asarray(found)[~mask], 0)
  assert np.asarray(found)[3] == lower[3]
  np.testing.assert_array_equal(none, 0)
  assert np.asarray(residual) == 0


def test_what_is_not_finite_is_nan():
  gramian = jnp.eye(SIZE).at[2, 3].set(jnp.inf)
  found, residual = solvers.dual_cones(gramian, jnp.ones(SIZE))
  assert jnp.all(jnp.isnan(found))
  assert jnp.isnan(residual)


@pytest.mark.parametrize('size', [64, 256])
@pytest.mark.parametrize('name', ['upgrad', 'dual_proj', 'mgda'])
def test_memory_is_that_of_four_matrices(name, size):
  method = getattr(weightings, name)()
  state = method.init(size)
  gramian = jnp.eye(size)

  def weights(gramian):
    return method.update(mtl.TaskStats(gramian=gramian), state)

  compiled = jax.jit(weights).lower(gramian).compile()
  held = compiled.memory_analysis().temp_size_in_bytes
  assert held <= 4 * gramian.nbytes


@pytest.mark.parametrize(
  ('kind', 'most'), [('wide', 20), ('clusters', 50), ('parallel', 2)]
)
def test_products_with_the_matrix_are_few(kind, most):
  unit, _ = solvers.row_normalize(jnp.asarray(_rows(kind) @ _rows(kind).T))
  enough = 4 * np.finfo(np.float32).eps
  found = _dual_cones._descend(unit, unit, enough, jnp.array(False))
  assert jnp.all(found.done)
  assert found.steps <= most


def test_under_vmap_it_is_each_call_alone():
  rows = [_rows(kind)[:, :SIZE] for kind in ('wide', 'square', 'condition 1e6')]
  gramians = np.stack([x @ x.T for x in rows])
  lower = np.full(SIZE, 1 / SIZE)
  with jax.enable_x64(True):
    solve = jax.vmap(solvers.dual_cones, in_axes=(0, None))
    found, residuals = solve(jnp.asarray(gramians), jnp.asarray(lower))
    assert jnp.max(residuals) < 1e-9
    for weights, one, gramian in zip(found, rows, gramians, strict=True):
      alone, _ = solvers.dual_cones(jnp.asarray(gramian), jnp.asarray(lower))
      assert _off(one, np.asarray(weights), np.asarray(alone)) < 1e-9
      wanted = _each_alone(gramian, lower)
      assert _off(one, np.asarray(weights), wanted) < 1e-7
