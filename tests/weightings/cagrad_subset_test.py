"""CAGrad that sees some tasks, and the others in the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import mtljax as mtl
from mtljax import weightings

RNG = np.random.default_rng(3)
JACOBIAN = RNG.normal(size=(7, 9)) * np.geomspace(0.3, 4, 7)[:, None] + 0.4


def run(weighting, jacobian, state=None, mask=None, key=None):
  state = weighting.init(len(jacobian), key=key) if state is None else state
  gramian = jnp.asarray(jacobian @ jacobian.T)
  mask = None if mask is None else jnp.asarray(mask)
  stats = mtl.TaskStats(gramian=gramian, mask=mask)
  weights, state = jax.jit(weighting.update)(stats, state)
  return np.asarray(weights), state


def drawn_by(weighting, state, mask):
  """Which tasks are seen by themselves in the next step, and their shares."""
  rows = np.asarray(weighting.mixtures(state, jnp.asarray(mask)))
  return np.flatnonzero(rows[:-1].any(0)), rows


def best(rows, mean, c):
  """The paper's d by its dual, with a solver of another kind."""
  radius = c * np.linalg.norm(mean)
  value = lambda w: w @ rows @ mean + radius * np.linalg.norm(w @ rows)
  count = len(rows)
  found = scipy.optimize.minimize(
    value,
    np.full(count, 1 / count),
    method='SLSQP',
    bounds=[(0, 1)] * count,
    constraints={'type': 'eq', 'fun': lambda w: w.sum() - 1},
    options={'ftol': 1e-15, 'maxiter': 500},
  )
  shortest = found.x @ rows
  return mean + radius * shortest / np.linalg.norm(shortest)


@pytest.mark.parametrize('c', [0.4, 0.9])
@pytest.mark.parametrize('subset', [1, 3, 5])
def test_the_update_is_that_of_the_paper(x64, subset, c):
  weighting = weightings.cagrad(c=c, subset=subset)
  state = weighting.init(7, key=jax.random.key(subset))
  for _ in range(3):
    seen, _ = drawn_by(weighting, state, np.ones(7, bool))
    assert len(seen) == subset
    others = np.setdiff1d(np.arange(7), seen)
    mean = JACOBIAN.mean(0)
    rest = (7 * mean - JACOBIAN[seen].sum(0)) / (7 - subset)
    np.testing.assert_allclose(rest, JACOBIAN[others].mean(0), rtol=1e-9)
    rows = np.concatenate([JACOBIAN[seen], rest[None]])
    weights, state = run(weighting, JACOBIAN, state)
    update = weights @ JACOBIAN
    np.testing.assert_allclose(update, best(rows, mean, c), atol=2e-5)
    np.testing.assert_allclose(
      np.linalg.norm(update - mean), c * np.linalg.norm(mean), rtol=1e-6
    )
    # What is not seen by itself has one weight.
    assert np.ptp(weights[others]) < 1e-12


@pytest.mark.parametrize('subset', [6, 7])
def test_all_tasks_but_one_are_all_tasks(x64, subset):
  expected, _ = run(weightings.cagrad(c=0.5), JACOBIAN)
  weights, state = run(weightings.cagrad(c=0.5, subset=subset), JACOBIAN)
  np.testing.assert_allclose(weights, expected, atol=1e-9)
  assert float(state.residual) < 1e-6


@pytest.mark.parametrize('rescale, factor', [('c_squared', 1.25), ('c', 1.5)])
def test_it_is_rescaled(x64, rescale, factor):
  plain, _ = run(weightings.cagrad(c=0.5, subset=3), JACOBIAN)
  found, _ = run(weightings.cagrad(c=0.5, subset=3, rescale=rescale), JACOBIAN)
  np.testing.assert_allclose(found, plain / factor, rtol=1e-12)


def test_tasks_are_drawn_anew_and_evenly():
  weighting = weightings.cagrad(subset=3)
  state, counts = weighting.init(7, key=jax.random.key(1)), np.zeros(7)
  draws = set()
  update = jax.jit(weighting.update)
  stats = mtl.TaskStats(gramian=jnp.asarray(JACOBIAN @ JACOBIAN.T))
  for _ in range(400):
    seen, _ = drawn_by(weighting, state, np.ones(7, bool))
    counts[seen] += 1
    draws.add(tuple(seen))
    _, state = update(stats, state)
  assert len(draws) == 35  # 3 of 7
  # 171.4 each; five standard deviations are 49.
  np.testing.assert_allclose(counts, 400 * 3 / 7, atol=49)
  again = weighting.init(7, key=jax.random.key(1))
  other = weighting.init(7, key=jax.random.key(2))
  firsts = [drawn_by(weighting, x, np.ones(7, bool))[0] for x in (again, other)]
  assert firsts[0].tolist() != firsts[1].tolist()


def test_absent_tasks_are_not_drawn_nor_averaged(x64):
  weighting = weightings.cagrad(c=0.4, subset=2)
  mask = np.array([1, 0, 1, 1, 0, 1, 1], bool)
  state = weighting.init(7)
  for _ in range(10):
    seen, rows = drawn_by(weighting, state, mask)
    assert len(seen) == 2 and mask[seen].all()
    assert (rows[:, ~mask] == 0).all()
    np.testing.assert_allclose(rows.sum(1), 1)
    rest = np.setdiff1d(np.flatnonzero(mask), seen)
    found = np.concatenate([JACOBIAN[seen], JACOBIAN[rest].mean(0)[None]])
    weights, state = run(weighting, JACOBIAN, state, mask)
    assert (weights[~mask] == 0).all()
    np.testing.assert_allclose(
      weights @ JACOBIAN, best(found, JACOBIAN[mask].mean(0), 0.4), atol=2e-5
    )


def test_fewer_tasks_than_would_be_drawn(x64):
  mask = np.array([0, 0, 1, 0, 0, 1, 0], bool)
  weights, _ = run(weightings.cagrad(subset=5), JACOBIAN, mask=mask)
  expected, _ = run(weightings.cagrad(), JACOBIAN, mask=mask)
  np.testing.assert_allclose(weights, expected, atol=1e-9)


@pytest.mark.parametrize('subset', [0, -1, 2.0, True, '3'])
def test_what_is_no_count_is_refused(subset):
  with pytest.raises(ValueError, match='subset='):
    weightings.cagrad(subset=subset)


def test_more_tasks_than_there_are_are_refused():
  with pytest.raises(ValueError, match='subset=4 must be at most num_tasks=3'):
    mtl.cagrad(3, subset=4)
