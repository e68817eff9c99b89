"""Auto-Lambda and MOML against float64 references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

ROWS = np.random.default_rng(1).normal(size=(6, 3))


class Adam:
  """Optax's default, in numpy."""

  def __init__(self, size):
    self.first, self.second, self.count = np.zeros(size), np.zeros(size), 0

  def __call__(self, gradient):
    self.count += 1
    self.first = 0.9 * self.first + 0.1 * gradient
    self.second = 0.999 * self.second + 0.001 * gradient**2
    first = self.first / (1 - 0.9**self.count)
    return first / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8)


def softmax(x):
  powers = np.exp(x - x.max())
  return powers / powers.sum()


def through(row, weights):
  return (np.diag(weights) - np.outer(weights, weights)) @ row


def followed(weighting, rows, size=3):
  state, found = weighting.init(size), []
  for row in rows:
    stats = mtl.TaskStats(hypergradient=jnp.asarray(row))
    weights, state = weighting.update(stats, state)
    found.append(weights)
  return np.stack(found)


@pytest.mark.parametrize('projection', ['nonnegative', 'softmax'])
def test_adam_on_the_weights(x64, projection):
  learned, adam, expected = np.full(3, 0.1), Adam(3), []
  for row in ROWS:
    if projection == 'softmax':
      learned = learned - 0.06 * adam(through(row, softmax(learned)))
      expected.append(softmax(learned))
    else:
      learned = np.maximum(learned - 0.06 * adam(row), 0)
      expected.append(learned)
  found = followed(
    mtl.weightings.auto_lambda(learning_rate=0.06, projection=projection), ROWS
  )
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  if projection == 'nonnegative':
    assert found.min() == 0 and found[-1].max() > 0.1


def test_weights_come_back_from_zero():
  down, up = np.ones((3, 1)), -np.ones((20, 1))
  weighting = mtl.weightings.auto_lambda(learning_rate=0.05)
  found = followed(weighting, np.concatenate([down, up]), size=1)
  assert found[2, 0] == 0 and found[-1, 0] > 0.05


def min_norm(vectors):
  """The shortest of many combinations of two vectors."""
  share = np.linspace(0, 1, 400001)[:, None]
  points = share * vectors[0] + (1 - share) * vectors[1]
  return points[np.argmin(np.sum(points**2, axis=1))]


@pytest.mark.parametrize('normalize', ['l2', 'none'])
def test_moml_takes_the_shortest_vector_of_the_hull(x64, normalize):
  rows = np.random.default_rng(2).normal(size=(4, 2, 3)) * [[[5.0], [0.2]]]
  learned, adam, expected = np.zeros(3), Adam(3), []
  for pair in rows:
    vectors = np.stack([through(row, softmax(learned)) for row in pair])
    if normalize == 'l2':
      vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    learned = learned - 0.1 * adam(min_norm(vectors))
    expected.append(softmax(learned))
  weighting = mtl.weightings.moml(
    primary=[2, 0], learning_rate=0.1, normalize=normalize
  )
  found = followed(weighting, rows)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


def test_moml_leaves_out_what_no_weight_changes(x64):
  row = ROWS[0]
  alone = followed(mtl.weightings.moml(primary=[0], learning_rate=0.1), [[row]])
  beside = followed(
    mtl.weightings.moml(primary=[0, 1], learning_rate=0.1), [[row, 0 * row]]
  )
  np.testing.assert_allclose(beside, alone, rtol=1e-12)
  still = followed(mtl.weightings.moml(learning_rate=0.1), np.zeros((2, 3, 3)))
  np.testing.assert_allclose(still, 1 / 3, rtol=1e-12)


@pytest.mark.parametrize('normalize', ['l2', 'none'])
def test_moml_does_not_step_by_rounding(normalize):
  # Three directions in a plane, none of which is better for all.
  angles = np.array([0.1, 2.2, 4.1])
  plane = np.stack([[1, -1, 0], [0.5, 0.5, -1]])
  rows = np.stack([np.cos(angles), np.sin(angles)], 1) @ plane * [[9], [1], [3]]
  weighting = mtl.weightings.moml(learning_rate=0.1, normalize=normalize)
  found = followed(weighting, [rows.astype(np.float32)] * 3)
  np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize('name', ['auto_lambda', 'moml'])
def test_absent_tasks_are_the_smaller_problem(name):
  make = getattr(mtl.weightings, name)
  rows = ROWS[:4] if name == 'auto_lambda' else ROWS[:4, None]
  options = {} if name == 'auto_lambda' else {'primary': [0]}
  weighting = make(learning_rate=0.1, **options)
  smaller = followed(weighting, rows[..., [0, 2]], size=2)
  mask, state = jnp.array([True, False, True]), weighting.init(3)
  for row, expected in zip(rows, smaller, strict=True):
    row = jnp.asarray(row).at[..., 1].set(jnp.nan)
    stats = mtl.TaskStats(hypergradient=row, mask=mask)
    weights, state = weighting.update(stats, state)
    np.testing.assert_allclose(weights[jnp.array([0, 2])], expected, rtol=1e-5)
    assert weights[1] == 0
  start = weighting.init(3).learned[1]
  np.testing.assert_array_equal(state.learned[1], start)


@pytest.mark.parametrize('name', ['auto_lambda', 'moml'])
def test_what_is_not_finite_is_not_learned(name):
  tx = mtl.get_method(name)(2, learning_rate=0.1)
  shape = (2,) if name == 'auto_lambda' else (2, 2)
  grads, state = jnp.eye(2), tx.init(None)
  bad = jnp.ones(shape).at[..., 0].set(jnp.nan)
  update, after = tx.update(grads, state, hypergradient=bad)
  assert jnp.isnan(update).all() and jnp.isnan(mtl.get_weights(after)).all()
  for old, new in zip(
    jax.tree.leaves(state.weighting_state),
    jax.tree.leaves(after.weighting_state),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)


def test_wrappers_look_ahead_with_the_weights_inside():
  inside = mtl.weightings.auto_lambda(initial_weight=0.3, primary=[1])
  for wrapped in (
    mtl.weightings.cr_mogm(inside),
    mtl.weightings.every_k(mtl.weightings.cr_mogm(inside), 2),
  ):
    ahead = wrapped.lookahead
    assert ahead.primary == (1,)
    found = ahead.weights(wrapped.init(2))
    np.testing.assert_allclose(found, [0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
  'name, given, words',
  [
    ('auto_lambda', None, r'auto_lambda reads the derivatives of validation'),
    ('auto_lambda', (2, 2), r'shape \(2, 2\); auto_lambda reads \(2,\)'),
    ('moml', (2,), r'shape \(2,\); moml reads \(2, 2\).*separate=True'),
  ],
)
def test_update_says_what_it_misses(name, given, words):
  tx = mtl.get_method(name)(2)
  value = None if given is None else jnp.ones(given)
  with pytest.raises((TypeError, ValueError), match=words):
    tx.update(jnp.eye(2), tx.init(None), hypergradient=value)


def test_rules_say_what_they_miss():
  for name in ('auto_lambda', 'moml'):
    weighting = getattr(mtl.weightings, name)()
    with pytest.raises(ValueError, match=f'{name} needs stats.hypergradient'):
      weighting.update(mtl.TaskStats(), weighting.init(2))
