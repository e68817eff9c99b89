"""The mergeable AUC against ranks in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.metrics import AUC, Mean


def exact(scores, labels):
  """The rank statistic of Mann and Whitney; ties share their ranks."""
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
  values, inverse, counts = np.unique(
    scores, return_inverse=True, return_counts=True
  )
  assert len(values)
  ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
  n = labels.sum()
  return (ranks[labels].sum() - n * (n + 1) / 2) / (n * (len(labels) - n))


def draw(seed, size=5000, gap=1.0, scale=3.0):
  rng = np.random.default_rng(seed)
  labels = rng.random(size) < 0.1
  scores = scale * (rng.standard_normal(size) + gap * labels)
  return scores.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize('gap', [-1.0, 0.0, 1.0, 3.0])
def test_within_its_own_bound_of_the_ranks(gap):
  scores, labels = draw(0, gap=gap)
  metric = AUC.from_logits(scores, labels)
  error = abs(float(metric.compute()) - exact(scores, labels))
  bound = float(metric.error_bound())
  assert error <= bound + 1e-6
  assert 0 < bound < 1e-3


def test_few_bins_have_a_wide_bound_that_holds():
  scores, labels = draw(1)
  metric = AUC.from_logits(scores, labels, bins=8)
  error = abs(float(metric.compute()) - exact(scores, labels))
  assert 1e-3 < error <= float(metric.error_bound())


def test_scores_on_the_bins_are_exact_with_their_ties():
  rng = np.random.default_rng(2)
  scores = rng.integers(-10, 10, 300) / 8
  labels = rng.integers(0, 2, 300)
  found = AUC.from_logits(scores.astype(np.float32), labels).compute()
  np.testing.assert_allclose(found, exact(scores, labels), atol=1e-6)


def test_batches_merge_to_the_whole_in_a_scan():
  scores, labels = draw(3, size=640)

  @jax.jit
  def gather(scores, labels, mask):
    def step(total, batch):
      scores, labels, mask = batch
      return total.merge(AUC.from_logits(scores, labels, mask=mask)), None

    batches = (scores, labels, mask)
    return jax.lax.scan(step, AUC.empty(), batches)[0]

  mask = np.arange(640) < 600
  broken = np.where(mask, scores, np.nan)
  shape = (5, 128)
  total = gather(*(x.reshape(shape) for x in (broken, labels, mask)))
  whole = AUC.from_logits(scores[:600], labels[:600])
  assert jax.tree.all(jax.tree.map(jnp.array_equal, total, whole))


@pytest.mark.parametrize(
  ('logits', 'labels', 'answer'),
  [
    ([1.0, 2.0], [1, 1], np.nan),
    ([1.0, 2.0], [0, 0], np.nan),
    ([], [], np.nan),
    ([np.nan, 2.0, 1.0], [0, 1, 0], np.nan),
    ([np.nan, 2.0, 1.0], [1, 1, 0], np.nan),
    ([np.inf, -np.inf, 0.0], [1, 0, 0], 1.0),
    ([100.0, 50.0], [1, 0], 0.5),  # both beyond the limit: a tie
    ([-100.0, 100.0], [1, 0], 0.0),
  ],
)
def test_edge_cases(logits, labels, answer):
  metric = AUC.from_logits(
    np.array(logits, np.float32), np.array(labels, np.int32)
  )
  np.testing.assert_array_equal(metric.compute(), answer)


def test_bad_arguments_are_named():
  ones = np.ones(3, np.float32)
  with pytest.raises(ValueError, match=r'labels must have the shape .*\(2,\)'):
    AUC.from_logits(ones, np.ones(2, np.int32))
  with pytest.raises(ValueError, match='mask must have the shape'):
    AUC.from_logits(ones, ones, mask=np.ones(2))
  make = functools.partial(AUC.from_logits, ones, ones)
  with pytest.raises(ValueError, match='bins=1'):
    make(bins=1)
  with pytest.raises(ValueError, match='limit=0'):
    make(limit=0)
  with pytest.raises(ValueError, match='4096 and 8 bins'):
    AUC.empty().merge(AUC.empty(8))
  other: object = Mean.empty()
  with pytest.raises(TypeError, match='cannot merge AUC with Mean'):
    AUC.empty().merge(other)  # pyrefly: ignore
