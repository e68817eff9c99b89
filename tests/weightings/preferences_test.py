"""EPO, Pareto MTL and PMGDA: by their definitions, and on the exact front."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mtljax._types import TaskStats
from mtljax.weightings import epo, mgda, pmgda, pmtl

LOSSES = np.array([0.3, 1.0, 2.0, 5.0])
PREFERENCE = np.array([0.1, 0.4, 0.2, 0.3])


@functools.partial(jax.jit, static_argnums=0)
def update(make, options, gramian, losses, state):
  weighting = make(**options)
  return weighting.update(TaskStats(losses=losses, gramian=gramian), state)


def weights_of(make, gramian, losses=LOSSES, state=None, **options):
  state = make().init(len(losses)) if state is None else state
  weights, state = update(make, options, gramian, losses, state)
  return np.asarray(weights), state


PMTL = functools.partial(pmtl, warmup_steps=1)


def jacobians(count=8, rows=4, columns=7):
  rng = np.random.default_rng(3)
  shared = rng.normal(size=(count, 1, columns))
  return rng.normal(size=(count, rows, columns)) - 0.7 * shared


def best_value(objective, matrix, bounds):
  """Of a linear program over the simplex, by HiGHS; None: infeasible."""
  found = scipy.optimize.linprog(
    -objective,
    A_ub=-matrix,
    b_ub=-bounds,
    A_eq=np.ones((1, len(objective))),
    b_eq=[1.0],
  )
  return -found.fun if found.status == 0 else None


def test_epo_balances_by_its_program(x64):
  shares = PREFERENCE * LOSSES / (PREFERENCE @ LOSSES)
  off = np.sum(shares * np.log(4 * shares))
  adjust = PREFERENCE * (np.log(4 * shares) - off)
  np.testing.assert_allclose(adjust @ LOSSES, 0, atol=1e-12)
  for jacobian in jacobians():
    gramian = jacobian @ jacobian.T
    pull = gramian @ adjust
    weights, state = weights_of(epo, gramian, preference=PREFERENCE)
    assert state.residual < 1e-6
    bounds = np.where(pull > 0, -1e3, pull)
    bounds[np.argmax(shares)] = 0
    if not np.any(pull > 0):
      bounds = np.zeros(4)
    assert np.min(gramian @ weights - bounds) > -1e-9
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-9)
    best = best_value(pull, gramian, bounds)
    np.testing.assert_allclose(pull @ weights, best, atol=1e-9)


def test_epo_descends_once_balanced(x64):
  """To rounding here; a bound that cannot be kept is left out."""
  losses = 0.1 / PREFERENCE
  losses[0] *= 1 + 1e-3
  shares = PREFERENCE * losses / (PREFERENCE @ losses)
  off = np.sum(shares * np.log(4 * shares))
  adjust = PREFERENCE * (np.log(4 * shares) - off)
  relaxed = 0
  for jacobian in jacobians(24):
    gramian = jacobian @ jacobian.T
    pull = gramian @ adjust
    weights, _ = weights_of(epo, gramian, losses, preference=PREFERENCE)
    total = gramian.sum(0)
    matrix = np.concatenate([gramian, pull[None]])
    bounds = np.append(np.zeros(4), min(pull.max(), 0))
    best = best_value(total, matrix, bounds)
    if best is None:
      relaxed += 1
      best = best_value(total, gramian, np.zeros(4))
    assert np.min(gramian @ weights) > -1e-9
    np.testing.assert_allclose(total @ weights, best, atol=1e-9)
  assert relaxed < 24


def test_pmtl_is_the_least_norm_of_tasks_and_active_constraints(x64):
  others = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0.1, 0.2, 0.3, 0.4]]
  )
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  apart = unit(others) - unit(PREFERENCE)
  active = apart[apart @ LOSSES > 0]
  assert 0 < len(active) < 3
  options = {'preference': PREFERENCE, 'others': others}
  for jacobian in jacobians(4):
    gramian = jacobian @ jacobian.T
    warm, state = weights_of(PMTL, gramian, **options)
    for found, rows in (
      (warm, active),
      (
        weights_of(PMTL, gramian, state=state, **options)[0],
        np.concatenate([np.eye(4), active]),
      ),
    ):
      hull = rows @ jacobian
      point = found @ jacobian
      # The least norm: every other point of the hull is farther along it.
      assert np.min(hull @ point) > point @ point - 1e-8
      shortest = np.min(np.linalg.norm(hull, axis=1))
      assert np.linalg.norm(point) <= shortest + 1e-9
  inside = weights_of(PMTL, gramian, PREFERENCE, **options)[0]
  expected = weights_of(mgda, gramian)[0]
  np.testing.assert_allclose(inside, expected, atol=1e-9)


@pytest.mark.parametrize('strength', [0.5, 0.95])
def test_pmgda_corrects_by_its_program(strength, x64):
  options = {'preference': PREFERENCE, 'strength': strength}
  ray = PREFERENCE / np.linalg.norm(PREFERENCE)
  slope = jax.grad(lambda x: jnp.linalg.norm(x - (x @ ray) * ray))(LOSSES)
  for jacobian in jacobians(4):
    weights, state = weights_of(pmgda, jacobian @ jacobian.T, **options)
    assert state.residual < 1e-6
    away = slope @ jacobian
    rows = np.concatenate([jacobian, away[None]])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = weights @ jacobian
    assert away @ found >= strength * np.linalg.norm(away) - 1e-9
    # Variables: the hull, and the least gain above and below 0.
    gains = jacobian @ unit.T
    matrix = np.zeros((5, 7))
    matrix[:4, :5], matrix[:4, 5], matrix[:4, 6] = gains, -1, 1
    matrix[4, :5] = unit @ away
    answer = scipy.optimize.linprog(
      [0, 0, 0, 0, 0, -1, 1],
      A_ub=-matrix,
      b_ub=[0, 0, 0, 0, -strength * np.linalg.norm(away)],
      A_eq=[[1, 1, 1, 1, 1, 0, 0]],
      b_eq=[1.0],
    )
    np.testing.assert_allclose(np.min(jacobian @ found), -answer.fun, atol=1e-9)
  on_ray = weights_of(pmgda, jacobian @ jacobian.T, PREFERENCE, **options)[0]
  expected = weights_of(mgda, jacobian @ jacobian.T)[0]
  np.testing.assert_allclose(on_ray, expected, atol=1e-12)


# A convex front in closed form: L_1 = |x|^2, L_2 = |x - e|^2 with |e| = 1 has
# the front sqrt(L_1) + sqrt(L_2) = 1.
TARGET = np.array([0.6, 0.8])


def toy(x):
  return jnp.stack([jnp.sum(x**2), jnp.sum((x - TARGET) ** 2)])


@functools.partial(jax.jit, static_argnums=0, static_argnames=('steps',))
def descend(make, preferences, learning_rate, decay=0.99, *, steps=1500):
  """The losses after gradient descent, of all preferences in one program."""

  def one(preference):
    weighting = make(preference)

    def step(carry, rate):
      x, state = carry
      losses, rows = toy(x), jax.jacobian(toy)(x)
      stats = TaskStats(losses=losses, gramian=rows @ rows.T)
      weights, state = weighting.update(stats, state)
      return (x - rate * weights @ rows, state), None

    # Steps of unit vectors end nowhere, unless they shrink.
    rates = learning_rate * decay ** jnp.arange(steps)
    start = jnp.array([1.0, -0.5]), weighting.init(2)
    return toy(jax.lax.scan(step, start, rates)[0][0])

  return jax.vmap(one)(preferences)


def on_front(shares):
  """The point of the front with losses in these proportions."""
  a, b = np.sqrt(shares).T
  return np.stack([(a / (a + b)) ** 2, (b / (a + b)) ** 2], axis=1)


RAYS = np.array([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5], [0.8, 0.2]])


def test_epo_ends_at_its_point_of_the_exact_front(x64):
  inverse = (1 / RAYS) / (1 / RAYS).sum(1, keepdims=True)
  found = descend(lambda r: epo(preference=r, tolerance=1e-9), inverse, 0.2)
  np.testing.assert_allclose(found, on_front(RAYS), atol=1e-4)


def test_pmgda_ends_on_the_exact_front_near_its_point(x64):
  make = lambda r: pmgda(preference=r, tolerance=0.01, strength=0.5)
  found = np.asarray(descend(make, RAYS, 0.02, 0.998, steps=5000))
  np.testing.assert_allclose(np.sqrt(found).sum(1), 1, atol=1e-4)
  # Off the ray by the tolerance, along the front by a little more.
  np.testing.assert_allclose(found, on_front(RAYS), atol=0.02)


def test_pmtl_ends_on_the_exact_front_in_its_region(x64):
  make = lambda r: pmtl(preference=r, others=RAYS, warmup_steps=1000)
  found = np.asarray(descend(make, RAYS, 0.2))
  np.testing.assert_allclose(np.sqrt(found).sum(1), 1, atol=1e-4)
  unit = RAYS / np.linalg.norm(RAYS, axis=1, keepdims=True)
  scores = found @ unit.T
  # It stops where the front is met, so at its edge a little outside.
  assert np.all(np.diagonal(scores) >= scores.max(1) - 1e-2)
