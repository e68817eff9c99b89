"""Definitions of the methods that read only the norms: SLW, EMTL, GradNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import weightings
from mtljax._types import TaskStats


def stats_of(norms, losses=None):
  """Rows of these norms that conflict mildly."""
  norms = jnp.asarray(norms)
  size = len(norms)
  unit = jnp.eye(size) + 0.1 * (jnp.eye(size) - 1)
  gramian = norms[:, None] * unit * norms[None, :]
  return TaskStats(
    gramian=gramian, losses=None if losses is None else jnp.asarray(losses)
  )


NORMS = np.array([0.5, 2.0, 8.0])


def test_slw_makes_norms_equal(x64):
  slw = weightings.slw()
  weights, _ = slw.update(stats_of(NORMS), slw.init(3))
  np.testing.assert_allclose(np.sum(weights), 3, rtol=1e-12)
  np.testing.assert_allclose(weights * NORMS, weights[0] * 0.5, rtol=1e-12)


def test_emtl_hard_makes_contributions_equal(x64):
  losses = np.array([3.0, 0.1, 7.0])
  emtl = mtl.contrib.weightings.emtl()
  weights, _ = emtl.update(stats_of(NORMS, losses), emtl.init(3))
  np.testing.assert_allclose(np.sum(weights), 3, rtol=1e-12)
  contributions = losses / (weights * NORMS)
  np.testing.assert_allclose(contributions, contributions[0], rtol=1e-12)


@pytest.mark.parametrize('strength', [0.0, 0.3, 1.0, 20.0])
def test_emtl_soft_is_the_minimum_of_its_objective(strength, x64):
  losses = jnp.array([3.0, 0.1, 7.0])
  emtl = mtl.contrib.weightings.emtl(form='soft', strength=strength)
  weights, _ = emtl.update(stats_of(NORMS, losses), emtl.init(3))
  np.testing.assert_allclose(np.sum(weights), 3, rtol=1e-12)
  if strength == 0:
    np.testing.assert_allclose(weights, 1)

  def objective(log_weights):
    spread = log_weights - jnp.log(losses / NORMS)
    return jnp.sum(log_weights**2) + strength * 3 * jnp.var(spread)

  # Defined up to a factor: the best one has logarithms that sum to 0.
  logs = jnp.log(weights) - jnp.mean(jnp.log(weights))
  np.testing.assert_allclose(jax.grad(objective)(logs), 0, atol=1e-9)


def test_emtl_edge_cases(x64):
  emtl = mtl.contrib.weightings.emtl()
  update = jax.jit(emtl.update)
  weights, _ = update(stats_of([1.0, 0.0, 2.0], [1.0, 5.0, 2.0]), emtl.init(3))
  np.testing.assert_allclose(weights, [1, 0, 1])
  weights, _ = update(stats_of(NORMS, [0.0, 1.0, 4.0]), emtl.init(3))
  np.testing.assert_allclose(weights, [0, 1.5, 1.5])
  weights, _ = update(stats_of(NORMS, [0.0, 0.0, 0.0]), emtl.init(3))
  assert np.all(weights == 0)
  for bad in (-1.0, np.nan):
    weights, _ = update(stats_of(NORMS, [bad, 1.0, 4.0]), emtl.init(3))
    assert np.all(np.isnan(weights))


def gradnorm_by_autodiff(all_stats, alpha, learning_rate):
  """The paper's algorithm, with automatic differentiation; no bound."""
  weights, first = jnp.ones(3), all_stats[0].losses
  adam = optax.adam(learning_rate)
  adam_state = adam.init(weights)
  out = []
  for stats in all_stats:
    out.append(weights)
    norms = jnp.sqrt(jnp.diagonal(stats.gramian))
    ratios = stats.losses / first
    rates = ratios / jnp.mean(ratios)

    def loss(w, norms=norms, rates=rates):
      target = jax.lax.stop_gradient(jnp.mean(w * norms) * rates**alpha)
      return jnp.sum(jnp.abs(w * norms - target))

    updates, adam_state = adam.update(jax.grad(loss)(weights), adam_state)
    weights = optax.apply_updates(weights, updates)
    weights = 3 * weights / jnp.sum(weights)
  return out


@pytest.mark.parametrize('alpha', [0.0, 1.5])
def test_gradnorm_is_the_papers_algorithm(alpha, x64):
  rng = np.random.default_rng(0)
  steps = [
    stats_of(NORMS * rng.uniform(0.5, 2, 3), rng.uniform(0.5, 2, 3))
    for _ in range(8)
  ]
  gradnorm = weightings.gradnorm(alpha=alpha, learning_rate=0.1)
  state = gradnorm.init(3)
  for stats, expected in zip(
    steps, gradnorm_by_autodiff(steps, alpha, 0.1), strict=True
  ):
    weights, state = gradnorm.update(stats, state)
    np.testing.assert_allclose(weights, expected, rtol=1e-9)
    np.testing.assert_allclose(np.sum(weights), 3, rtol=1e-12)
  np.testing.assert_array_equal(state.first_losses, steps[0].losses)


def test_gradnorm_reaches_equal_norms(x64):
  gradnorm = weightings.gradnorm(learning_rate=0.01)
  stats = stats_of([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])

  def step(state, _):
    weights, state = gradnorm.update(stats, state)
    return state, weights

  _, weights = jax.jit(lambda s: jax.lax.scan(step, s, length=400))(
    gradnorm.init(3)
  )
  np.testing.assert_allclose(
    weights[-1] * np.array([1.0, 2.0, 4.0]), 12 / 7, rtol=0.05
  )


def test_gradnorm_edge_cases(x64):
  gradnorm = weightings.gradnorm(learning_rate=0.4)
  update = jax.jit(gradnorm.update)
  # The bound: the first task's gradient is too long for any weight.
  state = gradnorm.init(2)
  for _ in range(10):
    weights, state = update(stats_of([1e8, 1.0], [1.0, 1.0]), state)
    assert np.all(weights > 0)
  # Scaled to sum to 2 after the bound.
  np.testing.assert_allclose(weights, [2e-3 / 2.401, 2], rtol=2e-3)
  # A loss of 0 at first: its first one is the next.
  state = gradnorm.init(2)
  for loss, expected in ((0.0, 0.0), (2.0, 2.0), (1.0, 2.0)):
    weights, state = update(stats_of([1.0, 2.0], [loss, 1.0]), state)
    assert np.all(np.isfinite(weights))
    np.testing.assert_array_equal(state.first_losses, [expected, 1.0])


def test_gradnorm_leaves_an_absent_task_alone(x64):
  gradnorm = weightings.gradnorm(learning_rate=0.1)
  stats = stats_of(NORMS, [1.0, 2.0, 3.0])
  _, state = gradnorm.update(stats, gradnorm.init(3))
  mask = jnp.array([True, False, True])
  part = TaskStats(gramian=stats.gramian, losses=stats.losses, mask=mask)
  weights, new = gradnorm.update(part, state)
  np.testing.assert_allclose(np.sum(weights), 2, rtol=1e-12)
  assert weights[1] == 0
  for old_leaf, new_leaf in zip(
    jax.tree.leaves(state), jax.tree.leaves(new), strict=True
  ):
    np.testing.assert_array_equal(old_leaf[1], new_leaf[1])
  np.testing.assert_allclose(np.sum(new.loss_weights), 3, rtol=1e-12)


def test_arguments_are_checked():
  for make in (
    lambda: mtl.contrib.weightings.emtl(form='medium'),
    lambda: mtl.contrib.weightings.emtl(form='soft', strength=-1.0),
    lambda: weightings.gradnorm(alpha=-0.5),
    lambda: weightings.gradnorm(learning_rate=-1.0),
    lambda: weightings.gradnorm(min_weight=-1.0),
  ):
    with pytest.raises(ValueError, match='='):
      make()
  for rule in (mtl.contrib.weightings.emtl, weightings.gradnorm):
    weighting = rule()
    with pytest.raises(ValueError, match='losses'):
      weighting.update(TaskStats(gramian=jnp.eye(2)), weighting.init(2))
