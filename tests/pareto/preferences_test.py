"""Grids, draws and rays of preferences."""

import math

import jax
import numpy as np
import pytest

import mtljax as mtl


@pytest.mark.parametrize('num_tasks, parts', [(2, 5), (3, 4), (5, 2)])
def test_grid_is_every_multiple_on_the_simplex(num_tasks, parts):
  rows = mtl.pareto.grid(num_tasks, parts)
  assert len(rows) == math.comb(parts + num_tasks - 1, num_tasks - 1)
  assert len(np.unique(rows, axis=0)) == len(rows)
  np.testing.assert_allclose(rows.sum(1), 1)
  np.testing.assert_allclose(rows * parts, np.round(rows * parts), atol=1e-9)
  inset = mtl.pareto.grid(num_tasks, parts, inset=0.2)
  np.testing.assert_allclose(inset.min(), 0.2 / num_tasks)
  np.testing.assert_allclose(inset.sum(1), 1)


def test_draws_have_the_moments_of_dirichlet():
  shares = mtl.pareto.draw(
    jax.random.key(0), 3, concentration=0.5, shape=(4000,)
  )
  np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(shares.mean(0), 1 / 3, atol=0.02)
  # Variance (1/T)(1 - 1/T) / (T c + 1).
  np.testing.assert_allclose(shares.var(0), 2 / 9 / 2.5, rtol=0.06)


def test_ray_makes_preferred_losses_equal():
  shares = np.array([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])
  rays = mtl.pareto.ray(shares)
  np.testing.assert_allclose(rays.sum(1), 1)
  np.testing.assert_allclose(shares * rays, (shares * rays)[:, :1].repeat(3, 1))
  traced = jax.jit(mtl.pareto.ray)(shares.astype(np.float32))
  np.testing.assert_allclose(traced, rays, rtol=1e-6)
  assert np.all(np.isfinite(mtl.pareto.ray([0.0, 1.0])))


@pytest.mark.parametrize(
  'call, words',
  [
    (lambda: mtl.pareto.grid(1, 2), 'num_tasks=1'),
    (lambda: mtl.pareto.grid(2, 0), 'parts=0'),
    (lambda: mtl.pareto.grid(2, 3, inset=1.0), 'inset=1.0'),
    (lambda: mtl.pareto.ray([-1.0, 2.0]), 'preference='),
    (
      lambda: mtl.pareto.draw(jax.random.key(0), 2, concentration=0.0),
      'concentration=0.0',
    ),
  ],
)
def test_bad_arguments_are_named(call, words):
  with pytest.raises(ValueError, match=words):
    call()
