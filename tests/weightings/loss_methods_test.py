"""What holds for one weighting of losses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax._types import TaskStats
from mtljax.weightings._bmtl import bmtl
from mtljax.weightings._dwa import dwa
from mtljax.weightings._famo import famo
from mtljax.weightings._geometric import geometric
from mtljax.weightings._go4align import go4align, group_means
from mtljax.weightings._imtl_l import imtl_l
from mtljax.weightings._slaw import slaw
from mtljax.weightings._stch import stch
from mtljax.weightings._uw_o import uw_o, uw_so

LOSSES = jnp.array([0.3, 1.0, 2.0, 5.0])


def first(weighting, losses=LOSSES):
  losses = jnp.asarray(losses)
  stats = TaskStats(losses=losses)
  return weighting.update(stats, weighting.init(losses.shape[0]))[0]


def sequence(weighting, rows):
  """The weights of every step."""

  def step(state, losses):
    weights, state = weighting.update(TaskStats(losses=losses), state)
    return state, weights

  rows = jnp.asarray(rows)
  start = weighting.init(rows.shape[1])
  return np.asarray(jax.lax.scan(step, start, rows)[1])


@pytest.mark.parametrize(
  ('weighting', 'objective'),
  [
    (uw_o(), lambda x: jnp.sum(jnp.log(x))),
    (geometric(), lambda x: jnp.prod(x) ** (1 / 4)),
    (bmtl(temperature=0.7), lambda x: jnp.sum(jnp.exp(x / 0.7))),
    (
      stch(temperature=0.2),
      lambda x: 0.2 * jax.nn.logsumexp(x / 4 / 0.2),
    ),
    (
      bmtl(temperature=0.7, normalize=True),
      lambda x: 0.7 * jax.nn.logsumexp(x / 0.7),
    ),
  ],
)
def test_weights_are_the_gradient_of_the_objective(weighting, objective):
  np.testing.assert_allclose(
    first(weighting), jax.grad(objective)(LOSSES), rtol=2e-6
  )


def test_bmtl_is_parallel_to_stch_with_unit_preferences():
  for temperature in (0.1, 1.0, 50.0):
    ours = first(bmtl(temperature=temperature))
    theirs = first(stch(temperature=temperature, preference=[1.0] * 4))
    np.testing.assert_allclose(ours / ours.sum(), theirs, rtol=1e-4)


def test_bmtl_never_overflows():
  weights = first(bmtl(temperature=0.01), [100.0, 99.99, 0.0])
  assert np.all(np.isfinite(weights))
  np.testing.assert_allclose(
    weights / weights[0], [1, np.exp(-1), 0], rtol=1e-3
  )
  # Nor does the norm of an update with such weights.
  assert np.isfinite(jnp.sum(weights**2))


def test_uw_so_runs_from_the_smallest_loss_to_the_mean():
  np.testing.assert_allclose(first(uw_so(temperature=1e-4)), [1, 0, 0, 0])
  np.testing.assert_allclose(first(uw_so(temperature=1e5)), 0.25, rtol=1e-4)


def test_dwa_default_window():
  rows = np.ones((60, 2))
  rows[25:, 0] = 0.5  # the second window is half of the first
  weights = sequence(dwa(), rows)
  np.testing.assert_allclose(weights[:50], 1, rtol=1e-6)
  expected = 2 * jax.nn.softmax(jnp.array([0.25, 0.5]))
  np.testing.assert_allclose(
    weights[50:], np.tile(expected, (10, 1)), rtol=1e-6
  )


def test_imtl_l_settles_where_uw_o_is():
  weighting = imtl_l(learning_rate=0.02)
  weights = sequence(weighting, np.tile(LOSSES, (400, 1)))
  np.testing.assert_allclose(weights[-1], 1 / LOSSES, rtol=1e-2)


def test_stch_warm_up(x64):
  rng = np.random.default_rng(0)
  rows = rng.uniform(0.1, 3.0, size=(8, 3))
  weights = sequence(stch(temperature=0.5, warmup_steps=5, nadir_steps=2), rows)
  np.testing.assert_allclose(weights[:5], 1 / rows[:5], rtol=1e-12)
  nadir = jnp.asarray(rows[3:5].mean(0))
  objective = lambda x: 3 * 0.5 * jax.nn.logsumexp(jnp.log(x / nadir) / 0.5)
  for losses, found in zip(rows[5:], weights[5:], strict=True):
    np.testing.assert_allclose(
      found, jax.grad(objective)(jnp.asarray(losses)), rtol=1e-9
    )


def test_stch_nadir_is_over_the_last_fifth():
  rows = np.random.default_rng(0).uniform(0.1, 3.0, size=(9, 2))
  weights = sequence(stch(warmup_steps=6), rows)
  same = sequence(stch(warmup_steps=6, nadir_steps=2), rows)
  np.testing.assert_array_equal(weights, same)


def test_stch_tasks_that_arrive_late_warm_up_by_themselves():
  weighting = stch(warmup_steps=2, nadir_steps=2)
  state, losses = weighting.init(3), jnp.array([1.0, 2.0, 4.0])
  early = jnp.array([True, True, False])
  for mask in (early, early, None):
    weights, state = weighting.update(
      TaskStats(losses=losses, mask=mask), state
    )
  # At their nadir the others' objective has the gradient of the log losses.
  np.testing.assert_allclose(weights, 1 / losses, rtol=1e-6)
  np.testing.assert_array_equal(state.seen, [2, 2, 1])


def test_famo_weights_are_the_gradient_of_its_objective(x64):
  minimum = jnp.array([-1.0, 0.2, 0.0])
  weighting = famo(min_losses=minimum)
  losses, logits = jnp.array([0.5, 0.7, 3.0]), jnp.array([0.3, -1.0, 0.1])
  state = weighting.init(3)._replace(logits=logits)

  def objective(losses):
    z, excess = jax.nn.softmax(logits), losses - minimum + 1e-8
    factor = jax.lax.stop_gradient(1 / jnp.sum(z / excess))
    return factor * jnp.sum(z * jnp.log(excess))

  weights, _ = weighting.update(TaskStats(losses=losses), state)
  np.testing.assert_allclose(weights, jax.grad(objective)(losses), rtol=1e-9)


def test_famo_logits_move_to_what_improved_least(x64):
  weighting = famo(weight_decay=0.0)
  before, after = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.1, 1.9, 2.0])
  _, state = weighting.update(TaskStats(losses=before), weighting.init(3))
  new = weighting.observe(after, state)
  change = jnp.log(before) - jnp.log(after)
  gradient = jax.vjp(jax.nn.softmax, state.logits)[1](change)[0]
  np.testing.assert_allclose(10 * new.optimizer_state.mu, gradient, rtol=1e-6)
  assert np.argmax(new.logits) == 1 or new.logits[1] == np.max(new.logits)
  assert new.logits[0] < 0


def test_famo_losses_at_and_below_their_minimum():
  weighting = famo(min_losses=[0.5, 0.0])
  assert np.argmax(first(weighting, [0.5, 1.0])) == 0
  assert np.all(np.isnan(first(weighting, [0.4, 1.0])))
  stats = TaskStats(losses=jnp.array([1.0, 1.0]))
  weights, state = weighting.update(stats, weighting.init(2))
  state = weighting.observe(jnp.array([0.4, 1.0]), state)
  # What has no logarithm is seen by its NaN above and does not stay.
  weights, _ = weighting.update(stats, state)
  assert np.all(np.isfinite(weights))


def test_famo_leaves_out_tasks_that_it_does_not_see_again():
  weighting = famo()
  stats = TaskStats(losses=jnp.array([1.0, 2.0, 3.0]))
  _, state = weighting.update(stats, weighting.init(3))
  state = weighting.observe(jnp.array([0.5, jnp.nan, 3.0]), state)
  assert state.logits[1] == 0
  assert state.logits[0] < 0 < state.logits[2]
  # Before any update there is nothing to compare with.
  fresh = weighting.observe(jnp.ones(3), weighting.init(3))
  np.testing.assert_array_equal(fresh.logits, 0)


def slaw_by_the_formula(rows, decay, floor):
  """The difference of means, in float64, as it is written."""
  plain = round(1 / (1 - decay))
  mean, square = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
  out = [np.ones(rows.shape[1])]
  for n, losses in enumerate(rows, 1):
    part = 1 / n if n <= plain else 1 - decay
    mean = (1 - part) * mean + part * losses
    square = (1 - part) * square + part * losses**2
    if n > 1:
      inverse = 1 / np.maximum(np.sqrt(square - mean**2), floor)
      out.append(len(losses) * inverse / inverse.sum())
  return np.stack(out)


@pytest.mark.parametrize('decay', [0.99, 0.9])
def test_slaw_is_its_formula(x64, decay):
  rng = np.random.default_rng(0)
  rows = 1 + rng.normal(size=(250, 3)) * [0.1, 1.0, 5.0]
  np.testing.assert_allclose(
    sequence(slaw(decay=decay), rows),
    slaw_by_the_formula(rows, decay, 1e-5),
    rtol=1e-9,
  )


def test_slaw_in_float32_far_from_zero():
  rng = np.random.default_rng(0)
  # Steps that float32 holds exactly around 1000.
  rows = 1000 + np.round(rng.normal(size=(150, 2)) * [200, 20]) / 2**10
  found = sequence(slaw(), rows.astype(np.float32))
  expected = slaw_by_the_formula(rows - 1000, 0.99, 1e-5)
  np.testing.assert_allclose(found[20:], expected[20:], rtol=0.02)


def test_slaw_floor():
  rows = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
  weights = sequence(slaw(eps=0.1), rows)
  deviations = np.array([0.1, np.std([1, 2, 3])])
  expected = 2 / deviations / np.sum(1 / deviations)
  np.testing.assert_allclose(weights[-1], expected, rtol=1e-5)
  np.testing.assert_allclose(sequence(slaw(), np.ones((3, 2))), 1, rtol=1e-6)


def test_slaw_approximates_dividing_by_gradient_norms(x64):
  """Losses under small random moves of the parameters."""
  rng = np.random.default_rng(0)
  gradients = rng.normal(size=(4, 20)) * [[0.1], [1.0], [3.0], [10.0]]
  rows = 5 + rng.normal(size=(2000, 20)) * 0.01 @ gradients.T
  norms = np.linalg.norm(gradients, axis=1)
  expected = 4 / norms / np.sum(1 / norms)
  weights = sequence(slaw(decay=0.999), rows)[-1]
  np.testing.assert_allclose(weights, expected, rtol=0.1)


def best_grouping(values, num_groups):
  """The group means with the least squared deviation, of all groupings."""
  best = (np.inf, None)
  for labels in itertools.product(range(num_groups), repeat=len(values)):
    labels = np.array(labels)
    means = np.array([values[labels == label].mean() for label in labels])
    best = min(best, (np.sum((values - means) ** 2), tuple(means)))
  return np.array(best[1])


@pytest.mark.parametrize('num_groups', [1, 2, 3, 6])
def test_groups_are_the_best_of_all(x64, num_groups):
  rng = np.random.default_rng(num_groups)
  fun = jax.jit(group_means, static_argnums=2)
  for _ in range(5):
    values = np.exp(rng.normal(size=4))
    found = fun(jnp.asarray(values), jnp.ones(4, bool), num_groups)
    expected = best_grouping(values, min(num_groups, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_groups_in_float32_far_from_zero():
  values = jnp.array([1000.0, 1001.0, 1000.25, 1001.25])
  found = group_means(values, jnp.ones(4, bool), 2)
  np.testing.assert_array_equal(found, [1000.125, 1001.125, 1000.125, 1001.125])


def test_go4align_is_its_formula(x64):
  rng = np.random.default_rng(0)
  rows = rng.uniform(0.1, 3.0, size=(5, 4))
  found = sequence(go4align(num_groups=2, learning_rate=0.3), rows)
  shares = np.full(4, 0.25)
  for losses, weights in zip(rows, found, strict=True):
    shares = shares * np.exp(-0.3 * losses)
    shares /= shares.sum()
    values = losses.sum() / losses * shares
    np.testing.assert_allclose(weights, best_grouping(values, 2), rtol=1e-9)
