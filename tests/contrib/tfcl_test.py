"""TFCL: its losses, its two turns, and what it finds."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.contrib import tfcl

SIZE, TASKS, GROUPS, COUNT = 8, 6, 2, 40
PLANTED = np.kron(np.eye(GROUPS), np.ones((SIZE // GROUPS, TASKS // GROUPS)))


def examples(weights, seed=1, noise=0.1):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(TASKS, COUNT, SIZE))
  y = np.einsum('tnd,dt->tn', x, weights)
  return x, y + noise * rng.normal(size=y.shape)


def block_weights(seed=0):
  rng = np.random.default_rng(seed)
  signs = rng.choice([-1, 1], size=PLANTED.shape)
  return PLANTED * signs * rng.uniform(0.5, 1.5, size=PLANTED.shape)


def value_of(losses, weights):
  a, b, c = (np.asarray(x) for x in losses)
  w = weights.T
  return 0.5 * np.einsum('td,tde,te->t', w, a, w) - np.sum(b * w, 1) + c


def objectives(found):
  values = np.asarray(found.objective)
  there = ~np.isnan(values)
  assert there.sum() == found.steps + 1 and there[: found.steps + 1].all()
  return values[there]


def test_squared_losses_are_those_of_the_examples(x64):
  x, y = examples(block_weights())
  mask = np.arange(COUNT)[None] < np.array([40, 30, 20, 10, 5, 1])[:, None]
  weights = np.random.default_rng(5).normal(size=(SIZE, TASKS))
  errors = (np.einsum('tnd,dt->tn', x, weights) - y) ** 2
  expected = 0.5 * np.sum(mask * errors, 1) / mask.sum(1)
  bad = np.where(mask[..., None], x, np.nan), np.where(mask, y, np.nan)
  losses = tfcl.squared_losses(*bad, mask)
  np.testing.assert_allclose(value_of(losses, weights), expected, rtol=1e-10)


def test_auc_losses_are_those_of_all_pairs(x64):
  x, y = examples(block_weights())
  labels = (y > 0.5).astype(int)
  labels[0] = 1  # no pair
  mask = np.random.default_rng(6).uniform(size=labels.shape) < 0.7
  weights = np.random.default_rng(5).normal(size=(SIZE, TASKS))
  expected = []
  for t in range(TASKS):
    scores = x[t] @ weights[:, t]
    above = scores[mask[t] & (labels[t] == 1)]
    below = scores[mask[t] & (labels[t] == 0)]
    pairs = (1 - (above[:, None] - below[None])) ** 2
    expected.append(0.5 * pairs.mean() if pairs.size else 0.0)
  losses = tfcl.auc_losses(x, labels, mask)
  np.testing.assert_allclose(value_of(losses, weights), expected, rtol=1e-10)


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'smoothing': 0.5},
    {'consensus': True, 'personal': 0.05, 'smoothing': 0.1},
  ],
)
def test_no_turn_makes_the_objective_larger(options, x64):
  """T1, and the changes vanish."""
  losses = tfcl.squared_losses(*examples(block_weights(), noise=1.0))
  found = tfcl.fit(
    losses, GROUPS, strength=0.3, num_steps=3000, tolerance=1e-8, **options
  )
  values = objectives(found)
  assert np.max(np.diff(values)) < 1e-12 * values[0]
  assert values[-1] < values[0] - 1e-3
  assert found.change < 1e-5
  parts = found.consensus[:, None] + found.grouped + found.personal
  np.testing.assert_allclose(found.weights, parts, rtol=1e-12)


def test_planted_blocks_are_recovered():
  """T2: the support without an error, and as many zero eigenvalues."""
  weights = block_weights()
  losses = tfcl.squared_losses(*examples(weights))
  dense = tfcl.fit(losses, GROUPS, strength=0.0)
  found = tfcl.fit(losses, GROUPS, strength=0.3)
  support = np.abs(np.asarray(found.weights)) > 0
  hits = np.sum(support & (PLANTED > 0))
  assert 2 * hits / (support.sum() + PLANTED.sum()) == 1  # F1
  assert np.all(np.asarray(dense.weights) != 0)
  values = np.linalg.eigvalsh(tfcl.bipartite_laplacian(found.weights))
  assert np.all(np.abs(values[:GROUPS]) < 1e-4) and values[GROUPS] > 0.1
  assert tfcl.group_penalty(found.weights, GROUPS) < 1e-4
  assert tfcl.group_penalty(dense.weights, GROUPS) > 1e-2
  error = [np.linalg.norm(x.weights - weights) for x in (found, dense)]
  assert error[0] < error[1]


def test_without_strength_it_is_ridge_regression(x64):
  x, y = examples(block_weights())
  losses = tfcl.squared_losses(x, y)
  found = tfcl.fit(losses, GROUPS, strength=0.0, ridge=0.2, tolerance=1e-10)
  for t in range(TASKS):
    expected = np.linalg.solve(
      x[t].T @ x[t] / COUNT + 0.2 * np.eye(SIZE), x[t].T @ y[t] / COUNT
    )
    np.testing.assert_allclose(found.weights[:, t], expected, rtol=1e-8)


@pytest.mark.parametrize('smoothing', [0.0, 0.5])
def test_membership_is_the_best_of_its_set(smoothing, x64):
  losses = tfcl.squared_losses(*examples(block_weights(), noise=2.0))
  found = tfcl.fit(
    losses, GROUPS, strength=0.1, smoothing=smoothing, num_steps=3
  )
  membership = np.asarray(found.membership)
  values = np.linalg.eigvalsh(membership)
  assert np.all(values > -1e-9) and np.all(values < 1 + 1e-9)
  np.testing.assert_allclose(np.trace(membership), GROUPS, rtol=1e-9)
  laplacian = np.asarray(tfcl.bipartite_laplacian(found.grouped))

  def cost(u):
    return 0.1 * np.sum(laplacian * u) + smoothing / 2 * np.sum(u**2)

  if not smoothing:
    expected = 0.1 * tfcl.group_penalty(found.grouped, GROUPS)
    np.testing.assert_allclose(cost(membership), expected, rtol=1e-6)
  rng = np.random.default_rng(0)
  for _ in range(50):
    basis = np.linalg.qr(rng.normal(size=laplacian.shape))[0][:, :GROUPS]
    other = 0.99 * membership + 0.01 * basis @ basis.T
    assert cost(other) > cost(membership)


def test_parts_of_the_extension_are_stationary(x64):
  weights = block_weights() + 2.0
  weights[:, 4] = [-3.0, 2.0, -3.0, 2.0, -3.0, 2.0, -3.0, 2.0]
  losses = tfcl.squared_losses(*examples(weights))
  found = tfcl.fit(
    losses,
    GROUPS,
    strength=1.0,
    ridge=1e-3,
    consensus=True,
    personal=0.2,
    num_steps=20_000,
    tolerance=1e-11,
  )
  assert found.change <= 1e-11
  slopes = np.einsum('tde,et->dt', losses.curvature, found.weights)
  slopes -= np.asarray(losses.linear).T
  np.testing.assert_allclose(
    slopes.sum(1), -1e-3 * np.asarray(found.consensus), atol=1e-6
  )
  norms = np.linalg.norm(found.personal, axis=0)
  there = norms > 0
  assert there.any() and not there.all()
  units = np.asarray(found.personal)[:, there] / norms[there]
  np.testing.assert_allclose(slopes[:, there], -0.2 * units, atol=1e-6)
  assert np.all(np.linalg.norm(slopes[:, ~there], axis=0) <= 0.2)


def test_edge_cases():
  x, y = examples(block_weights())
  mask = np.ones((TASKS, COUNT), bool)
  mask[2] = False
  found = tfcl.fit(tfcl.squared_losses(x, y, mask), GROUPS, strength=0.1)
  assert np.all(found.weights[:, 2] == 0)
  assert np.all(np.isfinite(found.weights))
  losses = tfcl.squared_losses(np.where(mask[..., None], x, np.nan), y)
  found = tfcl.fit(losses, GROUPS, strength=0.1)
  assert found.steps == 1 and np.isnan(found.change)


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'num_groups': 0}, 'num_groups=0'),
    ({'num_groups': 15}, 'more than the 14 features and tasks'),
    ({'strength': -1.0}, 'strength=-1.0'),
    ({'personal': -1.0}, 'personal=-1.0'),
    ({'num_steps': 0}, 'num_steps=0'),
  ],
)
def test_what_cannot_be_fitted_is_refused(change, match):
  losses = tfcl.squared_losses(*examples(block_weights()))
  options = {'num_groups': GROUPS, 'strength': 0.1} | change
  with pytest.raises(ValueError, match=match):
    tfcl.fit(losses, **options)


def test_shapes_are_checked():
  with pytest.raises(ValueError, match='they must be'):
    tfcl.squared_losses(jnp.ones((2, 3)), jnp.ones((2, 3)))
  with pytest.raises(ValueError, match='mask has shape'):
    tfcl.auc_losses(jnp.ones((2, 3, 1)), jnp.ones((2, 3)), jnp.ones(3))
  with pytest.raises(ValueError, match='weights has shape'):
    tfcl.bipartite_laplacian(jnp.ones(3))
  losses = tfcl.squared_losses(jnp.ones((2, 3, 4)), jnp.ones((2, 3)))
  with pytest.raises(ValueError, match='losses has shapes'):
    tfcl.fit(losses._replace(linear=jnp.ones((2, 3))), 1, strength=0.1)
