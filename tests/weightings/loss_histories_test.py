"""IGB, ReLoBRaLo and EnCodec's balancer against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax._types import TaskStats
from mtljax.training import make_train_step
from mtljax.weightings import balancer, igb, relobralo, uw_o

RNG = np.random.default_rng(0)
ROWS = RNG.uniform(0.2, 3.0, size=(12, 4))
MAKES = {
  'igb': lambda: igb(warmup_steps=2),
  'relobralo': lambda: relobralo(keep_probability=0.5),
}
EVERY = pytest.mark.parametrize('name', MAKES)


def softmax(x):
  x = np.exp(x - np.max(x))
  return x / x.sum()


def sequence(weighting, rows, masks=None, state=None):
  """The weights of every step, and the last state."""
  if state is None:
    state = weighting.init(rows.shape[1])
  if masks is None:
    masks = np.ones(rows.shape, bool)

  def step(state, inputs):
    losses, mask = inputs
    weights, state = weighting.update(
      TaskStats(losses=losses, mask=mask), state
    )
    return state, weights

  inputs = (jnp.asarray(rows), jnp.asarray(masks))
  state, weights = jax.jit(lambda *a: jax.lax.scan(step, *a))(state, inputs)
  return np.asarray(weights), state


@pytest.mark.parametrize('base_steps', [None, 2])
def test_igb_by_the_formula(base_steps, x64):
  weights, _ = sequence(igb(warmup_steps=5, base_steps=base_steps), ROWS)
  np.testing.assert_allclose(weights[:5], 1 / ROWS[:5], rtol=1e-12)
  base = ROWS[0 if base_steps is None else 3 : 5].mean(0)
  for losses, found in zip(ROWS[5:], weights[5:], strict=True):
    expected = 4 * softmax(losses / base) / losses
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_igb_at_its_base_is_uw_o(x64):
  same = np.tile(ROWS[0], (3, 1))
  weights, _ = sequence(igb(warmup_steps=1), same)
  plain, _ = sequence(uw_o(), same)
  np.testing.assert_allclose(weights, plain, rtol=1e-12)


def test_igb_keeps_bad_losses_out_of_its_base(x64):
  bad = np.insert(ROWS, 1, [[1.0, -1.0, np.nan, 0.0]], axis=0)
  weights, state = sequence(igb(warmup_steps=3), bad)
  assert np.all(np.isnan(weights[1]))
  # The first task has one step more in its warm-up.
  np.testing.assert_allclose(state.base[1:], ROWS[:3, 1:].mean(0), rtol=1e-12)
  np.testing.assert_allclose(
    state.base[0], (ROWS[:2, 0].sum() + 1.0) / 3, rtol=1e-12
  )


def relobralo_by_the_formula(rows, alpha, temperature, coins):
  balance = lambda now, then: 4 * softmax(now / (temperature * then))
  weights = [np.ones(4), balance(rows[1], rows[0])]
  for k in range(2, len(rows)):
    kept = weights[-1] if coins[k] else balance(rows[k], rows[0])
    new = balance(rows[k], rows[k - 1])
    weights.append(alpha * kept + (1 - alpha) * new)
  return np.stack(weights)


@pytest.mark.parametrize('rho', [0.0, 1.0])
def test_relobralo_by_the_formula(rho, x64):
  weighting = relobralo(decay=0.7, keep_probability=rho, temperature=0.5)
  weights, _ = sequence(weighting, ROWS)
  coins = [rho == 1] * len(ROWS)
  np.testing.assert_allclose(
    weights, relobralo_by_the_formula(ROWS, 0.7, 0.5, coins), rtol=1e-9
  )
  np.testing.assert_allclose(weights.sum(1), 4, rtol=1e-12)


def test_relobralo_looks_back_as_often_as_said(x64):
  """With weights that forget nothing, a look back is seen by its value."""
  rows = np.tile([[1.0, 1.0]], (2002, 1))
  rows[0] = [1.0, 2.0]
  state = relobralo().init(2, key=jax.random.key(3))
  weights, _ = sequence(relobralo(decay=0.0), rows, state=state)
  np.testing.assert_allclose(weights[2:], 1)  # b(k - 1) alone
  weights, _ = sequence(
    relobralo(decay=1.0, keep_probability=0.9, temperature=1.0),
    rows,
    state=state,
  )
  since_first = 2 * softmax(rows[1] / rows[0])
  np.testing.assert_allclose(weights[1:], np.tile(since_first, (2001, 1)))
  # Halving the kept part makes a step without a look back differ from one.
  weights, _ = sequence(
    relobralo(decay=0.5, keep_probability=0.9, temperature=1.0),
    rows,
    state=state,
  )
  jumps = np.isclose(weights[2:, 0], 0.5 * since_first[0] + 0.5)
  assert abs(jumps[1:].mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 2000)


def test_relobralo_at_losses_of_zero(x64):
  rows = ROWS.copy()
  rows[0, 1] = rows[4, 2] = 0.0
  weights, state = sequence(relobralo(keep_probability=0.5), rows)
  assert np.all(np.isfinite(weights))
  assert state.first[1] == rows[1, 1] and state.first[2] == rows[0, 2]
  assert np.all(state.last == rows[-1])


@EVERY
def test_a_bad_step_leaves_no_trace(name):
  weighting = MAKES[name]()
  rows = ROWS.astype(np.float32)
  bad = np.insert(rows, 5, np.float32(np.nan), axis=0)
  weights, state = sequence(weighting, bad)
  assert np.all(np.isnan(weights[5]))
  assert np.all(np.isfinite(np.delete(weights, 5, axis=0)))
  assert np.all(np.isfinite(getattr(state, 'base', state[1])))


@EVERY
def test_absent_tasks_leave_the_smaller_problem(name, x64):
  present = np.array([True, False, True, True])
  masks = np.tile(present, (len(ROWS), 1))
  poisoned = np.where(masks, ROWS, np.nan)
  weights, state = sequence(MAKES[name](), poisoned, masks)
  small, _ = sequence(MAKES[name](), ROWS[:, present])
  np.testing.assert_allclose(weights[:, present], small, rtol=1e-9)
  assert not np.any(weights[:, 1])
  fresh = MAKES[name]().init(4)
  for old, new in zip(fresh, state, strict=True):
    if old.shape:
      np.testing.assert_array_equal(old[1], new[1])


@EVERY
def test_a_late_task_starts_by_itself(name, x64):
  masks = np.ones(ROWS.shape, bool)
  masks[:4, 0] = False
  weights, _ = sequence(MAKES[name](), ROWS, masks)
  start = 1 / ROWS[4, 0] if name == 'igb' else 1.0
  np.testing.assert_allclose(weights[4, 0], start)
  assert np.all(np.isfinite(weights))


def norms_sequence(weighting, norms, masks=None):
  state, out = weighting.init(norms.shape[1]), []
  update = jax.jit(weighting.update)
  for k, row in enumerate(norms):
    gramian = jnp.asarray(np.outer(row, row))
    mask = None if masks is None else jnp.asarray(masks[k])
    weights, state = update(TaskStats(gramian=gramian, mask=mask), state)
    out.append(weights)
  return np.stack(out), state


def test_balancer_by_the_formula(x64):
  norms = RNG.uniform(0.1, 5.0, size=(6, 3)) * [1e-3, 1.0, 1e4]
  prefer, beta, total = np.array([1.0, 4.0, 0.5]), 0.9, 2.5
  weighting = balancer(preference=prefer, decay=beta, total_norm=total)
  weights, _ = norms_sequence(weighting, norms)
  for k in range(len(norms)):
    factors = beta ** np.arange(k, -1, -1)
    usual = factors @ norms[: k + 1] / factors.sum()
    expected = total * prefer / prefer.sum() / usual
    np.testing.assert_allclose(weights[k], expected, rtol=1e-9)


def test_balancer_without_an_average_gives_each_its_share(x64):
  norms = RNG.uniform(0.1, 5.0, size=(1, 4))
  weights, _ = norms_sequence(
    balancer(decay=0.0, preference=[1, 2, 3, 4]), norms
  )
  np.testing.assert_allclose(weights[0] * norms[0], [0.1, 0.2, 0.3, 0.4])


def test_balancer_keeps_bad_gradients_out_of_its_averages():
  norms = np.ones((3, 2), np.float32)
  bad = norms.copy()
  bad[1, 0] = np.inf
  weights, state = norms_sequence(balancer(), bad)
  assert np.all(np.isnan(weights[1])) and np.all(np.isfinite(weights[2]))
  again, kept = norms_sequence(balancer(), norms[:2])
  np.testing.assert_array_equal(weights[2], again[1])
  np.testing.assert_array_equal(state.norms, kept.norms)


def test_balancer_with_tasks_absent_and_zero(x64):
  norms = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
  masks = np.array([[True, True, True], [True, False, True]])
  weights, state = norms_sequence(balancer(decay=0.5), norms, masks)
  np.testing.assert_allclose(weights[0], [1 / 3, 1 / 6, 0])
  np.testing.assert_allclose(weights[1], [1 / 2, 0, 1 / 2 / 2])
  np.testing.assert_allclose(state.averaged, [0.75, 0.5, 0.75])


def test_balancer_at_an_output(x64):
  """The gradient at the features is made of the shares that were asked for."""
  rng = np.random.default_rng(1)
  x, y = jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(rng.normal(size=8))
  loss = mtl.Staged(
    lambda w, batch: jnp.tanh(x @ w),
    [
      lambda w, z, batch: jnp.mean((z - y) ** 2),
      lambda w, z, batch: 100 * jnp.mean(jnp.abs(z + 1)),
    ],
  )
  init, step, route = make_train_step(
    balancer(preference=[3.0, 1.0]),
    optax.sgd(1.0),
    loss,
    num_tasks=2,
    route='features',
  )
  start = jnp.asarray(rng.normal(size=3))
  state = init(start.copy(), key=jax.random.key(0))
  assert route == 'features'
  state, _ = step(state, jnp.zeros(()))
  z, pull = jax.vjp(lambda w: jnp.tanh(x @ w), start)
  terms = [2 * (z - y) / 8, 100 * jnp.sign(z + 1) / 8]
  shares = [0.75, 0.25]
  wanted = sum(
    s * g / jnp.linalg.norm(g) for s, g in zip(shares, terms, strict=True)
  )
  np.testing.assert_allclose(start - state.params, pull(wanted)[0], rtol=1e-9)
