"""Definitions and identities of the methods that bend gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.weightings import _imtl_l


def run(weighting, jacobian, losses=None, steps=1):
  """The weights of the last of some steps with the same statistics."""
  stats = TaskStats(
    gramian=jnp.asarray(jacobian @ jacobian.T),
    losses=None if losses is None else jnp.asarray(losses),
  )
  state = weighting.init(len(jacobian))
  for _ in range(steps):
    weights, state = weighting.update(stats, state)
  return np.asarray(weights), state


def jacobian_of(seed, rows=4, columns=9):
  jacobian = np.random.default_rng(seed).normal(size=(rows, columns))
  return jacobian - 0.9 * jacobian.mean(0)


@pytest.mark.parametrize('seed', range(3))
def test_upgrad_is_dual_proj_for_a_one_hot_preference(seed, x64):
  jacobian = jacobian_of(seed)
  parts = []
  for preference in np.eye(4).tolist():
    one, _ = run(weightings.upgrad(preference=preference), jacobian)
    two, _ = run(weightings.dual_proj(preference=preference), jacobian)
    np.testing.assert_allclose(one, two, atol=1e-12)
    parts.append(two)
  # And up to the mean, UPGrad is their sum.
  weights, _ = run(weightings.upgrad(), jacobian)
  np.testing.assert_allclose(weights, np.mean(parts, 0), atol=1e-10)


def test_projections_of_agreeing_gradients_are_the_mean(x64):
  jacobian = np.abs(jacobian_of(0))
  for method in (weightings.upgrad(), weightings.dual_proj()):
    np.testing.assert_allclose(run(method, jacobian)[0], 0.25, atol=1e-12)


def test_dual_proj_meets_its_optimality_conditions(x64):
  jacobian = jacobian_of(1) * [[1e-5], [1.0], [1e3], [30.0]]
  weights, state = run(weightings.dual_proj(), jacobian)
  extra = weights - 0.25
  norms = np.linalg.norm(jacobian, axis=1)
  slack = jacobian @ (weights @ jacobian) / norms
  assert np.all(extra >= 0) and np.any(extra > 0)
  scale = np.linalg.norm(weights @ jacobian)
  assert np.all(slack > -1e-9 * scale)
  assert np.max(np.minimum(extra * norms, slack)) < 1e-6 * scale
  assert state.residual < 1e-12


@pytest.mark.parametrize('seed', range(3))
def test_conflict_free_is_the_pseudo_inverse_form(seed, x64):
  jacobian = jacobian_of(seed) * [[1e-3], [1.0], [50.0], [0.3]]
  weights, state = run(weightings.conflict_free(), jacobian)
  units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
  best = np.linalg.pinv(units) @ np.ones(4)
  best /= np.linalg.norm(best)
  expected = np.sum(jacobian @ best) * best
  np.testing.assert_allclose(
    weights @ jacobian, expected, atol=1e-9 * np.linalg.norm(expected)
  )
  cosines = units @ (weights @ jacobian)
  np.testing.assert_allclose(cosines, cosines[0], rtol=1e-9)
  assert state.residual < 1e-12


def test_conflict_free_tells_when_there_is_no_such_direction(x64):
  row = np.array([1.0, 2.0])
  weights, state = run(weightings.conflict_free(), np.stack([row, -3 * row]))
  assert np.all(weights == 0)
  np.testing.assert_allclose(state.residual, 1)
  other = np.array([2.0, -1.0])
  jacobian = np.stack([row, -3 * row, other])
  weights, state = run(weightings.conflict_free(), jacobian)
  np.testing.assert_allclose(weights @ jacobian, other, atol=1e-12)
  np.testing.assert_allclose(state.residual, 1)


@pytest.mark.parametrize('mode', ['min', 'median', 'mean'])
def test_aligned_mtl_makes_gradients_orthogonal(mode, x64):
  jacobian = jacobian_of(2)
  rows = [
    run(weightings.aligned_mtl(scale_mode=mode, preference=e), jacobian)[0]
    @ jacobian
    for e in np.eye(4).tolist()
  ]
  squared = np.linalg.svd(jacobian)[1] ** 2
  level = {
    'min': squared[-1],
    'median': squared[2],
    'mean': squared.mean(),
  }[mode]
  np.testing.assert_allclose(
    np.array(rows) @ np.array(rows).T, level * np.eye(4), atol=1e-9
  )
  total, _ = run(weightings.aligned_mtl(scale_mode=mode), jacobian)
  np.testing.assert_allclose(total @ jacobian, np.sum(rows, 0), atol=1e-9)


@pytest.mark.parametrize('seed', range(3))
def test_pcd_is_the_closest_direction(seed, x64):
  """Against all active sets."""
  jacobian, tau = jacobian_of(seed), 0.1
  weights, state = run(weightings.pcd(tau=tau, eps=0.0), jacobian)
  scaled = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
  best = None
  for count in range(4):
    for active in itertools.combinations(range(1, 4), count):
      rows = scaled[list(active)]
      gap = tau - rows @ scaled[0]
      direction = scaled[0] + rows.T @ np.linalg.solve(rows @ rows.T, gap)
      if np.all(scaled[1:] @ direction >= tau - 1e-9):
        distance = np.linalg.norm(direction - scaled[0])
        if best is None or distance < best[0]:
          best = distance, direction
  expected = best[1] * np.linalg.norm(jacobian[0]) / np.linalg.norm(best[1])
  np.testing.assert_allclose(weights @ jacobian, expected, rtol=1e-7)
  assert state.residual < 1e-7


def test_pcd_edge_cases(x64):
  row, other = np.eye(2)
  pcd = weightings.pcd(tau=0.1)
  # The others exclude each other: the primary alone, and it is told.
  jacobian = np.array([[1.0, 1.0, 0], [0, 0, 1.0], [0, 0, -2.0]])
  weights, state = run(pcd, jacobian)
  np.testing.assert_allclose(weights, [1, 0, 0])
  assert state.residual > 0.5
  # Opposed to the primary: the constraint wins, or nothing is left.
  opposed = np.stack([row, -row])
  weights, _ = run(pcd, opposed)
  np.testing.assert_allclose(weights @ opposed, -row, atol=1e-6)
  weights, _ = run(weightings.pcd(tau=0.0), opposed)
  assert np.all(weights == 0)
  # No primary, no update; a mask and a zero row alike.
  assert np.all(run(pcd, np.stack([0 * row, other]))[0] == 0)
  stats = TaskStats(gramian=jnp.eye(2), mask=jnp.array([False, True]))
  assert np.all(pcd.update(stats, pcd.init(2))[0] == 0)
  # Another primary, and a tau of its own for each.
  weights, _ = run(weightings.pcd(primary=1), np.stack([row, other + row]))
  np.testing.assert_allclose(weights, [0, 1], atol=1e-12)
  many = weightings.pcd(tau=jnp.array([9.0, 0.0, 0.5]))
  jacobian = np.eye(3)
  weights, _ = run(many, jacobian)
  np.testing.assert_allclose(weights / weights[0], [1, 0, 0.5], rtol=1e-6)


def test_pcd_scales_by_the_usual_length(x64):
  """A gradient twice as long as usual asks for four times the progress."""
  pcd = weightings.pcd(tau=0.1, decay=0.5, eps=0.0)
  state = pcd.init(2)
  for length in (1.0, 2.0):
    gramian = jnp.diag(jnp.array([1.0, length**2]))
    weights, state = pcd.update(TaskStats(gramian=gramian), state)
  usual = (0.25 * 1 + 0.5 * 4) / 0.75  # of its squared length
  x = 0.1 * 2 / np.sqrt(usual)
  np.testing.assert_allclose(weights[1] * 2 / weights[0], x, rtol=1e-6)


def test_gradvac_raises_cosines_to_their_usual_value(x64):
  gradvac = weightings.gradvac(decay=0.0)
  state = gradvac.init(2)
  usual = jnp.array([[1.0, 0.6], [0.6, 1.0]])
  weights, state = gradvac.update(TaskStats(gramian=usual), state)
  np.testing.assert_allclose(weights, 1)
  np.testing.assert_allclose(state.targets, [[0, 0.6], [0.6, 0]], atol=1e-12)
  # Task 0 alone turns: the cosine of its result with task 1 is the target.
  gramian = np.array([[4.0, -1.0], [-1.0, 9.0]])
  weights, state = gradvac.update(
    TaskStats(gramian=jnp.asarray(gramian)), state
  )
  for one, other in ((0, 1), (1, 0)):
    turned = np.eye(2)[one]
    turned[other] = weights[other] - 1
    inner = turned @ gramian[:, other]
    cosine = inner / np.sqrt(turned @ gramian @ turned * gramian[other, other])
    np.testing.assert_allclose(cosine, 0.6, rtol=1e-9)
  np.testing.assert_allclose(state.targets[0, 1], -1 / 6, rtol=1e-9)


def test_gradvac_keeps_its_targets_where_nothing_is_met(x64):
  gradvac = weightings.gradvac(decay=0.5)
  state = gradvac.init(3)._replace(targets=jnp.full((3, 3), 0.25))
  jacobian = jacobian_of(0, 3)
  jacobian[1] = 0
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
  weights, new = gradvac.update(stats, state)
  assert weights[1] == 1 and np.all(np.isfinite(weights))
  moved = np.asarray(new.targets) != 0.25
  np.testing.assert_array_equal(moved, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
  bad = TaskStats(gramian=stats.gramian.at[0, 2].set(jnp.nan))
  weights, new = gradvac.update(bad, state)
  assert np.all(np.isnan(weights))
  np.testing.assert_array_equal(new.targets, state.targets)


@pytest.mark.parametrize('squared', [True, False])
@pytest.mark.parametrize('byzantine, selected', [(0, 1), (1, 2), (2, 3)])
def test_krum_by_its_definition(squared, byzantine, selected, x64):
  jacobian = jacobian_of(3, 6)
  jacobian[2] *= 40
  distances = np.linalg.norm(jacobian[:, None] - jacobian[None], axis=-1)
  distances = np.sort(distances**2 if squared else distances, axis=1)
  scores = distances[:, 1 : 6 - byzantine - 2 + 1].sum(1)
  expected = np.zeros(6)
  expected[np.argsort(scores)[:selected]] = 1 / selected
  weights, _ = run(
    weightings.krum(
      num_byzantine=byzantine, num_selected=selected, squared=squared
    ),
    jacobian,
  )
  np.testing.assert_allclose(weights, expected)
  assert weights[2] == 0


@pytest.mark.parametrize('seed', range(3))
def test_pivrg_is_fairgrad_until_tasks_differ(seed, x64):
  jacobian = jacobian_of(seed, columns=12)
  fair, _ = run(weightings.fairgrad(alpha=2.0), jacobian)
  scores = [0.5, 1.0, 2.0, 4.0]
  pivrg = weightings.pivrg(scores=scores, window=2)
  losses = 3 * np.array(scores)
  for steps in (1, 3):
    weights, _ = run(pivrg, jacobian, losses, steps)
    np.testing.assert_allclose(weights, fair, rtol=1e-9)


@pytest.mark.parametrize('far', [1.3, 500.0])
def test_pivrg_favours_the_task_that_is_behind(far, x64):
  jacobian = jacobian_of(4, 3, 12)
  losses = np.array([1.0, 2.0, 4.0 * far])
  pivrg = weightings.pivrg(scores=[1.0, 2.0, 4.0], window=3)
  stats = TaskStats(
    gramian=jnp.asarray(jacobian @ jacobian.T), losses=jnp.asarray(losses)
  )
  state = pivrg.init(3)
  for scale in (0.5, 1.0, 1.5):  # their mean is 1
    step = TaskStats(gramian=stats.gramian, losses=stats.losses * scale)
    _, state = pivrg.update(step, state)
  weights, state = pivrg.update(stats, state)
  behind = np.array([0.0, 0.0, 100 * (far - 1)])
  np.testing.assert_allclose(state.behind, behind, atol=1e-9)
  temperature = max(behind.max() / np.log(2), 10)
  shares = np.exp(behind / temperature)
  shares *= 3 / shares.sum()
  np.testing.assert_allclose(
    jacobian @ (weights @ jacobian), np.sqrt(shares / weights), rtol=1e-8
  )
  assert shares.max() / shares.min() <= 2 + 1e-9 or far < 2
  assert state.residual < 1e-7


def test_imtl_scales_and_balances(x64):
  jacobian, losses = jacobian_of(5, 3), jnp.array([0.2, 1.0, 30.0])
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T), losses=losses)
  imtl, scaling = weightings.imtl(), _imtl_l.imtl_l()
  state, scales_state = imtl.init(3), scaling.init(3)
  for _ in range(3):
    weights, state = imtl.update(stats, state)
    scales, scales_state = scaling.update(stats, scales_state)
  scaled = jacobian * np.asarray(scales)[:, None]
  shares, _ = run(weightings.imtl_g(), scaled)
  np.testing.assert_allclose(weights @ jacobian, shares @ scaled, rtol=1e-8)
  np.testing.assert_allclose(np.sum(weights / scales), 1, rtol=1e-9)
  np.testing.assert_allclose(state.log_scale, scales_state.log_scale)
  assert np.all(np.sign(state.log_scale) == [1, 0, -1])
  assert jax.tree.structure(state) == jax.tree.structure(imtl.init(3))


def test_arguments_are_checked():
  for make in (
    lambda: weightings.upgrad(preference=[1.0, -1.0]),
    lambda: weightings.upgrad(preference=[1.0, 2.0]).init(3),
    lambda: weightings.dual_proj(preference=[0.0, 0.0]),
    lambda: weightings.dual_proj(preference=[1.0]).init(2),
    lambda: weightings.aligned_mtl(scale_mode='max'),
    lambda: weightings.aligned_mtl(preference=[[1.0]]),
    lambda: weightings.conflict_free(preference=[float('nan')]),
    lambda: weightings.gradvac(decay=1.5),
    lambda: weightings.pcd(tau=-0.1),
    lambda: weightings.pcd(decay=1.0),
    lambda: weightings.pcd(eps=-1.0),
    lambda: weightings.pcd(primary=3).init(3),
    lambda: weightings.krum(num_byzantine=-1),
    lambda: weightings.krum(num_byzantine=1, num_selected=0),
    lambda: weightings.krum(num_byzantine=2).init(4),
    lambda: weightings.pivrg(scores=[0.0, 1.0]),
    lambda: weightings.pivrg(scores=[1.0, 1.0]).init(3),
    lambda: weightings.pivrg(scores=[1.0], window=0),
    lambda: weightings.pivrg(scores=[1.0], bound=1.0),
    lambda: weightings.pivrg(scores=[1.0], min_temperature=0.0),
    lambda: weightings.imtl(learning_rate=-1.0),
  ):
    with pytest.raises(ValueError, match='='):
      make()
  with pytest.raises(ValueError, match='tau has shape'):
    weightings.pcd(tau=jnp.ones(2)).init(3)
