import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.diagnostics import Calibration, EntropyHistogram

N, C = 400, 5


def _data(seed=0):
  rng = np.random.default_rng(seed)
  logits = (3 * rng.normal(size=(N, C))).astype(np.float32)
  labels = np.where(
    rng.uniform(size=N) < 0.6, logits.argmax(-1), rng.integers(0, C, N)
  )
  return logits, labels, rng.uniform(size=N) < 0.7


def _softmax(logits):
  exp = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


def _by_hand(logits, labels, num_bins):
  """ECE, Brier score and bins, example by example in float64."""
  p = _softmax(logits)
  confidence, correct = p.max(-1), p.argmax(-1) == labels
  brier = np.mean(((p - np.eye(C)[labels]) ** 2).sum(-1))
  ece, bins = 0.0, []
  for b in range(num_bins):
    inside = (confidence > b / num_bins) & (confidence <= (b + 1) / num_bins)
    n = inside.sum()
    bins.append(n)
    if n:
      gap = correct[inside].mean() - confidence[inside].mean()
      ece += n / len(p) * abs(gap)
  return ece, brier, bins


@pytest.mark.parametrize('num_bins', [10, 3])
def test_scores_are_those_of_the_definition(num_bins):
  logits, labels, mask = _data()
  got = Calibration.from_logits(logits, labels, mask=mask, num_bins=num_bins)
  ece, brier, bins = _by_hand(logits[mask], labels[mask], num_bins)
  np.testing.assert_allclose(got.ece(), ece, rtol=1e-5)
  np.testing.assert_allclose(got.brier(), brier, rtol=1e-5)
  reliability = got.reliability()
  np.testing.assert_array_equal(reliability.count, bins)
  empty = np.array(bins) == 0
  np.testing.assert_array_equal(np.isnan(reliability.accuracy), empty)
  np.testing.assert_array_equal(np.isnan(reliability.confidence), empty)


def test_batches_merge_to_the_whole_and_masked_nan_is_nothing():
  logits, labels, mask = _data(1)
  logits[~mask] = np.nan
  at_once = Calibration.from_logits(logits, labels, mask=mask)

  def step(total, xs):
    return total.merge(Calibration.from_logits(*xs[:2], mask=xs[2])), None

  batches = [x.reshape(8, -1, *x.shape[1:]) for x in (logits, labels, mask)]
  merged, _ = jax.lax.scan(
    step, Calibration.empty(), jax.tree.map(jnp.asarray, batches)
  )
  np.testing.assert_allclose(merged.ece(), at_once.ece(), rtol=1e-5)
  np.testing.assert_allclose(merged.brier(), at_once.brier(), rtol=1e-5)
  assert jnp.isfinite(merged.ece())
  per_batch = jax.vmap(lambda l, y, m: Calibration.from_logits(l, y, mask=m))(
    *batches
  )
  assert per_batch.ece().shape == per_batch.brier().shape == (8,)
  summed = jax.vmap(lambda x: jax.lax.psum(x, 'd').ece(), axis_name='d')
  np.testing.assert_allclose(
    summed(per_batch), jnp.full(8, at_once.ece()), rtol=1e-5
  )
  np.testing.assert_allclose(
    per_batch.ece()[3],
    Calibration.from_logits(
      batches[0][3], batches[1][3], mask=batches[2][3]
    ).ece(),
    rtol=1e-5,
  )


def test_edges_of_the_bins():
  """A bin holds its upper edge, and a confidence of 1 is in the last."""
  logits = jnp.array([[jnp.inf - jnp.inf, 0.0], [200.0, 0.0], [0.0, 0.0]])
  got = Calibration.from_logits(logits[1:], jnp.array([0, 0])).reliability()
  assert got.count[9] == 1  # 1.0
  assert got.count[4] == 1  # 0.5 is in (0.4, 0.5]
  assert got.count.sum() == 2
  bad = Calibration.from_logits(logits, jnp.array([0, 0, 0]))
  assert jnp.isnan(bad.ece())
  assert jnp.isnan(bad.brier())
  assert jnp.isfinite(bad.reliability().confidence[4])


def test_extremes_of_the_scores():
  sure = jnp.array([[200.0, 0.0], [0.0, 200.0]])
  right = Calibration.from_logits(sure, jnp.array([0, 1]))
  wrong = Calibration.from_logits(sure, jnp.array([1, 0]))
  assert right.ece() == right.brier() == 0
  assert wrong.ece() == 1
  assert wrong.brier() == 2
  outside = Calibration.from_logits(sure, jnp.array([7, -1]))
  assert outside.ece() == 1
  assert outside.brier() == 2  # p = 1 on a wrong class, and 0 on the label
  nothing = Calibration.empty()
  assert jnp.isnan(nothing.ece())
  assert jnp.isnan(nothing.brier())


def test_entropies_by_numpy():
  logits, _, mask = _data(2)
  logits[0], mask[0] = np.nan, False
  got = EntropyHistogram.from_logits(logits, mask=mask, num_bins=7)
  p = _softmax(logits[mask])
  entropy = -(p * np.log(p)).sum(-1)
  counts, edges = np.histogram(entropy, bins=7, range=(0, math.log(C)))
  np.testing.assert_array_equal(got.count, counts)
  np.testing.assert_allclose(got.edges(), edges, rtol=1e-6)
  np.testing.assert_allclose(got.mean(), entropy.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    np.sum(got.density() * np.diff(got.edges())), 1, rtol=1e-6
  )
  twice = got.merge(got).merge(EntropyHistogram.empty(C, 7))
  np.testing.assert_array_equal(twice.count, 2 * counts)
  np.testing.assert_allclose(twice.mean(), got.mean(), rtol=1e-6)


def test_entropies_at_the_ends():
  flat, sure = jnp.zeros(3), jnp.array([0.0, -jnp.inf, -jnp.inf])
  got = EntropyHistogram.from_logits(jnp.stack([flat, flat, sure]), num_bins=4)
  np.testing.assert_array_equal(got.count, [1, 0, 0, 2])
  np.testing.assert_allclose(got.mean(), 2 / 3 * math.log(3), rtol=1e-6)
  bad = EntropyHistogram.from_logits(jnp.full((1, 3), jnp.nan))
  assert jnp.isnan(bad.mean())
  assert jnp.isnan(bad.count[-1])
  assert jnp.isnan(EntropyHistogram.empty(3).mean())
  assert jnp.isnan(EntropyHistogram.empty(3).density()).all()


def test_wrong_arguments_are_named():
  logits, labels = jnp.ones((4, 2)), jnp.zeros(4, int)
  with pytest.raises(TypeError, match='labels must be integers'):
    Calibration.from_logits(logits, jnp.ones(4))
  with pytest.raises(ValueError, match='labels must have the shape of logits'):
    Calibration.from_logits(logits, labels[:3])
  with pytest.raises(ValueError, match='mask must have the shape of logits'):
    Calibration.from_logits(logits, labels, mask=jnp.ones(3))
  with pytest.raises(ValueError, match='num_bins=0'):
    Calibration.from_logits(logits, labels, num_bins=0)
  with pytest.raises(ValueError, match='num_classes=1'):
    EntropyHistogram.from_logits(logits[:, :1])
  with pytest.raises(ValueError, match='different sizes'):
    Calibration.empty(10).merge(Calibration.empty(5))
  with pytest.raises(ValueError, match='different sizes'):
    EntropyHistogram.empty(2).merge(EntropyHistogram.empty(3))
  with pytest.raises(TypeError, match='cannot merge Calibration'):
    Calibration.empty().merge(EntropyHistogram.empty(3))
