import jax
import numpy as np
import pytest
from scipy import stats

from mtljax.diagnostics import ranking_similarity

SCIPY = {'kendall': stats.kendalltau, 'spearman': stats.spearmanr}


@pytest.mark.parametrize('measure', SCIPY)
@pytest.mark.parametrize('levels', [3, 8, 1000])
def test_equals_scipy_with_ties(measure, levels, x64):
  rng = np.random.default_rng(levels)
  scores, others = rng.integers(0, levels, (2, 20, 12)).astype(float)
  got = jax.jit(lambda a, b: ranking_similarity(a, b, measure=measure))(
    scores, others
  )
  expected = [
    SCIPY[measure](a, b).statistic for a, b in zip(scores, others, strict=True)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize('measure', SCIPY)
def test_only_the_order_counts(measure, x64):
  scores = np.random.default_rng(0).normal(size=9)
  bent = np.exp(5 * scores)
  np.testing.assert_allclose(
    ranking_similarity(scores, bent, measure=measure), 1
  )
  np.testing.assert_allclose(
    ranking_similarity(scores, -bent, measure=measure), -1
  )
  bent[np.argmax(bent)] = np.inf
  np.testing.assert_allclose(
    ranking_similarity(scores, bent, measure=measure), 1
  )


def test_by_hand_with_a_tie(x64):
  # Of three pairs two agree, and one is tied in the first.
  got = ranking_similarity([1.0, 1.0, 2.0], [1.0, 2.0, 3.0])
  np.testing.assert_allclose(got, 2 / np.sqrt(2 * 3))


@pytest.mark.parametrize('measure', SCIPY)
@pytest.mark.parametrize(
  'scores', [[1.0, 1.0, 1.0], [np.inf, np.inf, np.inf], [1.0, np.nan, 2.0]]
)
def test_no_order_is_nan(measure, scores):
  assert np.isnan(ranking_similarity(scores, [1.0, 2.0, 3.0], measure=measure))
  assert np.isnan(ranking_similarity([1.0, 2.0, 3.0], scores, measure=measure))
  assert np.isnan(ranking_similarity([1.0], [2.0], measure=measure))


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r'got \(2,\) and \(3,\)'):
    ranking_similarity([1.0, 2.0], [1.0, 2.0, 3.0])
  with pytest.raises(ValueError, match="measure='tau'"):
    ranking_similarity([1.0, 2.0], [1.0, 2.0], measure='tau')
