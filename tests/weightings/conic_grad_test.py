"""ConicGrad against its dual by brute force, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.solvers import cone_max_min, min_norm_simplex

SOLVE = jax.jit(cone_max_min)
BATCHED = jax.jit(jax.vmap(cone_max_min, in_axes=(0, None, 0)))


def solve_all(jacobians, c, dtype):
  """The solutions for all, padded with absent tasks, and the residuals."""
  jacobians = list(jacobians)
  size = max(map(len, jacobians))
  gramians = np.full((40, size, size), np.nan)
  masks = np.zeros((40, size), bool)
  for i, jacobian in enumerate(jacobians):
    gramians[i, : len(jacobian), : len(jacobian)] = jacobian @ jacobian.T
    masks[i, : len(jacobian)] = True
  v, residuals = BATCHED(gramians.astype(dtype), jnp.asarray(c, dtype), masks)
  v = np.asarray(v, np.float64)
  return [x[: len(j)] for x, j in zip(v, jacobians, strict=False)], residuals


def dual(w, gramian, c):
  """The dual's value by the formula, for many ``w`` of the simplex."""
  u = np.full(len(gramian), 1 / len(gramian))
  q = np.einsum('ni,ij,nj->n', w, gramian, w)
  p = w @ gramian @ u / np.sqrt(u @ gramian @ u)
  off = np.sqrt((1 - c**2) * np.maximum(q - p**2, 0))
  return np.where(p >= c * np.sqrt(q), np.sqrt(q), c * p + off)


def least_dual(gramian, c):
  """By brute force: a grid on the simplex, made finer around the best."""
  size = len(gramian)
  center, width = np.full(size, 1 / size), 1.0
  axes = np.linspace(-1, 1, 41)
  grid = np.stack(np.meshgrid(*[axes] * (size - 1)), -1).reshape(-1, size - 1)
  for _ in range(40):
    w = center[:-1] + width * grid
    w = np.concatenate([w, 1 - w.sum(1, keepdims=True)], axis=1)
    w = np.concatenate([w[np.all(w >= 0, axis=1)], center[None]])
    values = dual(w, gramian, c)
    center, width = w[np.argmin(values)], 0.7 * width
  return center, values.min()


def jacobian_of(seed, rows=3, pull=0.0):
  rng = np.random.default_rng(seed)
  jacobian = rng.normal(size=(rows, 6)) * rng.uniform(0.3, 3, (rows, 1))
  return jacobian - pull * jacobian.mean(0)


def solved(jacobian, c):
  v, residual = SOLVE(jnp.asarray(jacobian @ jacobian.T), c)
  assert residual < 1e-6 and np.all(v >= 0)
  mean = jacobian.mean(0)
  return np.asarray(v @ jacobian) / np.linalg.norm(mean), mean


@pytest.mark.parametrize('rows', [2, 3])
@pytest.mark.parametrize('c', [0.0, 0.3, 0.8, 0.97])
def test_reaches_the_dual_of_brute_force(rows, c, x64):
  for seed in range(4):
    jacobian = jacobian_of(seed, rows, 0.6 * (seed % 2))
    d, mean = solved(jacobian, c)
    w, least = least_dual(jacobian @ jacobian.T, c)
    np.testing.assert_allclose(np.min(jacobian @ d), least, rtol=1e-6)
    # The direction by the formula, from the dual's minimiser.
    g, unit = w @ jacobian, mean / np.linalg.norm(mean)
    along = g @ unit
    off = g - along * unit
    expected = g / np.linalg.norm(g)
    if along < c * np.linalg.norm(g):
      expected = c * unit + np.sqrt(1 - c**2) * off / np.linalg.norm(off)
    np.testing.assert_allclose(d, expected, atol=1e-3)


@pytest.mark.parametrize('c', [0.2, 0.9, 1.0])
def test_angle_and_length_are_those_promised(c, zoo, x64):
  cases = {**zoo.jacobians(), **zoo.degenerate()}
  solutions, residuals = solve_all(cases.values(), c, np.float64)
  np.testing.assert_array_less(residuals, 1e-6)
  for (name, jacobian), v in zip(cases.items(), solutions, strict=True):
    mean = jacobian.mean(0)
    length = np.linalg.norm(mean)
    if length < 1e-12 * np.max(np.abs(jacobian), initial=1e-300):
      continue
    update = v @ jacobian
    np.testing.assert_allclose(np.linalg.norm(update), length, rtol=1e-5)
    assert update @ mean / length**2 > c - 1e-5, name
    assert np.all(v >= 0), name


@pytest.mark.parametrize('rows', [2, 4, 8])
def test_descends_all_losses_where_the_cone_can(rows, x64):
  """Each has a direction of the cone, by construction, that gains for all."""
  rng = np.random.default_rng(rows)
  common = np.eye(12)[0]
  for c in (0.3, 0.7):
    jacobian = rng.normal(size=(rows, 12))
    jacobian[:, 0] = np.abs(jacobian[:, 0]) + 0.05
    shift = jacobian.mean(0)
    jacobian -= (1 - 0.1) * (shift - shift[0] * common)
    mean = jacobian.mean(0)
    assert common @ mean / np.linalg.norm(mean) > c  # in the cone
    d, _ = solved(jacobian, c)
    assert np.min(jacobian @ d) >= np.min(jacobian @ common) > 0


def test_no_worse_than_cagrad_whose_ball_is_in_the_cone(x64):
  for seed in range(6):
    jacobian = jacobian_of(seed, 4, 0.5)
    gramian = jnp.asarray(jacobian @ jacobian.T)
    weighting = weightings.cagrad(c=0.6)
    w, _ = weighting.update(TaskStats(gramian=gramian), weighting.init(4))
    theirs = np.asarray(w) @ jacobian
    d, _ = solved(jacobian, 0.8)
    gain = np.min(jacobian @ theirs) / np.linalg.norm(theirs)
    assert np.min(jacobian @ d) >= gain - 1e-9


def test_between_mgda_and_the_mean(x64):
  jacobian = jacobian_of(7, 4)
  gramian = jnp.asarray(jacobian @ jacobian.T)
  w, _ = min_norm_simplex(gramian)
  d, mean = solved(jacobian, 0.0)
  shortest = np.asarray(w) @ jacobian
  assert shortest @ mean > 0
  np.testing.assert_allclose(d, shortest / np.linalg.norm(shortest), atol=1e-9)
  d, mean = solved(jacobian, 1.0)
  np.testing.assert_allclose(d, mean / np.linalg.norm(mean), atol=1e-12)


def test_float32_agrees_with_float64(zoo, x64):
  cases = zoo.jacobians()
  del cases['more_rows_than_columns']
  for c in (0.3, 0.9):
    exact, _ = solve_all(cases.values(), c, np.float64)
    found, _ = solve_all(cases.values(), c, np.float32)
    for name, e, v in zip(cases, exact, found, strict=True):
      terms = np.abs(e) * np.linalg.norm(cases[name], axis=1)
      miss = np.linalg.norm((v - e) @ cases[name])
      assert miss < 1e-4 * terms.max(), name


def test_absent_tasks_and_bad_numbers(x64):
  jacobian = jacobian_of(3, 4)
  gramian = jacobian @ jacobian.T
  mask = np.array([True, False, True, True])
  poisoned = gramian.copy()
  poisoned[1], poisoned[:, 1] = np.nan, np.nan
  v, _ = SOLVE(jnp.asarray(poisoned), 0.9, jnp.asarray(mask))
  small, _ = SOLVE(jnp.asarray(gramian[np.ix_(mask, mask)]), 0.9)
  np.testing.assert_allclose(v[mask], small, rtol=1e-9, atol=1e-12)
  assert v[1] == 0
  assert np.all(np.isnan(SOLVE(jnp.asarray(poisoned), 0.9)[0]))


@pytest.mark.parametrize('rows', [[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 0.0]] * 2])
def test_without_a_mean_there_is_no_cone(rows):
  jacobian = jnp.array(rows)
  v, residual = SOLVE(jacobian @ jacobian.T, 0.5)
  np.testing.assert_array_equal(v, 0)
  assert residual == 0
