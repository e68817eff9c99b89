import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.diagnostics import ConflictRate, sign_conflicts, similarity

T = 3


def _rows(seed, steps=6):
  return np.random.default_rng(seed).normal(size=(steps, T, 5))


def _gramians(seed, steps=6):
  rows = _rows(seed, steps)
  return (rows @ rows.transpose(0, 2, 1)).astype(np.float32)


def test_similarity_by_its_definition():
  rows = _rows(0) * np.array([1.0, 1e-4, 1e4])[:, None]
  gramians = rows @ rows.transpose(0, 2, 1)
  got = similarity(gramians.astype(np.float32))
  for s, i, j in itertools.product(range(6), range(T), range(T)):
    a, b = rows[s, i], rows[s, j]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    squares = np.dot(a, a) + np.dot(b, b)
    np.testing.assert_allclose(
      got.cosine[s, i, j], np.dot(a, b) / lengths, atol=1e-5
    )
    np.testing.assert_allclose(
      got.magnitude[s, i, j], 2 * lengths / squares, rtol=1e-5
    )
  np.testing.assert_allclose(got.product, gramians, rtol=1e-6)


@pytest.mark.parametrize('scale', [1e-15, 1e-10, 1e10, 1e15])
def test_similarity_of_extreme_gramians(scale):
  gramian = scale**2 * jnp.array([[1.0, -1.0, 0.0], [-1.0, 4.0, 0], [0, 0, 0]])
  got = similarity(gramian)
  np.testing.assert_allclose(
    got.cosine, [[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 0]], rtol=1e-5
  )
  np.testing.assert_allclose(
    got.magnitude, [[1, 0.8, 0], [0.8, 1, 0], [0, 0, 0]], rtol=1e-5
  )


def test_sign_conflicts_counts_shared_coordinates():
  rng = np.random.default_rng(1)
  grads = {
    'a': rng.normal(size=(T, 4, 2)).astype(np.float32),
    'b': 1e-30 * rng.normal(size=(T, 7)).astype(np.float32),
    'head': rng.normal(size=(3,)).astype(np.float32),
  }
  grads['a'][:, 0] = 0
  got = sign_conflicts(grads, labels={'a': 'shared', 'b': 'shared', 'head': 1})
  signs = np.sign(
    np.concatenate([grads['a'].reshape(T, -1), grads['b']], axis=1)
  )
  expected = [[np.mean(x * y < 0) for y in signs] for x in signs]
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  grads['b'][2, 0] = np.nan
  got = sign_conflicts({'a': grads['a'], 'b': grads['b']})
  assert jnp.isnan(got[2]).all()
  assert jnp.isfinite(got[:2, :2]).all()
  with pytest.raises(ValueError, match='at least one shared'):
    sign_conflicts({'head': grads['head']}, labels={'head': 0})


def _by_hand(gramians, masks):
  pairs, steps = [], []
  for gramian, mask in zip(gramians, masks, strict=True):
    own = [
      gramian[i, j] < 0
      for i, j in itertools.combinations(np.flatnonzero(mask), 2)
    ]
    pairs += own
    steps += [any(own)] if own else []
  return np.mean(pairs), np.mean(steps)


@pytest.mark.parametrize('masked', [False, True])
def test_merged_steps_are_the_rate_of_all(masked):
  gramians = _gramians(2, steps=20)
  masks = np.ones((20, T), bool)
  if masked:
    masks = np.random.default_rng(3).uniform(size=(20, T)) < 0.6
    gramians = np.where(masks[:, :, None], gramians, np.nan)

  def step(rate, xs):
    new = ConflictRate.from_gramian(xs[0], mask=xs[1] if masked else None)
    return rate.merge(new), None

  empty = ConflictRate.empty(T)
  got, _ = jax.lax.scan(step, empty, (jnp.array(gramians), jnp.array(masks)))
  at_once = ConflictRate.from_gramian(gramians, mask=masks)
  for rate in (got, at_once):
    np.testing.assert_allclose(
      (rate.pair_rate(), rate.step_rate()),
      _by_hand(gramians, masks),
      rtol=1e-6,
    )
  rates = got.rates()
  assert jnp.isnan(jnp.diagonal(rates)).all()
  if not masked:
    np.testing.assert_allclose(rates[0, 1], np.mean(gramians[:, 0, 1] < 0))


def test_no_pairs_and_nan():
  one = ConflictRate.from_gramian(jnp.ones((1, 1)))
  assert jnp.isnan(one.pair_rate())
  assert jnp.isnan(one.step_rate())
  bad = ConflictRate.from_gramian(jnp.full((2, 2), jnp.nan))
  assert jnp.isnan(bad.pair_rate())
  assert jnp.isnan(bad.step_rate())
  zero = ConflictRate.from_gramian(jnp.zeros((2, 2)))
  assert zero.pair_rate() == zero.step_rate() == 0


def test_wrong_arguments_are_named():
  with pytest.raises(
    ValueError, match=r'gramian must have shape \(..., T, T\)'
  ):
    ConflictRate.from_gramian(jnp.ones((2, 3)))
  with pytest.raises(ValueError, match='mask must have an entry'):
    ConflictRate.from_gramian(jnp.eye(3), mask=jnp.ones(2))
  with pytest.raises(TypeError, match='cannot merge ConflictRate with int'):
    ConflictRate.empty(2).merge(1)
  with pytest.raises(ValueError, match='cannot merge metrics of shapes'):
    ConflictRate.empty(2).merge(ConflictRate.empty(3))
